// What the vector kernels are made of: vector_kernels.h explains.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa/layout.h"
#include "kernels/kernels.h"
#include "kernels/scalar_math.h"

namespace millpower::kernels {
namespace {

constexpr int64_t kLanes = isa::kLanes;

constexpr int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }

// Lanes [0, count) of 16; masked accesses are slow on some processors, and rarely needed.
template <class V>
[[gnu::always_inline]] inline typename V::Float LoadFirst(int64_t count, const float* from) {
  return count >= kLanes ? V::Load(from) : V::MaskedLoad(V::FirstLanes(count), from);
}

template <class V>
[[gnu::always_inline]] inline void StoreFirst(int64_t count, float* to, typename V::Float value) {
  if (count >= kLanes)
    V::Store(to, value);
  else
    V::MaskedStore(V::FirstLanes(count), to, value);
}

// ---- Elementary functions (scalar_math.h, lane by lane) ----

template <class V>
[[gnu::always_inline]] inline typename V::Float VectorExp(typename V::Float x) {
  using Float = typename V::Float;
  const auto underflows = V::LessThan(x, V::Set1(kExpMin));
  x = V::Select(V::LessThan(V::Set1(kExpMax), x), V::Set1(kExpMax), x);
  const Float shifted = V::Fma(x, V::Set1(kLog2E), V::Set1(kRoundMagic));
  const Float n = V::Sub(shifted, V::Set1(kRoundMagic));
  Float r = V::Fma(n, V::Set1(-kLn2Hi), x);
  r = V::Fma(n, V::Set1(-kLn2Lo), r);
  Float p = V::Set1(1.0f / 5040.0f);
  p = V::Fma(p, r, V::Set1(1.0f / 720.0f));
  p = V::Fma(p, r, V::Set1(1.0f / 120.0f));
  p = V::Fma(p, r, V::Set1(1.0f / 24.0f));
  p = V::Fma(p, r, V::Set1(1.0f / 6.0f));
  p = V::Fma(p, r, V::Set1(0.5f));
  p = V::Fma(p, r, V::Set1(1.0f));
  p = V::Fma(p, r, V::Set1(1.0f));
  return V::Select(underflows, V::Zero(), V::ShiftExponent(p, shifted));
}

template <class V>
[[gnu::always_inline]] inline typename V::Float VectorSilu(typename V::Float x) {
  return V::Div(x, V::Add(V::Set1(1.0f), VectorExp<V>(V::Negate(x))));
}

// One lane's Exp, for the few scalars between vectors.
template <class V>
[[gnu::always_inline]] inline float OneExp(float x) {
  alignas(64) float lanes[kLanes];
  V::Store(lanes, VectorExp<V>(V::Set1(x)));
  return lanes[0];
}

template <class V>
[[gnu::always_inline]] inline float Sum16(typename V::Float v) {
  alignas(64) float lanes[kLanes];
  V::Store(lanes, v);
  for (int h = 8; h >= 1; h /= 2)
    for (int j = 0; j < h; ++j) lanes[j] += lanes[j + h];
  return lanes[0];
}

// Rows [TileBegin(t), TileBegin(t + 1)) of `rows` are tile t of `tiles`: nearly equal tiles, since
// 8 rows as 4 + 4 keep the multipliers busier than as 6 + 2.
constexpr int64_t TileBegin(int64_t rows, int64_t tiles, int64_t t) { return rows * t / tiles; }

// work<rows>(), for 1 <= rows <= kMax known only now.
template <int kMax, int kRows = 1, class Work>
[[gnu::always_inline]] inline void WithRows(int64_t rows, const Work& work) {
  if constexpr (kRows < kMax) {
    if (rows != kRows) return WithRows<kMax, kRows + 1>(rows, work);
  }
  work.template operator()<kRows>();
}

// Vectors that a register tile of kRows rows takes at once, at most kMax: its accumulators fill
// kTileVectors.
template <int kTileVectors, int kRows, int kMax>
constexpr int TileVectors() {
  int vectors = kMax;
  while (vectors > 1 && kRows * vectors > kTileVectors) vectors /= 2;
  return vectors;
}

}  // namespace
}  // namespace millpower::kernels
