// Collectives of a group of chips over their links, as NCCL carries them out on chips around a
// switch: rings, exchanges of pairs, and sums in the switch, each by a protocol that is quick to
// start and one that is quick once it runs. The constants are those of [fitted.collective];
// docs/chip.md says what each stands for.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "device/chip/description.h"
#include "device/chip/work.h"

namespace millpower::device::chip {

enum class CollectiveKind : uint8_t { kAllReduce, kAllGather, kReduceScatter, kAllToAll };

struct CollectiveShape {
  CollectiveKind kind = CollectiveKind::kAllReduce;
  int ranks = 1;
  // Of what one chip has in the end (all_reduce, all_gather), or in the beginning (reduce_scatter,
  // all_to_all).
  double bytes = 0;
  DType type = DType::kBf16;  // switches add floating point only
};

// The least of what these take. With n ranks, part = bytes / n, hops = 2 (n - 1) for all_reduce, 1
// for all_to_all (pairs exchange at the same time), else n - 1, and parts = n - 1 for all_to_all,
// else hops, that cross a link:
//   line    data and flags in one line, so that no hop waits for a whole buffer:
//           launch_s + hops hop_s + (parts + 1) part / line_bytes_per_s;
//           of pairs, launch_s + hop_s + part / pair_bytes_per_s
//   bulk    whole buffers: launch_s + start + hops hop_s + part / copy_bytes_per_s
//           + parts part / (links.bytes_per_s link_efficiency), start being ring_start_s or
//           pairs_start_s: one part of the n is the chip's own, and is copied
//   switch  the same, the switch adding what goes through it: launch_s + switch_start_s + 2 hop_s
//           + bytes (1 + 1 / n) / (links.bytes_per_s switch_efficiency), of floating point and from
//           switch_least_ranks on
// Nothing for one rank; with more, the chip has links.
Work CollectiveWork(const Chip& chip, const CollectiveShape& shape);

// Of one chip that gets so many bytes from another, without sending any: one half of what two chips
// do that exchange as much with each other.
Work ReceiveWork(const Chip& chip, double bytes);

}  // namespace millpower::device::chip
