// Dot products of rows with packed weights or keys in float: vector_kernels.h explains.
#pragma once

#include "kernels/vector_math.h"

namespace millpower::kernels {
namespace {

// Where the rows of a register tile are.
struct StridedRows {
  const float* x;
  int64_t stride;
  float At(int row, int64_t step) const { return x[row * stride + step]; }
};
template <int kMax>
struct ListedRows {
  const float* x[kMax];
  float At(int row, int64_t step) const { return x[row][step]; }
};

// Step j of a line of packed values: one f32, two bf16 or four i8 a lane.
template <class V, DType kType, int kStep>
[[gnu::always_inline]] inline typename V::Float LineStep(const std::byte* line) {
  if constexpr (kType == DType::kF32)
    return V::Load(reinterpret_cast<const float*>(line));
  else if constexpr (kType == DType::kI8)
    return V::template WidenByte<kStep>(line);
  else
    return kStep == 0 ? V::WidenEven(line) : V::WidenOdd(line);
}

// out[r * out_stride + b * 16 + lane] = the fma chain over k of row r's x * block b's lane. Each
// line is widened once and used by all rows of the tile. With each line of block b, the same line
// of ahead[b] is prefetched.
template <class V, DType kType, int kRows, int kBlocks, class Rows>
[[gnu::noinline]] void DotTile(const Rows& rows, int64_t k, const std::byte* const* blocks,
                               const std::byte* const* ahead, float* out, int64_t out_stride) {
  using Float = typename V::Float;
  const Rows x = rows;
  Float acc[kRows][kBlocks];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) acc[r][b] = V::Zero();

  const std::byte* w[kBlocks];
#pragma GCC unroll 8
  for (int b = 0; b < kBlocks; ++b) w[b] = blocks[b];
  const std::byte* next[kBlocks];
#pragma GCC unroll 8
  for (int b = 0; b < kBlocks; ++b) next[b] = ahead[b];

  const auto step = [&](int64_t at, const Float* line) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Float xr = V::Set1(x.At(r, at));
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) acc[r][b] = V::Fma(xr, line[b], acc[r][b]);
    }
  };

  constexpr int64_t kSteps = isa::StepsPerLine(kType);
  const int64_t lines = k / kSteps;
  for (int64_t i = 0; i < lines; ++i) {
    const int64_t offset = i * isa::kLineBytes;
    Float line[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      __builtin_prefetch(next[b] + offset);
      line[b] = LineStep<V, kType, 0>(w[b] + offset);
    }
    step(kSteps * i, line);
    if constexpr (kSteps > 1) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) line[b] = LineStep<V, kType, 1>(w[b] + offset);
      step(kSteps * i + 1, line);
    }
    if constexpr (kSteps > 2) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) line[b] = LineStep<V, kType, 2>(w[b] + offset);
      step(kSteps * i + 2, line);
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) line[b] = LineStep<V, kType, 3>(w[b] + offset);
      step(kSteps * i + 3, line);
    }
  }
  if (kSteps == 2 && k % 2 != 0) {  // the last line holds one step
    Float line[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b)
      line[b] = LineStep<V, kType, 0>(w[b] + lines * isa::kLineBytes);
    step(k - 1, line);
  }

#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) V::Store(out + r * out_stride + b * kLanes, acc[r][b]);
}

// DotTile over any number of blocks.
template <class V, DType kType, int kRows, int kBlocks, class Rows>
void DotBlocks(const Rows& x, int64_t k, const std::byte* const* blocks,
               const std::byte* const* ahead, int64_t block_count, float* out, int64_t out_stride) {
  int64_t b = 0;
  for (; b + kBlocks <= block_count; b += kBlocks)
    DotTile<V, kType, kRows, kBlocks>(x, k, blocks + b, ahead + b, out + b * kLanes, out_stride);
  if constexpr (kBlocks > 1)
    DotBlocks<V, kType, kRows, kBlocks / 2>(x, k, blocks + b, ahead + b, block_count - b,
                                            out + b * kLanes, out_stride);
}

// For weights 4 blocks are best at one row already: more streams only strain the prefetchers.
template <class V, DType kType, class Rows>
void DotRows(int64_t rows, const Rows& x, int64_t k, const std::byte* const* blocks,
             const std::byte* const* ahead, int64_t block_count, float* out, int64_t out_stride) {
  WithRows<V::kTileRows>(rows, [&]<int kRows>() {
    DotBlocks<V, kType, kRows, TileVectors<V::kTileVectors, kRows, 4>()>(
        x, k, blocks, ahead, block_count, out, out_stride);
  });
}

}  // namespace
}  // namespace millpower::kernels
