// Pooled rows of embedding tables: vector_kernels.h explains.
#pragma once

#include "kernels/vector_math.h"

namespace millpower::kernels {
namespace {

inline constexpr int64_t kTableScaleBytes = 4;

// Columns [c, c + 16) of a row of a table, without its scale, where `values` are all its numbers.
template <class V, DType kType>
[[gnu::always_inline]] inline typename V::Float TableLoad(const std::byte* values, int64_t c) {
  if constexpr (kType == DType::kF32)
    return V::Load(reinterpret_cast<const float*>(values) + c);
  else if constexpr (kType == DType::kBf16)
    return V::LoadBf16(values + 2 * c);
  else if constexpr (kType == DType::kF16)
    return V::LoadF16(values + 2 * c);
  else if constexpr (kType == DType::kI8)
    return V::LoadI8(values + c);
  else
    return V::LoadI4(values + c / 2);
}

// The first `lanes` of them; nothing beyond is read.
template <class V, DType kType>
[[gnu::always_inline]] inline typename V::Float TableLoadFirst(const std::byte* values, int64_t c,
                                                               int64_t lanes) {
  if constexpr (kType == DType::kF32)
    return V::MaskedLoad(V::FirstLanes(lanes), reinterpret_cast<const float*>(values) + c);
  constexpr int64_t kBits = kType == DType::kI4 ? 4 : 8 * SizeBytes(kType);
  alignas(64) std::byte first[isa::kLineBytes] = {};
  __builtin_memcpy(first, values + c * kBits / 8, static_cast<size_t>((lanes * kBits + 7) / 8));
  return TableLoad<V, kType>(first, 0);
}

// Rows lie anywhere in a table much larger than the caches. While one is added up, those of so many
// items further on, of this bag or the next, are on their way.
inline constexpr int64_t kItemsAhead = 16;

template <DType kType>
[[gnu::always_inline]] inline void PrefetchRow(const std::byte* row, int64_t cols) {
  const int64_t row_bytes = isa::TableRowBytes(cols, kType);
  // The first lines only: the processor follows a longer run by itself.
  for (int64_t at = 0; at < Min(row_bytes, 4 * isa::kLineBytes); at += isa::kLineBytes)
    __builtin_prefetch(row + at);
  __builtin_prefetch(row + row_bytes - 1);
}

// Items [begin, end) of one bag; rows up to `fetch_end` may be fetched.
struct BagItems {
  int64_t begin, end, fetch_end;
  bool carry;
};

// kVectors vectors of columns from `c` on; of the last one only `lanes` lanes, when kPartial.
template <class V, DType kType, bool kMax, int kVectors, bool kPartial>
[[gnu::always_inline]] inline void PoolColumns(const BagArgs& args, const BagItems& items,
                                               int64_t c, int64_t lanes, float* y) {
  using Float = typename V::Float;
  constexpr bool kScaled = kType == DType::kI8 || kType == DType::kI4;
  const auto mask = V::FirstLanes(lanes);
  y += c;
  Float acc[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
    acc[v] = !items.carry                    ? V::Zero()
             : kPartial && v == kVectors - 1 ? V::MaskedLoad(mask, y + v * kLanes)
                                             : V::Load(y + v * kLanes);
  for (int64_t item = items.begin; item < items.end; ++item) {
    if (c == 0 && item + kItemsAhead < items.fetch_end)
      PrefetchRow<kType>(args.rows[item + kItemsAhead], args.cols);
    const std::byte* row = args.rows[item];
    float scale = args.weights == nullptr ? 1.0f : args.weights[item];
    if constexpr (kScaled) {
      float own;
      __builtin_memcpy(&own, row, sizeof own);
      scale = scale * own;
      row += kTableScaleBytes;
    }
    const Float scales = V::Set1(scale);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = c + v * kLanes;
      const Float value = kPartial && v == kVectors - 1 ? TableLoadFirst<V, kType>(row, at, lanes)
                                                        : TableLoad<V, kType>(row, at);
      if constexpr (!kMax)
        acc[v] = V::Fma(value, scales, acc[v]);
      else
        acc[v] = items.carry || item > items.begin ? V::Max(V::Mul(value, scales), acc[v])
                                                   : V::Mul(value, scales);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    if (kPartial && v == kVectors - 1)
      V::MaskedStore(mask, y + v * kLanes, acc[v]);
    else
      V::Store(y + v * kLanes, acc[v]);
  }
}

template <class V, DType kType, bool kMax>
void PoolBags(const BagArgs& args) {
  const int64_t all = args.bags == 0 ? 0 : args.ends[args.bags - 1];
  for (int64_t item = 0; item < Min(all, kItemsAhead); ++item)
    PrefetchRow<kType>(args.rows[item], args.cols);
  BagItems items{.begin = 0, .end = 0, .fetch_end = all, .carry = args.carry};
  for (int64_t bag = 0; bag < args.bags; ++bag) {
    items.end = args.ends[bag];
    float* y = args.y + bag * args.y_stride;
    int64_t c = 0;
    for (; c + 4 * kLanes <= args.cols; c += 4 * kLanes)
      PoolColumns<V, kType, kMax, 4, false>(args, items, c, kLanes, y);
    for (; c + kLanes <= args.cols; c += kLanes)
      PoolColumns<V, kType, kMax, 1, false>(args, items, c, kLanes, y);
    if (c < args.cols) PoolColumns<V, kType, kMax, 1, true>(args, items, c, args.cols - c, y);
    items.begin = items.end;
    items.carry = false;
  }
}

template <class V, DType kType>
void PoolRowsOf(const BagArgs& args) {
  if (args.max)
    PoolBags<V, kType, true>(args);
  else
    PoolBags<V, kType, false>(args);
}

template <class V>
void PoolRows(const BagArgs& args) {
  switch (args.type) {
    case DType::kBf16:
      return PoolRowsOf<V, DType::kBf16>(args);
    case DType::kF16:
      return PoolRowsOf<V, DType::kF16>(args);
    case DType::kI8:
      return PoolRowsOf<V, DType::kI8>(args);
    case DType::kI4:
      return PoolRowsOf<V, DType::kI4>(args);
    default:
      return PoolRowsOf<V, DType::kF32>(args);
  }
}

}  // namespace
}  // namespace millpower::kernels
