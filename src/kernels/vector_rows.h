// What goes row by row: vector_kernels.h explains.
#pragma once

#include "kernels/kernel_sets.h"
#include "kernels/vector_math.h"

namespace millpower::kernels {
namespace {

template <class V>
void RmsNorm(const RmsNormArgs& args, int64_t row_begin, int64_t row_end) {
  const int64_t whole = args.group / kLanes * kLanes;
  const auto tail = V::FirstLanes(args.group - whole);
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t first = 0; first < args.cols; first += args.group) {
      const float* x = args.x + row * args.x_stride + first;
      float* y = args.y + row * args.y_stride + first;
      auto acc = V::Zero();
      for (int64_t c = 0; c < whole; c += kLanes) {
        const auto value = V::Load(x + c);
        acc = V::Fma(value, value, acc);
      }
      if (whole < args.group) {  // lanes past the end add 0 * 0
        const auto value = V::MaskedLoad(tail, x + whole);
        acc = V::Fma(value, value, acc);
      }
      const float mean = Sum16<V>(acc) / static_cast<float>(args.group);
      const auto inv = V::Set1(1.0f / __builtin_sqrtf(mean + args.epsilon));
      for (int64_t c = 0; c < whole; c += kLanes)
        V::Store(y + c, V::Mul(V::Mul(V::Load(x + c), inv), V::Load(args.weight + c)));
      if (whole < args.group)
        V::MaskedStore(tail, y + whole,
                       V::Mul(V::Mul(V::MaskedLoad(tail, x + whole), inv),
                              V::MaskedLoad(tail, args.weight + whole)));
    }
  }
}

template <class V>
void Rope(const RopeArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* cos = args.table + row * 2 * args.half;
    const float* sin = cos + args.half;
    for (int64_t head = 0; head < args.heads; ++head) {
      float* x = args.x + row * args.x_stride + head * 2 * args.half;
      for (int64_t i = 0; i < args.half; i += kLanes) {
        const auto mask = V::FirstLanes(Min(kLanes, args.half - i));
        const auto a = V::MaskedLoad(mask, x + i);
        const auto b = V::MaskedLoad(mask, x + args.half + i);
        const auto c = V::MaskedLoad(mask, cos + i);
        const auto s = V::MaskedLoad(mask, sin + i);
        V::MaskedStore(mask, x + i, V::Sub(V::Mul(a, c), V::Mul(b, s)));
        V::MaskedStore(mask, x + args.half + i, V::Add(V::Mul(b, c), V::Mul(a, s)));
      }
    }
  }
}

// The largest value first, then where it first stands: two plain passes beat one that carries
// indices along, and the second stops early.
template <class V>
int64_t ArgMax(const float* x, int64_t n) {
  const float lowest = -__builtin_inff();
  auto top = V::Set1(lowest);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) top = V::Max(V::Load(x + i), top);
  alignas(64) float lanes[kLanes];
  V::Store(lanes, top);
  float max = lowest;
  for (int j = 0; j < kLanes; ++j) max = lanes[j] > max ? lanes[j] : max;
  for (; i < n; ++i) max = x[i] > max ? x[i] : max;

  const auto maxima = V::Set1(max);
  int64_t at = 0;
  while (at + kLanes <= n && !V::AnyLane(V::Equal(V::Load(x + at), maxima))) at += kLanes;
  while (at < n && x[at] != max) ++at;
  return at < n ? at : 0;  // all NaN: the first
}

template <class V>
float SumExp(const float* x, int64_t n, float offset, float scale) {
  const auto offsets = V::Set1(offset);
  const auto scales = V::Set1(scale);
  auto total = V::Zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    total = V::Add(total, VectorExp<V>(V::Mul(V::Sub(V::Load(x + i), offsets), scales)));
  if (i < n) {
    const auto mask = V::FirstLanes(n - i);
    const auto e = VectorExp<V>(V::Mul(V::Sub(V::MaskedLoad(mask, x + i), offsets), scales));
    total = V::Add(total, V::Select(mask, e, V::Zero()));
  }
  return Sum16<V>(total);
}

