// Mixtures of experts: routing, products with the chosen experts' weights, and their combination,
// as the libraries of such chips carry them out: rows sorted by expert, then one kernel that goes
// through all experts' tiles.
//
// The constants are those of [fitted.moe] in the chip's file, and of [fitted.moe_8bit] for products
// of 8-bit rows; docs/chip.md says what each stands for, and where it comes from.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/result.h"
#include "device/chip/description.h"
#include "device/chip/work.h"

namespace millpower::device::chip {

struct ExpertShape {
  int64_t rows = 0;
  int64_t choices = 0;   // experts of a row
  int64_t experts = 0;   // of all chips that share them
  int64_t channels = 0;  // of one expert's weight; of `combine`, of y
  int64_t steps = 0;
  DType weights = DType::kBf16;
  bool quantised = false;
  bool gated = false;
  bool own_columns =
      false;        // each choice of a row has its own columns of x: [rows, choices * steps]
  double away = 0;  // of all rows * choices, those whose expert is on another chip
};

// Which experts each row takes, and the rows in the order of their experts.
//   issue  = 3 kernel_s                                 choosing, counting, sorting
//   memory = rows * experts * activation bytes / (memory.bytes_per_s * rows_efficiency)
//   after  = rows * choices * sort_s
Work RouteWork(const Chip& chip, const ExpertShape& shape);

// `rows_of_expert`: how many rows each expert of this chip has. Of the tiles in the chip's menu the
// one with which it takes least; tiles = sum over experts of ceil(rows / tile.rows), times
// ceil(channels / tile.channels), and each core takes one after the other:
//   waves  = ceil(tiles / cores)
//   core   = waves * (tile_s + max(multiply, load))
//   load   = steps * (tile.rows * x bytes + tile.channels * weight bytes) / core_bytes_per_s
//   memory = (weights of experts with rows + x + y) / (memory.bytes_per_s * memory_efficiency)
// A gated product is followed by a kernel of its own for the gate: kernel_s, and its rows' traffic.
// Errors: kUnsupported: the chip multiplies no such numbers.
Result<Work> ExpertMatMulWork(const Chip& chip, const ExpertShape& shape,
                              std::span<const int64_t> rows_of_expert);

// y = the weighted sum of each row's choices: rows' traffic at rows_efficiency.
Work CombineWork(const Chip& chip, const ExpertShape& shape);

}  // namespace millpower::device::chip
