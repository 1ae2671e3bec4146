// Dot products of rows with packed weights or keys in float: vector_kernels.h explains.
#pragma once

#include "kernels/vector_math.h"

namespace millpower::kernels {
namespace {

// Keeps the compiler from replacing a pointer that walks by one for each address that it leads to:
// there are more of these than general registers.
template <typename T>
[[gnu::always_inline]] inline void Walk(T*& pointer, int64_t by) {
  pointer += by;
  asm volatile("" : "+r"(pointer));
}

// start + i * stride, as addresses that a processor adds up by itself.
template <typename T>
[[gnu::always_inline]] inline T* Strided(T* start, int64_t stride, int64_t stride3, int64_t stride5,
                                         int i) {
  switch (i) {
    case 3:
      return start + stride3;
    case 5:
      return start + stride5;
    case 6:
      return start + 2 * stride3;
    case 7:
      return start + stride3 + 4 * stride;
    default:
      return start + i * stride;
  }
}

// Where the rows of a register tile are, at some step of the reduction.
class StridedRows {
 public:
  StridedRows(const float* x, int64_t stride)
      : x_(x), stride_(stride), stride3_(3 * stride), stride5_(5 * stride) {}
  float At(int row, int step) const { return Strided(x_, stride_, stride3_, stride5_, row)[step]; }
  void Advance(int64_t steps) { Walk(x_, steps); }

 private:
  const float* x_;
  int64_t stride_, stride3_, stride5_;
};
template <int kMax>
struct ListedRows {
  const float* x[kMax];
  int64_t at = 0;
  float At(int row, int step) const { return x[row][at + step]; }
  void Advance(int64_t steps) { at += steps; }
};

// Where the blocks of packed values are, at some line.
class StridedBlocks {
 public:
  StridedBlocks(const std::byte* first, int64_t stride_bytes)
      : first_(first), stride_(stride_bytes), stride3_(3 * stride_bytes) {}
  const std::byte* At(int block) const { return Strided(first_, stride_, stride3_, 0, block); }
  void Advance(int64_t bytes) { Walk(first_, bytes); }
  StridedBlocks From(int64_t block) const { return {first_ + block * stride_, stride_}; }

 private:
  const std::byte* first_;
  int64_t stride_, stride3_;
};
struct ListedBlocks {
  const std::byte* const* blocks;
  int64_t at = 0;
  const std::byte* At(int block) const { return blocks[block] + at; }
  void Advance(int64_t bytes) { at += bytes; }
  ListedBlocks From(int64_t block) const { return {blocks + block, at}; }
};

// What is fetched while the lines of a product pass: with each line of a block the cache line at
// the same block of `blocks`, which then advances by `step_bytes`. It may lie anywhere.
template <class Blocks>
struct Ahead {
  Blocks blocks;
  int64_t step_bytes = isa::kLineBytes;
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

// out[r * out_stride + b * 16 + lane] = the fma chain over k of row r's x * block b's lane, from 0
// or, with carry, from what is there. Each line is widened once and used by all rows of the tile.
template <class V, DType kType, int kRows, int kBlocks, class Rows, class Blocks>
[[gnu::noinline]] void DotTile(const Rows& rows, int64_t k, const Blocks& blocks,
                               const Ahead<Blocks>& ahead, bool carry, float* out,
                               int64_t out_stride) {
  using Float = typename V::Float;
  Float acc[kRows][kBlocks];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b)
      acc[r][b] = carry ? V::Load(out + r * out_stride + b * kLanes) : V::Zero();

  Rows x = rows;
  Blocks w = blocks, next = ahead.blocks;
  const int64_t next_step = ahead.step_bytes;
  const auto step = [&](int at, const Float* line) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Float xr = V::Set1(x.At(r, at));
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) acc[r][b] = V::Fma(xr, line[b], acc[r][b]);
    }
  };

  constexpr int64_t kSteps = isa::StepsPerLine(kType);
  for (int64_t lines = k / kSteps; lines > 0; --lines) {
    Float line[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      __builtin_prefetch(next.At(b), 0, 2);
      line[b] = LineStep<V, kType, 0>(w.At(b));
    }
    step(0, line);
    if constexpr (kSteps > 1) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) line[b] = LineStep<V, kType, 1>(w.At(b));
      step(1, line);
    }
    if constexpr (kSteps > 2) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) line[b] = LineStep<V, kType, 2>(w.At(b));
      step(2, line);
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) line[b] = LineStep<V, kType, 3>(w.At(b));
      step(3, line);
    }
    x.Advance(kSteps);
    w.Advance(isa::kLineBytes);
    next.Advance(next_step);
  }
  if (kSteps == 2 && k % 2 != 0) {  // the last line holds one step
    Float line[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) line[b] = LineStep<V, kType, 0>(w.At(b));
    step(0, line);
  }

#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) V::Store(out + r * out_stride + b * kLanes, acc[r][b]);
}

// DotTile over any number of blocks.
template <class V, DType kType, int kRows, int kBlocks, class Rows, class Blocks>
void DotBlocks(const Rows& x, int64_t k, const Blocks& blocks, const Ahead<Blocks>& ahead,
               int64_t block_count, bool carry, float* out, int64_t out_stride) {
  const auto rest = [&](int64_t b) {
    return Ahead<Blocks>{ahead.blocks.From(b), ahead.step_bytes};
  };
  int64_t b = 0;
  for (; b + kBlocks <= block_count; b += kBlocks)
    DotTile<V, kType, kRows, kBlocks>(x, k, blocks.From(b), rest(b), carry, out + b * kLanes,
                                      out_stride);
  if constexpr (kBlocks > 1)
    DotBlocks<V, kType, kRows, kBlocks / 2>(x, k, blocks.From(b), rest(b), block_count - b, carry,
                                            out + b * kLanes, out_stride);
}

// For weights 4 blocks are best at one row already: more streams only strain the prefetchers.
template <class V, DType kType, class Rows, class Blocks>
void DotRows(int64_t rows, const Rows& x, int64_t k, const Blocks& blocks,
             const Ahead<Blocks>& ahead, int64_t block_count, float* out, int64_t out_stride,
             bool carry = false) {
  WithRows<V::kTileRows>(rows, [&]<int kRows>() {
    DotBlocks<V, kType, kRows, TileVectors<V::kTileVectors, kRows, 4>()>(
        x, k, blocks, ahead, block_count, carry, out, out_stride);
  });
}

}  // namespace
}  // namespace millpower::kernels
