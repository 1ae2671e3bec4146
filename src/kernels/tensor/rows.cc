#include "kernels/tensor/rows.h"

#include <cmath>
#include <limits>

namespace millpower::kernels {
namespace {

const double* Doubles(const std::byte* bytes) { return reinterpret_cast<const double*>(bytes); }
const float* Floats(const std::byte* bytes) { return reinterpret_cast<const float*>(bytes); }

// The sum of of(i) in 16 lanes, as ReductionFunctions has it.
template <class Of>
double SumOf(int64_t n, const Of& of) {
  double lanes[kReductionLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kReductionLanes] += of(i);
  for (int64_t h = kReductionLanes / 2; h >= 1; h /= 2)
    for (int64_t lane = 0; lane < h; ++lane) lanes[lane] += lanes[lane + h];
  return lanes[0];
}

void SoftmaxOfDoubles(const double* x, double* y, int64_t n, bool log) {
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < n; ++i) max = x[i] > max || std::isnan(x[i]) ? x[i] : max;
  const double sum = SumOf(n, [&](int64_t i) { return std::exp(x[i] - max); });
  const double last = log ? std::log(sum) : 1 / sum;
  for (int64_t i = 0; i < n; ++i) y[i] = log ? (x[i] - max) - last : std::exp(x[i] - max) * last;
}

void LayerNormOfDoubles(const double* x, const double* weight, const double* bias, double epsilon,
                        double* y, int64_t n) {
  const auto count = static_cast<double>(n);
  const double mean = SumOf(n, [&](int64_t i) { return x[i]; }) / count;
  const double variance =
      SumOf(n, [&](int64_t i) { return (x[i] - mean) * (x[i] - mean); }) / count;
  const double inverse = 1 / std::sqrt(variance + epsilon);
  for (int64_t i = 0; i < n; ++i) {
    double z = (x[i] - mean) * inverse;
    if (weight != nullptr) z *= weight[i];
    if (bias != nullptr) z += bias[i];
    y[i] = z;
  }
}

// Rows of halves, one at a time: widened, given to compute(row), rounded.
template <class Compute>
void ForHalves(const ElementKernels& set, const RowTensors& rows, float* scratch, int64_t row_begin,
               int64_t row_end, const Compute& compute) {
  const bool is_f16 = rows.type == DType::kF16;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const auto* x = reinterpret_cast<const uint16_t*>(rows.x) + row * rows.x_stride;
    auto* y = reinterpret_cast<uint16_t*>(rows.y) + row * rows.y_stride;
    (is_f16 ? set.widen_f16 : set.widen_bf16)(x, scratch, rows.n);
    compute(scratch);
    (is_f16 ? set.narrow_f16 : set.narrow_bf16)(scratch, y, rows.n);
  }
}

template <class Compute>
void ForDoubles(const RowTensors& rows, int64_t row_begin, int64_t row_end,
                const Compute& compute) {
  for (int64_t row = row_begin; row < row_end; ++row)
    compute(Doubles(rows.x) + row * rows.x_stride,
            reinterpret_cast<double*>(rows.y) + row * rows.y_stride);
}

}  // namespace

void SoftmaxRows(const ElementKernels& set, const RowTensors& rows, bool log, float* scratch,
                 int64_t row_begin, int64_t row_end) {
  SoftmaxArgs args{.x = Floats(rows.x),
                   .y = reinterpret_cast<float*>(rows.y),
                   .n = rows.n,
                   .x_stride = rows.x_stride,
                   .y_stride = rows.y_stride,
                   .log = log};
  if (rows.type == DType::kF32) return set.softmax(args, row_begin, row_end);
  if (rows.type == DType::kF64)
    return ForDoubles(rows, row_begin, row_end,
                      [&](const double* x, double* y) { SoftmaxOfDoubles(x, y, rows.n, log); });
  ForHalves(set, rows, scratch, row_begin, row_end, [&](float* row) {
    args.x = args.y = row;
    set.softmax(args, 0, 1);
  });
}

void LayerNormRows(const ElementKernels& set, const RowTensors& rows, const std::byte* weight,
                   const std::byte* bias, double epsilon, float* scratch, int64_t row_begin,
                   int64_t row_end) {
  LayerNormArgs args{.x = Floats(rows.x),
                     .weight = Floats(weight),
                     .bias = Floats(bias),
                     .y = reinterpret_cast<float*>(rows.y),
                     .n = rows.n,
                     .x_stride = rows.x_stride,
                     .y_stride = rows.y_stride,
                     .epsilon = epsilon};
  if (rows.type == DType::kF32) return set.layer_norm(args, row_begin, row_end);
  if (rows.type == DType::kF64)
    return ForDoubles(rows, row_begin, row_end, [&](const double* x, double* y) {
      LayerNormOfDoubles(x, Doubles(weight), Doubles(bias), epsilon, y, rows.n);
    });
  const auto widened = [&](const std::byte* from, float* to) -> const float* {
    if (from == nullptr) return nullptr;
    (rows.type == DType::kF16 ? set.widen_f16 : set.widen_bf16)(
        reinterpret_cast<const uint16_t*>(from), to, rows.n);
    return to;
  };
  args.weight = widened(weight, scratch + rows.n);
  args.bias = widened(bias, scratch + 2 * rows.n);
  ForHalves(set, rows, scratch, row_begin, row_end, [&](float* row) {
    args.x = args.y = row;
    set.layer_norm(args, 0, 1);
  });
}

}  // namespace millpower::kernels
