// Attention of a launch's rows over paged keys and values, and storing new keys and values into
// pages, as a chip's libraries carry them out. docs/chip.md says where the formulas come from.
//
// Sequences with one row each (decode) go through a kernel that splits their positions over cores;
// those with more rows (prompts) through one that gives each core a block of rows.
//
// The constants are those of [fitted.decode_attention], [fitted.prompt_attention] and
// [fitted.kv_append] in the chip's file; without them the chip's other figures stand in.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "device/chip/description.h"
#include "device/chip/work.h"

namespace millpower::device::chip {

struct AttentionShape {
  int64_t heads = 0;  // of queries
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;  // positions a row looks back at, itself included; 0: all
  DType kv = DType::kBf16;
};

// Consecutive rows of one sequence.
struct QueryRun {
  int64_t rows = 0;
  int64_t first_position = 0;
  bool operator==(const QueryRun&) const = default;
};

// Decode. Items are pairs of a sequence and a KV head, whose query heads share one tile of
// 64 rows; each is cut into `splits` parts, the number with which all take least:
//   part    tile_s + ceil(blocks / splits) max(block_s, block bytes / core_cache_bytes_per_s),
//           blocks of 128 positions, tile_s and block_s by (head_dim / 128)^dim_power
//   cores   ceil(items splits / cores) part
//   memory  bytes / min(memory.bytes_per_s memory_efficiency, busy cores core_memory_bytes_per_s),
//           for what the last-level cache does not hold: keys and values of at most half of it are
//           there, of more than all of it none; the rest at the cache's rate
//   total   launch_s + sequences sequence_s + (cores^4 + memory^4)^(1/4)
//           + combine_s and the parts' sums through the cache, if split
//
// Prompts. Items are blocks of 128 or 64 rows of a query head, or of all query heads of a KV head
// taken together, whichever takes less:
//   block   4 rows 128 head_dim / (rate of a core matrix_efficiency) + rows 128 exp_s
//   item    tile_s (head_dim / 128)^dim_power + its causal blocks
//   cores   max(longest item, all / cores + idle slots of the last round shortest item tail)
//   total   launch_s + max(cores, memory)
Work AttentionWork(const Chip& chip, const AttentionShape& shape, std::span<const QueryRun> runs);

// `rows` new positions of `sequences`, which take about as many each. A row's values are moved by
// as many threads, at most 512, of the 2048 that a core holds; each takes row_s (times
// narrow_factor into 8 bits), beside the memory's time, and both get in each other's way:
// sqrt(threads^2 + memory^2).
Work KvAppendWork(const Chip& chip, const AttentionShape& shape, int64_t rows, int64_t sequences);

}  // namespace millpower::device::chip
