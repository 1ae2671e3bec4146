// What the machine itself can give, measured now: the limits that kernels are held to. Machines are
// shared and drift, so measure right beside what is compared.
#pragma once

#include <cstdint>
#include <span>

#include "base/threads.h"

namespace millpower::kernels {

// Bytes per second that all members of `team` together read from memory, each from its own part of
// `pool` (much larger than the caches, 64-byte aligned): the best of a few passes.
double ReadBandwidth(ThreadTeam& team, std::span<const std::byte> pool);

// Float32 operations per second (a fused multiply-add counts two) and 8-bit integer operations per
// second (a multiply and an add count two) of loops that never leave the registers, with the widest
// instructions this machine has: for bytes VNNI, else AVX2's pairs of products in 16 bits. 0 where
// it has none that we know.
double FmaPeak(ThreadTeam& team);
double Int8Peak(ThreadTeam& team);

}  // namespace millpower::kernels
