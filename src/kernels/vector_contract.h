// Products of two computed matrices: vector_kernels.h explains.
#pragma once

#include "kernels/vector_math.h"

namespace millpower::kernels {
namespace {

// Rows [row, row + kRows) and kVectors vectors of columns from `col` on; of the last vector only
// `lanes` lanes, when kPartial.
template <class V, int kRows, int kVectors, bool kPartial>
[[gnu::noinline]] void ContractTile(const ContractArgs& args, int64_t row, int64_t col,
                                    int64_t lanes) {
  using Float = typename V::Float;
  const auto mask = V::FirstLanes(lanes);
  const auto load = [&](const float* from, int v) __attribute__((always_inline)) {
    return kPartial && v == kVectors - 1 ? V::MaskedLoad(mask, from) : V::Load(from);
  };
  float* y = args.y + row * args.y_stride + col;
  const int64_t y_stride = args.y_stride;
  Float acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      acc[r][v] = args.carry ? load(y + r * y_stride + v * kLanes, v) : V::Zero();

  const float* a = args.a + row * args.a_row_stride;
  const float* b = args.b + col;
  const int64_t row_stride = args.a_row_stride, step_stride = args.a_step_stride;
  const int64_t b_stride = args.b_stride;
  for (int64_t step = 0; step < args.k; ++step, a += step_stride, b += b_stride) {
    Float columns[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + v * kLanes, v);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Float value = V::Set1(a[r * row_stride]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) acc[r][v] = V::Fma(value, columns[v], acc[r][v]);
    }
  }

#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if (args.bias != nullptr) acc[r][v] = V::Add(acc[r][v], V::Set1(args.bias[row + r]));
      float* to = y + r * y_stride + v * kLanes;
      if (kPartial && v == kVectors - 1)
        V::MaskedStore(mask, to, acc[r][v]);
      else
        V::Store(to, acc[r][v]);
    }
}

// Columns from `col` on, kVectors vectors at a time, then fewer.
template <class V, int kRows, int kVectors>
void ContractColumns(const ContractArgs& args, int64_t row, int64_t col) {
  constexpr int64_t kWidth = kVectors * kLanes;
  for (; col + kWidth <= args.n; col += kWidth)
    ContractTile<V, kRows, kVectors, false>(args, row, col, kLanes);
  const int64_t left = args.n - col;
  if (left > kWidth - kLanes)
    ContractTile<V, kRows, kVectors, true>(args, row, col, left - (kWidth - kLanes));
  else if constexpr (kVectors > 1)
    if (left > 0) ContractColumns<V, kRows, kVectors - 1>(args, row, col);
}

// All rows for a panel of columns, then the next panel: its part of b stays in the caches.
template <class V>
void Contract(const ContractArgs& args) {
  constexpr int kPanelVectors = V::kTileVectors >= 24 ? 4 : 2;  // so that a tile has 3 rows or more
  constexpr int64_t kPanel = kPanelVectors * kLanes;
  for (int64_t col = 0; col < args.n; col += kPanel) {
    ContractArgs panel = args;
    panel.n = Min(args.n - col, kPanel);
    panel.b += col;
    panel.y += col;
    // As many rows as keep the accumulators in registers.
    const int64_t vectors = (panel.n + kLanes - 1) / kLanes;
    const int64_t most = Max(1, Min(V::kTileRows, V::kTileVectors / vectors));
    const int64_t tiles = (args.m + most - 1) / most;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = TileBegin(args.m, tiles, t);
      WithRows<V::kTileRows>(TileBegin(args.m, tiles, t + 1) - row, [&]<int kRows>() {
        constexpr int kVectors =
            Max(1, Min(kPanelVectors, static_cast<int64_t>(V::kTileVectors / kRows)));
        ContractColumns<V, kRows, kVectors>(panel, row, 0);
      });
    }
  }
}

}  // namespace
}  // namespace millpower::kernels
