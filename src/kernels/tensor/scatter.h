// How updates change the elements that they meet.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/tensor_ops.h"

namespace millpower::kernels {

// y[i] = what `scattering` makes of y[i] and updates[i], i < count, both of `type`: the update
// itself, the sum, the product (of f16 and bf16 computed in f32 and rounded, of integers modulo
// 2^bits), the larger or the smaller, NaN before any number.
using ScatterFunction = void (*)(std::byte* y, const std::byte* updates, int64_t count);
ScatterFunction ScatterFunctionOf(DType type, Scattering scattering);

}  // namespace millpower::kernels
