// A product with a packed weight: y[rows, channels] = x[rows, steps] · w[channels, steps], by tiles
// of the chip's menu; and the kernel that quantises rows for it. docs/chip.md has the formulas.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "base/dtype.h"
#include "base/result.h"
#include "device/chip/description.h"
#include "device/chip/work.h"

namespace millpower::device::chip {

struct MatMulShape {
  int64_t rows = 0;
  int64_t channels = 0;  // of the weight; a gated product's y has half of them
  int64_t steps = 0;     // of the reduction
  DType weights = DType::kBf16;
  bool quantised = false;  // x is quantised (8 bits); else it has the chip's activation type, and
                           // weights of fewer bits are widened on the way to the matrix engine
  bool gated = false;
  bool residual = false;
  // Bytes of weights that pass through the last-level cache from one use of this weight to the
  // next, its own among them: those of the whole Program. Few of them stay there.
  double program_weight_bytes = std::numeric_limits<double>::infinity();
};

// The fastest of all tiles and splits of the reduction. Two waves at most, a kind of full ones and
// a last one, and one for the sum of a split reduction.
// Errors: kUnsupported: the chip multiplies no such numbers.
Result<Work> MatMulWork(const Chip& chip, const MatMulShape& shape);

// Quantising rows to `type` for a product. Null where no constants say how long a chip's library
// takes over it; it is row work then, as any other.
std::optional<Work> QuantiseWork(const Chip& chip, int64_t rows, int64_t columns, DType type);

}  // namespace millpower::device::chip
