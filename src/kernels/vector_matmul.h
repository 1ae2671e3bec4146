// Matrix multiply, of rows and of entries: vector_kernels.h explains.
#pragma once

#include "kernels/vector_dot.h"
#include "kernels/vector_quantised.h"

namespace millpower::kernels {
namespace {

// The blocks [block, block + count) of one row of y from their dot products.
template <class V>
[[gnu::always_inline]] inline void FinishBlocks(const MatMulArgs& args, int64_t row, float* y,
                                                int64_t width, int64_t block, int64_t count,
                                                const float* acc) {
  if (args.epilogue == Epilogue::kSiluGate) {
    for (int64_t b = 0; b < count; b += 2) {
      const int64_t channel = (block + b) / 2 * kLanes;
      StoreFirst<V>(
          width - channel, y + channel,
          V::Mul(VectorSilu<V>(V::Load(acc + b * kLanes)), V::Load(acc + (b + 1) * kLanes)));
    }
    return;
  }
  for (int64_t b = 0; b < count; ++b) {
    const int64_t channel = (block + b) * kLanes;
    const int64_t lanes = width - channel;
    auto value = V::Load(acc + b * kLanes);
    if (args.bias != nullptr) value = V::Add(value, LoadFirst<V>(lanes, args.bias + channel));
    if (args.residual != nullptr) {
      const auto residual =
          LoadFirst<V>(lanes, args.residual + row * args.residual_stride + channel);
      value = args.epilogue == Epilogue::kSiluMul ? V::Mul(VectorSilu<V>(residual), value)
                                                  : V::Add(residual, value);
    }
    if (args.epilogue == Epilogue::kRelu) value = V::Max(V::Zero(), value);  // NaN and -0 stay
    StoreFirst<V>(lanes, y + channel, value);
  }
}

// Where one row of the product comes from and goes to.
struct RowPlace {
  int64_t row;      // of x and y
  int64_t x_begin;  // first column of x
  int64_t y_begin;
};

inline __attribute__((always_inline)) RowPlace PlaceOf(const MatMulArgs& args, int64_t row) {
  if (args.entries.entries == nullptr) return {row, 0, 0};
  const int64_t entry = args.entries.entries[row];
  const int64_t choice = entry % args.entries.choices;
  return {entry / args.entries.choices, args.entries.x_per_choice ? choice * args.k : 0,
          choice * args.entries.width};
}

// A panel of a few blocks is read from memory by the first tile of rows and stays in the level 2
// cache while the other rows pass: 4 blocks of k = 3072 in bf16 are 4 * 3072 * 32 = 393 KB.
template <class V, DType kType>
void MatMulOf(const MatMulArgs& args, int64_t block_begin, int64_t block_end) {
  constexpr bool kQuantised = IsBlockType(kType);
  constexpr int64_t kPanel = 4;
  constexpr int64_t kTileRows = kQuantised ? V::kQuantisedRows : V::kTileRows;
  // With few rows weights come from memory, and a tile takes all rows that it can, so that none
  // comes twice. With many they come from the caches, and the squarest tile loads the least.
  constexpr int64_t kManyRows = 32;
  const int64_t most_rows =
      kQuantised || args.rows < kManyRows ? kTileRows : Min(kTileRows, V::kSquareRows);
  // Ahead by more than a memory access takes: with few rows 4 streams of 32 lines at a line in 6
  // cycles are 768 cycles; with more, a tile has fewer streams.
  const int64_t ahead_bytes = args.rows <= 2 ? 2048 : 4096;
  const int64_t tiles = (args.rows + most_rows - 1) / most_rows;
  const int64_t block_bytes = isa::PackedLines(args.k, kType) * isa::kLineBytes;
  const int64_t width = args.entries.entries != nullptr        ? args.entries.width
                        : args.epilogue == Epilogue::kSiluGate ? args.n / 2
                                                               : args.n;
  for (int64_t block = block_begin; block < block_end; block += kPanel) {
    const int64_t count = Min(kPanel, block_end - block);
    const std::byte* blocks[kPanel];
    const std::byte* ahead[kPanel];
    for (int64_t b = 0; b < count; ++b) {
      blocks[b] = args.w + (block + b) * block_bytes;
      ahead[b] = blocks[b] + ahead_bytes;
    }
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = TileBegin(args.rows, tiles, t);
      const int64_t rows = TileBegin(args.rows, tiles, t + 1) - first;
      alignas(64) float acc[kTileRows * kPanel * kLanes];
      RowPlace places[kTileRows];
      for (int64_t r = 0; r < rows; ++r) places[r] = PlaceOf(args, first + r);
      if constexpr (kQuantised) {
        const std::byte* x[kTileRows];
        for (int64_t r = 0; r < rows; ++r)
          x[r] = args.xq + places[r].row * args.xq_stride_bytes +
                 places[r].x_begin / isa::kQuantGroup * isa::kQuantGroupBytes;
        QuantisedRows<V, kType>(rows, x, isa::QuantisedGroups(args.k), blocks, ahead_bytes, count,
                                acc, kPanel * kLanes);
      } else if (args.entries.entries != nullptr) {
        ListedRows<kTileRows> x;
        for (int64_t r = 0; r < rows; ++r)
          x.x[r] = args.x + places[r].row * args.x_stride + places[r].x_begin;
        DotRows<V, kType>(rows, x, args.k, blocks, ahead, count, acc, kPanel * kLanes);
      } else {
        const StridedRows x{args.x + first * args.x_stride, args.x_stride};
        DotRows<V, kType>(rows, x, args.k, blocks, ahead, count, acc, kPanel * kLanes);
      }
      for (int64_t r = 0; r < rows; ++r)
        FinishBlocks<V>(args, first + r, args.y + places[r].row * args.y_stride + places[r].y_begin,
                        width, block, count, acc + r * kPanel * kLanes);
    }
  }
}

template <class V>
void MatMul(const MatMulArgs& args, int64_t block_begin, int64_t block_end) {
  switch (args.weight_type) {
    case DType::kF32:
      return MatMulOf<V, DType::kF32>(args, block_begin, block_end);
    case DType::kQ8_0:
      return MatMulOf<V, DType::kQ8_0>(args, block_begin, block_end);
    case DType::kQ4_0:
      return MatMulOf<V, DType::kQ4_0>(args, block_begin, block_end);
    case DType::kQ4_K:
      return MatMulOf<V, DType::kQ4_K>(args, block_begin, block_end);
    case DType::kQ6_K:
      return MatMulOf<V, DType::kQ6_K>(args, block_begin, block_end);
    default:
      return MatMulOf<V, DType::kBf16>(args, block_begin, block_end);
  }
}

}  // namespace
}  // namespace millpower::kernels
