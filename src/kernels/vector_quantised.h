// Dot products of quantised rows with weights in blocks: vector_kernels.h explains.
//
// Of V these take: Int, 16 lanes of i32; Bytes, a line of unsigned bytes, four a lane (LoadBytes),
// or of nibbles (LowNibbles, HighNibbles). The products of a lane's four bytes with four
// activations, added up in 32 bits, come in two ways:
//   StartQ8, PrepareQ8, DotQ8   weights stored as q + 128
//   ZeroSmall, DotSmall, SumSmall  weights of up to 4 bits, 8 lines at most before SumSmall, or of
//   up
//                               to 6 bits, 2 lines at most: where there is no 32-bit dot product of
//                               bytes, 8 * 4 * 15 * 127 and 2 * 4 * 63 * 127 fit pairs of 16 bits
#pragma once

#include "kernels/vector_math.h"

namespace millpower::kernels {
namespace {

[[gnu::always_inline]] inline int32_t Word(const std::byte* four) {
  int32_t word;
  __builtin_memcpy(&word, four, sizeof word);
  return word;
}

[[gnu::always_inline]] inline float Scale(const std::byte* record) {
  float scale;
  __builtin_memcpy(&scale, record + isa::kQuantScaleAt, sizeof scale);
  return scale;
}
[[gnu::always_inline]] inline int32_t Sum(const std::byte* record) {
  return Word(record + isa::kQuantSumAt);
}

template <DType kType>
struct BlockLayout {
  static constexpr int64_t kGroups = isa::ChunkSteps(kType) / isa::kQuantGroup;  // of a chunk
  static constexpr int64_t kGroupLines = isa::ValueLines(kType) / kGroups;
  static constexpr int64_t kChunkBytes = isa::ChunkLines(kType) * isa::kLineBytes;
  static constexpr int64_t kValuesAt = isa::ScaleLines(kType) * isa::kLineBytes;
};

// The integer dot products of one group (of its half `kHalf`, for q6_k) of kRows rows and kBlocks
// blocks. `lines` is the offset of the group's first line in each block, x[r] row r's record.
template <class V, DType kType, int kHalf, int kRows, int kBlocks>
[[gnu::always_inline]] inline void GroupDots(const std::byte* const* x, const std::byte* const* w,
                                             int64_t lines, int64_t ahead,
                                             typename V::Int (*dots)[kBlocks]) {
  if constexpr (kType == DType::kQ8_0) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto start = V::StartQ8(Sum(x[r]));
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) dots[r][b] = start;
    }
#pragma GCC unroll 8
    for (int64_t line = 0; line < 8; ++line)
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        const std::byte* at = w[b] + lines + line * isa::kLineBytes;
        __builtin_prefetch(at + ahead);
        const auto weights = V::PrepareQ8(at);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r)
          dots[r][b] = V::DotQ8(dots[r][b], weights, Word(x[r] + 4 * line));
      }
  } else if constexpr (kType == DType::kQ6_K) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto start = V::SetInt(-32 * Word(x[r] + isa::kQuantHalfSumsAt + 4 * kHalf));
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) dots[r][b] = start;
    }
#pragma GCC unroll 8
    for (int64_t pair = 0; pair < 2; ++pair)
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        const std::byte* at = w[b] + lines + pair * 2 * isa::kLineBytes;
        __builtin_prefetch(at + ahead);
        __builtin_prefetch(at + ahead + isa::kLineBytes);
        const auto first = V::LoadBytes(at);
        const auto second = V::LoadBytes(at + isa::kLineBytes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          auto small = V::DotSmall(V::ZeroSmall(), first, Word(x[r] + 16 * kHalf + 8 * pair));
          small = V::DotSmall(small, second, Word(x[r] + 16 * kHalf + 8 * pair + 4));
          dots[r][b] = V::AddInt(dots[r][b], V::SumSmall(small));
        }
      }
  } else {
    typename V::Small small[kRows][kBlocks];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) small[r][b] = V::ZeroSmall();
#pragma GCC unroll 8
    for (int64_t line = 0; line < 4; ++line)
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        const std::byte* at = w[b] + lines + line * isa::kLineBytes;
        __builtin_prefetch(at + ahead);
        const auto bytes = V::LoadBytes(at);
        const auto low = V::LowNibbles(bytes);
        const auto high = V::HighNibbles(bytes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          small[r][b] = V::DotSmall(small[r][b], low, Word(x[r] + 8 * line));
          small[r][b] = V::DotSmall(small[r][b], high, Word(x[r] + 8 * line + 4));
        }
      }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      for (int b = 0; b < kBlocks; ++b) dots[r][b] = V::SumSmall(small[r][b]);
      if constexpr (kType == DType::kQ4_0) {
        const auto bias = V::SetInt(-8 * Sum(x[r]));
#pragma GCC unroll 8
        for (int b = 0; b < kBlocks; ++b) dots[r][b] = V::AddInt(dots[r][b], bias);
      }
    }
  }
}