// Rows to 8 bits, a group of two vectors at a time.
template <class V>
void Quantise(const QuantiseArgs& args, int64_t row_begin, int64_t row_end) {
  if (args.type == DType::kF8E4M3) return ScalarQuantise(args, row_begin, row_end);
  constexpr int64_t kGroup = isa::kQuantGroup;
  static_assert(kGroup == 2 * kLanes);
  const auto infinity = V::Set1(__builtin_inff());
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* x = args.x + row * args.x_stride;
    std::byte* record = args.y + row * isa::QuantisedRowBytes(args.k);
    for (int64_t begin = 0; begin < args.k; begin += kGroup, record += isa::kQuantGroupBytes) {
      const int64_t left = args.k - begin;
      const auto a = LoadFirst<V>(left, x + begin);
      const auto b = left > kLanes ? LoadFirst<V>(left - kLanes, x + begin + kLanes) : V::Zero();
      const auto abs_a = V::Abs(a), abs_b = V::Abs(b);
      const bool finite =
          V::AllLanes(V::LessThan(abs_a, infinity)) && V::AllLanes(V::LessThan(abs_b, infinity));
      const float largest = V::MaxLane(V::Max(abs_a, abs_b));
      const float inverse = 127.0f / largest;
      const bool zero = !finite || !(inverse < __builtin_inff());
      const auto factor = V::Set1(inverse);
      const auto qa = zero ? V::SetInt(0) : V::RoundToInt(V::Mul(a, factor));
      const auto qb = zero ? V::SetInt(0) : V::RoundToInt(V::Mul(b, factor));
      const float scale = !finite ? __builtin_nanf("") : zero ? 0.0f : largest / 127.0f;
      const int32_t halves[] = {V::SumLanes(qa), V::SumLanes(qb)};
      const int32_t sum = halves[0] + halves[1];
      V::StoreI8(record, qa);
      V::StoreI8(record + kLanes, qb);
      __builtin_memcpy(record + isa::kQuantScaleAt, &scale, sizeof scale);
      __builtin_memcpy(record + isa::kQuantSumAt, &sum, sizeof sum);
      __builtin_memcpy(record + isa::kQuantHalfSumsAt, halves, sizeof halves);
    }
  }
}

template <class V>
void Route(const RouteArgs& args) {
  ScalarChooseExperts(args);
  for (int64_t row = 0; row < args.rows; ++row) {
    float* weights = args.weights + row * args.weights_stride;
    const float max = weights[0];
    float total = 0;
    for (int64_t j = 0; j < args.choices; j += kLanes)
      StoreFirst<V>(
          args.choices - j, weights + j,
          VectorExp<V>(V::Sub(LoadFirst<V>(args.choices - j, weights + j), V::Set1(max))));
    for (int64_t j = 0; j < args.choices; ++j) total += weights[j];
    if (!args.normalise)
      total = SumExp<V>(args.logits + row * args.logits_stride, args.experts, max, 1.0f);
    for (int64_t j = 0; j < args.choices; ++j) weights[j] = weights[j] / total;
  }
}

template <class V>
void Combine(const CombineArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* x = args.x + row * args.x_stride;
    const float* weights = args.weights + row * args.weights_stride;
    for (int64_t c = 0; c < args.cols; c += kLanes) {
      const int64_t lanes = args.cols - c;
      auto z = V::Mul(V::Set1(weights[0]), LoadFirst<V>(lanes, x + c));
      for (int64_t j = 1; j < args.choices; ++j)
        z = V::Fma(V::Set1(weights[j]), LoadFirst<V>(lanes, x + j * args.cols + c), z);
      if (args.residual != nullptr)
        z = V::Add(LoadFirst<V>(lanes, args.residual + row * args.residual_stride + c), z);
      StoreFirst<V>(lanes, args.y + row * args.y_stride + c, z);
    }
  }
}

}  // namespace
}  // namespace millpower::kernels
