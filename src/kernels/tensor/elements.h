// Element-wise and row-wise mathematics of tensors, the part that comes once for each instruction
// set. Results are those of one arithmetic, written once (element_loops.h) and compiled for each
// set; but for the bits of a NaN, which are nobody's, all sets give the same bits.
//
// What terms compute (base/expression.h) beyond the obvious:
//   * f16 and bf16 are held as f32 between terms, each term's result rounded to the type.
//   * Integers wrap. Division by zero gives 0, the least integer / -1 itself, and its remainder 0.
//   * pow of integers wraps; with a negative exponent it is the truncated quotient: 1 for base 1,
//     +-1 for base -1, else 0.
//   * Casts of f64 to f16 and bf16 round once, of integers through f32. Casts of f32 and f64 to
//     integers truncate and saturate; a NaN gives 0. To bool: != 0, so a NaN is true.
//   * min, max: a NaN if either is; of equals the second. relu keeps NaN and -0. sign(-0) is 0.
//   * mod and floor_div of floats are Python's: r = fmod(a, b), plus b where the signs differ;
//     floor_div the whole number nearest to (a - r) / b. By zero, floor_div is a / b.
//   * f32 exp, log, tanh, erf and sigmoid are this library's, within 3 units in the last place;
//     the remaining functions, and all of f64, are the C library's, the same in every set.
//   * Any byte but 0 is a true bool; results are 0 or 1.
//
// Functions are pure but for their outputs, allocate nothing, lock nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/expression.h"
#include "base/tensor_ops.h"
#include "kernels/kernels.h"

namespace millpower::kernels {

// The type in which an element of `type` is computed: f32 for halves.
constexpr DType ComputeType(DType type) {
  return type == DType::kF16 || type == DType::kBf16 ? DType::kF32 : type;
}

// y[i] = op(arguments[0][i], ...) for i < count. Elements are of compute types, aligned to their
// size. y may be an argument whose elements have its size.
using TermFunction = void (*)(const std::byte* const* arguments, std::byte* y, int64_t count);

// The running state of a reduction of up to kReductionCols lists side by side.
inline constexpr int64_t kReductionLanes = 16;
inline constexpr int64_t kReductionCols = 64;
struct alignas(64) ReductionState {
  std::byte bytes[kReductionLanes * kReductionCols * 8];
};

// One kind of reduction of one compute type. Element r of a list (counted from its start) takes
// part in lane r % 16, each lane in order, from the kind's neutral element; in the end the lanes
// are reduced by the tree of kernels.h's sum16. Sums, means and products accumulate in f64 for
// floats and in 64 bits for integers, and are rounded (truncated) to the type once; a mean of
// integers is the quotient truncated. max, min: a NaN wins. argmax, argmin: i64, a NaN counts as
// the best. An empty list gives the neutral element: 0, 1, the lowest, the highest; mean 0 / 0.
struct ReductionFunctions {
  // Whole lists of n elements, one after the other; strides between lists, and between results.
  void (*lists)(const std::byte* x, int64_t n, int64_t lists, int64_t x_stride, std::byte* y,
                int64_t y_stride);
  // Of one list: `count` elements from number `first` on, a multiple of 16 but for the last call.
  void (*start)(ReductionState&);
  void (*add)(ReductionState&, const std::byte* x, int64_t count, int64_t first);
  void (*finish)(ReductionState&, int64_t total, std::byte* y);
  // Of `cols` lists side by side, at most kReductionCols: elements first .. first + rows - 1 of
  // each, which lie row_stride elements apart.
  void (*start_cols)(ReductionState&, int64_t cols);
  void (*add_rows)(ReductionState&, const std::byte* x, int64_t cols, int64_t rows,
                   int64_t row_stride, int64_t first);
  void (*finish_cols)(ReductionState&, int64_t cols, int64_t total, std::byte* y);
};

// Rows of n elements; y may be x with x's stride.
//   m = max of x (NaN wins); e = exp(x - m); s = the sum of e as ReductionFunctions has it
//   y = e * (1 / s), or with `log` (x - m) - log(s)
// So a row of -infinities gives NaN.
struct SoftmaxArgs {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t n = 0;
  int64_t x_stride = 0;  // strides in elements
  int64_t y_stride = 0;
  bool log = false;
};

// Rows of n elements; y may be x with x's stride. In f64 the mean, and the variance v as the mean
// of squared differences from it, both summed as ReductionFunctions has it; then in f32, each
// operation rounded:
//   y = ((x - mean) * (1 / sqrt(v + epsilon)) * weight) + bias
struct LayerNormArgs {
  const float* x = nullptr;
  const float* weight = nullptr;  // [n] or null: 1
  const float* bias = nullptr;    // [n] or null: 0
  float* y = nullptr;
  int64_t n = 0;
  int64_t x_stride = 0;  // strides in elements
  int64_t y_stride = 0;
  double epsilon = 0;
};

// x and y have `count` elements.
using WidenFunction = void (*)(const uint16_t* x, float* y, int64_t count);
using NarrowFunction = void (*)(const float* x, uint16_t* y, int64_t count);

struct ElementKernels {
  const char* name;
  // `type` is the term's, `argument` its last argument's: compute types both. Null for terms
  // without arguments, and for what Expression::Decode refuses.
  TermFunction (*find_term)(MapOp op, DType type, DType argument);
  // Null where the kind does not reduce the type (bool but any, all).
  const ReductionFunctions* (*find_reduction)(Reduction kind, DType type);
  // Rows [row_begin, row_end).
  void (*softmax)(const SoftmaxArgs&, int64_t row_begin, int64_t row_end);
  void (*layer_norm)(const LayerNormArgs&, int64_t row_begin, int64_t row_end);
  WidenFunction widen_f16, widen_bf16;
  NarrowFunction narrow_f16, narrow_bf16;
  // y = x rounded to f16 or bf16, a TermFunction of one argument.
  TermFunction round_f16, round_bf16;
};

// Those that go with a set of kernels.
const ElementKernels& ElementKernelsOf(const KernelSet& set);

// Double to f32, rounded to odd: a second rounding, to f16 or bf16, then gives what one would have.
float RoundToOdd(double value);

}  // namespace millpower::kernels
