// Which instructions must not run beside each other. Internal to the CPU device.
#pragma once

#include <cstdint>
#include <vector>

#include "isa/program.h"

namespace millpower::device::cpu {

// By place in `order`: the earlier places whose instructions touch what this one touches, one of
// the two writing. Without those that it comes after anyway, through one that is listed.
std::vector<std::vector<int32_t>> FindConflicts(const isa::Program& program,
                                                const std::vector<isa::Instruction>& order);

}  // namespace millpower::device::cpu
