// Rows of embedding tables, from floats to the bytes of the table's number format. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::ranking {

// isa/layout.h's rows of `cols` values, one after the other. i8 and i4: the scale is the largest
// magnitude / 127 (/ 7), values are rounded to nearest, ties to even. `rows` are the rows' numbers,
// for errors. Errors: kInvalidArgument, naming row and column (a value that is not finite, or that
// the format cannot hold).
Result<std::vector<std::byte>> MakeTableRows(std::span<const float> values,
                                             std::span<const int64_t> rows, int64_t cols,
                                             DType type);

}  // namespace millpower::ranking
