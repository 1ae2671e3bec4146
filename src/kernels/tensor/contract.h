// Matrix products of computed operands, of every element type that has products.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "kernels/kernels.h"

namespace millpower::kernels {

// y[m, n] = a[m, k] * b[k, n], each of `type`.
//   f32        as ContractArgs: fma over k in order, from 0
//   f16, bf16  the same on the widened values; the sum is rounded to the type
//   f64        acc = acc + a * b over k in order, from 0, product and sum rounded
//   integers   modulo 2^bits
struct ProductArgs {
  DType type = DType::kF32;
  const std::byte* a = nullptr;  // element (row, step) at row * a_row_stride + step * a_step_stride
  const std::byte* b = nullptr;  // element (step, column) likewise
  std::byte* y = nullptr;        // row stride y_stride; overlaps neither
  int64_t m = 0;
  int64_t k = 0;
  int64_t n = 0;
  int64_t a_row_stride = 0;  // strides in elements
  int64_t a_step_stride = 0;
  int64_t b_step_stride = 0;
  int64_t b_column_stride = 0;
  int64_t y_stride = 0;
};

// Columns that are computed together; cutting n elsewhere costs time only.
inline constexpr int64_t kProductColumns = 64;
// Steps of the reduction that are laid out together.
inline constexpr int64_t kProductSteps = 256;
inline constexpr int64_t kProductRows = 64;

// Memory that Product works in, of one thread, 64-byte aligned: a panel of b, one of a, and a tile
// of y, in f32.
inline constexpr int64_t kProductScratchFloats =
    kProductSteps * (kProductColumns + kProductRows) + kProductRows * kProductColumns;

void Product(const KernelSet& set, const ProductArgs& args, float* scratch);

}  // namespace millpower::kernels