// out[r * out_stride + b * 16 + lane] = row r times block b's lane, over `groups` groups of 32
// steps, as kernels.h orders it. rows[r] is row r's first record.
template <class V, DType kType, int kRows, int kBlocks>
[[gnu::noinline]] void QuantisedTile(const std::byte* const* rows, int64_t groups,
                                     const std::byte* const* blocks, int64_t ahead, float* out,
                                     int64_t out_stride) {
  using Float = typename V::Float;
  using Layout = BlockLayout<kType>;
  Float acc[kRows][kBlocks];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) acc[r][b] = V::Zero();
  const std::byte* x[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) x[r] = rows[r];
  const std::byte* w[kBlocks];
#pragma GCC unroll 8
  for (int b = 0; b < kBlocks; ++b) w[b] = blocks[b];

  for (int64_t group = 0; group < groups; ++group) {
    const int64_t chunk = group / Layout::kGroups * Layout::kChunkBytes;
    const int64_t in = group % Layout::kGroups;  // its number in the chunk
    const int64_t lines = chunk + Layout::kValuesAt + in * Layout::kGroupLines * isa::kLineBytes;
    typename V::Int dots[kRows][kBlocks];
    // acc = fma(dot, scale * xs, acc)
    const auto add = [&](const Float* scale) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Float xs = V::Set1(Scale(x[r]));
#pragma GCC unroll 8
        for (int b = 0; b < kBlocks; ++b)
          acc[r][b] = V::Fma(V::FromInt(dots[r][b]), V::Mul(scale[b], xs), acc[r][b]);
      }
    };
    GroupDots<V, kType, 0, kRows, kBlocks>(x, w, lines, ahead, dots);
    Float scale[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      const std::byte* scales = w[b] + chunk;
      if constexpr (kType == DType::kQ8_0 || kType == DType::kQ4_0)
        scale[b] = V::LoadF16(scales + in * kLanes * 2);
      else if constexpr (kType == DType::kQ4_K)
        scale[b] = V::Mul(V::LoadF16(scales), V::LoadU8(scales + isa::kLineBytes + in * kLanes));
      else
        scale[b] =
            V::Mul(V::LoadF16(scales), V::LoadI8(scales + isa::kLineBytes + 2 * in * kLanes));
    }
    add(scale);
    if constexpr (kType == DType::kQ4_K) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        const std::byte* scales = w[b] + chunk;
        const Float min = V::Mul(V::LoadF16(scales + kLanes * 2),
                                 V::LoadU8(scales + 3 * isa::kLineBytes + in * kLanes));
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          acc[r][b] = V::Fma(V::Set1(-static_cast<float>(Sum(x[r]))),
                             V::Mul(min, V::Set1(Scale(x[r]))), acc[r][b]);
        }
      }
    }
    if constexpr (kType == DType::kQ6_K) {
      GroupDots<V, kType, 1, kRows, kBlocks>(x, w, lines + 4 * isa::kLineBytes, ahead, dots);
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b)
        scale[b] = V::Mul(V::LoadF16(w[b] + chunk),
                          V::LoadI8(w[b] + chunk + isa::kLineBytes + (2 * in + 1) * kLanes));
      add(scale);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) x[r] += isa::kQuantGroupBytes;
  }

#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) V::Store(out + r * out_stride + b * kLanes, acc[r][b]);
}

template <class V, DType kType, int kRows, int kBlocks>
void QuantisedBlocks(const std::byte* const* rows, int64_t groups, const std::byte* const* blocks,
                     int64_t ahead, int64_t block_count, float* out, int64_t out_stride) {
  int64_t b = 0;
  for (; b + kBlocks <= block_count; b += kBlocks)
    QuantisedTile<V, kType, kRows, kBlocks>(rows, groups, blocks + b, ahead, out + b * kLanes,
                                            out_stride);
  if constexpr (kBlocks > 1)
    QuantisedBlocks<V, kType, kRows, kBlocks / 2>(rows, groups, blocks + b, ahead, block_count - b,
                                                  out + b * kLanes, out_stride);
}

template <class V, DType kType>
void QuantisedRows(int64_t row_count, const std::byte* const* rows, int64_t groups,
                   const std::byte* const* blocks, int64_t ahead, int64_t block_count, float* out,
                   int64_t out_stride) {
  WithRows<V::kQuantisedRows>(row_count, [&]<int kRows>() {
    QuantisedBlocks<V, kType, kRows, TileVectors<V::kQuantisedVectors, kRows, 4>()>(
        rows, groups, blocks, ahead, block_count, out, out_stride);
  });
}

}  // namespace
}  // namespace millpower::kernels
