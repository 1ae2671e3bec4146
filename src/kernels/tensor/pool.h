// Windows of images reduced to one element each.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/tensor_ops.h"
#include "kernels/tensor/window.h"

namespace millpower::kernels {

// Over the elements of each window that exist, in row-major order:
//   max      the largest; the first NaN, if there is one
//   argmax   the index of that element, the first of equals, counted from first_index
//   sum      acc = acc + x, from 0; f16 and bf16 in f32, rounded once
//   average  the sum, before it is rounded, divided by the number of elements, with count_padding
//            by that of elements and padding
// A window without elements is 0, or first_index.
struct PoolArgs {
  DType type = DType::kF32;  // of x, and of y but for argmax, which is i64
  Pooling kind = Pooling::kMax;
  bool count_padding = false;
  Window window{};
};

// One plane: x [in ...] to y [out ...], contiguous.
void PoolPlane(const PoolArgs& args, const std::byte* x, int64_t first_index, std::byte* y);

}  // namespace millpower::kernels
