// Softmax and layer_norm of rows in any float type, whatever the strides.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "kernels/tensor/elements.h"

namespace millpower::kernels {

// Rows of n elements; y may be x with x's stride.
struct RowTensors {
  DType type = DType::kF32;
  const std::byte* x = nullptr;
  std::byte* y = nullptr;
  int64_t n = 0;
  int64_t x_stride = 0;  // between rows, in elements
  int64_t y_stride = 0;
};

// SoftmaxArgs' and LayerNormArgs' arithmetic: f32 as it is, halves widened to f32 and the results
// rounded, f64 with all of it in f64. Rows [row_begin, row_end). Halves need `scratch`: of n floats
// for softmax, of 3n for layer_norm.
void SoftmaxRows(const ElementKernels& set, const RowTensors& rows, bool log, float* scratch,
                 int64_t row_begin, int64_t row_end);
// weight, bias: [n] of the rows' type, or null.
void LayerNormRows(const ElementKernels& set, const RowTensors& rows, const std::byte* weight,
                   const std::byte* bias, double epsilon, float* scratch, int64_t row_begin,
                   int64_t row_end);

}  // namespace millpower::kernels
