// The kernels once more, for any vector instruction set: templates over a type V that names a
// vector of 16 float lanes (one AVX-512 register, two AVX2 ones) and its operations, in the order
// of operations that kernels.h fixes. Included by avx2.cc and avx512.cc only.
//
// Those files are compiled for newer processors, so nothing of theirs may reach the linker under a
// name that other files also define: it could keep the copy that the baseline cannot run. Hence
// everything here is in an anonymous namespace and the standard library's functions stay out; the
// test kernels_symbols holds the object files to that.
//
// V provides (see avx512.cc): Float, Mask, kTileRows, kTileVectors; Zero, Set1, Load, Store,
// MaskedLoad (0 in the other lanes), MaskedStore, FirstLanes; Fma(a, b, c) = a * b + c, Add, Sub,
// Mul, Div, Max(a, b) (b where a is NaN), Negate; LessThan, Equal, Select(mask, yes, no), AnyLane;
// WidenEven and WidenOdd of a line of bf16 pairs; LoadBf16 and MaskedLoadBf16 of 16 consecutive
// bf16; ShiftExponent(p, n) = p * 2^n with n as the low bits of kRoundMagic + n.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa/layout.h"
#include "kernels/kernel_sets.h"
#include "kernels/kernels.h"
#include "kernels/scalar_math.h"

namespace millpower::kernels {
namespace {

constexpr int64_t kLanes = isa::kLanes;

constexpr int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }

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

// ---- Dot products: matrix multiply, and the scores of attention ----

// Vectors that a register tile of kRows rows takes at once, at most kMax: its accumulators fill
// kTileVectors. For weights 4 is best at one row already: more streams only strain the prefetchers.
template <class V, int kRows, int kMax>
constexpr int TileVectors() {
  int vectors = kMax;
  while (kRows * vectors > V::kTileVectors) vectors /= 2;
  return vectors;
}

// out[r * out_stride + b * 16 + lane] = the fma chain over k of x[r * x_stride + k] * block b's
// lane. Each bf16 line is widened once and used by all rows of the tile. With each line of block b,
// the same line of ahead[b] is prefetched.
template <class V, DType kType, int kRows, int kBlocks>
[[gnu::noinline]] void DotTile(const float* x, int64_t x_stride, int64_t k,
                               const std::byte* const* blocks, const std::byte* const* ahead,
                               float* out, int64_t out_stride) {
  using Float = typename V::Float;
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
      const Float xr = V::Set1(x[r * x_stride + at]);
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) acc[r][b] = V::Fma(xr, line[b], acc[r][b]);
    }
  };

  constexpr int64_t kSteps = isa::StepsPerLine(kType);
  const int64_t lines = k / kSteps;
  for (int64_t i = 0; i < lines; ++i) {
    const int64_t offset = i * isa::kLineBytes;
    Float line[kBlocks];
    if constexpr (kType == DType::kF32) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        __builtin_prefetch(next[b] + offset);
        line[b] = V::Load(reinterpret_cast<const float*>(w[b] + offset));
      }
      step(i, line);
    } else {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        __builtin_prefetch(next[b] + offset);
        line[b] = V::WidenEven(w[b] + offset);
      }
      step(2 * i, line);
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) line[b] = V::WidenOdd(w[b] + offset);
      step(2 * i + 1, line);
    }
  }
  if (kSteps == 2 && k % 2 != 0) {  // the last line holds one step
    Float line[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) line[b] = V::WidenEven(w[b] + lines * isa::kLineBytes);
    step(k - 1, line);
  }

#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) V::Store(out + r * out_stride + b * kLanes, acc[r][b]);
}

// DotTile over any number of blocks.
template <class V, DType kType, int kRows, int kBlocks>
void DotBlocks(const float* x, int64_t x_stride, int64_t k, const std::byte* const* blocks,
               const std::byte* const* ahead, int64_t block_count, float* out, int64_t out_stride) {
  int64_t b = 0;
  for (; b + kBlocks <= block_count; b += kBlocks)
    DotTile<V, kType, kRows, kBlocks>(x, x_stride, k, blocks + b, ahead + b, out + b * kLanes,
                                      out_stride);
  if constexpr (kBlocks > 1)
    DotBlocks<V, kType, kRows, kBlocks / 2>(x, x_stride, k, blocks + b, ahead + b, block_count - b,
                                            out + b * kLanes, out_stride);
}

// work<rows>(), for 1 <= rows <= V::kTileRows known only now.
template <class V, int kRows = 1, class Work>
[[gnu::always_inline]] inline void WithRows(int64_t rows, const Work& work) {
  if constexpr (kRows < V::kTileRows) {
    if (rows != kRows) return WithRows<V, kRows + 1>(rows, work);
  }
  work.template operator()<kRows>();
}

template <class V, DType kType>
void DotRows(int64_t rows, const float* x, int64_t x_stride, int64_t k,
             const std::byte* const* blocks, const std::byte* const* ahead, int64_t block_count,
             float* out, int64_t out_stride) {
  WithRows<V>(rows, [&]<int kRows>() {
    DotBlocks<V, kType, kRows, TileVectors<V, kRows, 4>()>(x, x_stride, k, blocks, ahead,
                                                           block_count, out, out_stride);
  });
}

// Rows [TileBegin(t), TileBegin(t + 1)) of `rows` are tile t of `tiles`: nearly equal tiles, since
// 8 rows as 4 + 4 keep the multipliers busier than as 6 + 2.
constexpr int64_t TileBegin(int64_t rows, int64_t tiles, int64_t t) { return rows * t / tiles; }

// ---- Matrix multiply ----

// y of one row and the blocks [block, block + count) from their dot products.
template <class V>
[[gnu::always_inline]] inline void FinishBlocks(const MatMulArgs& args, int64_t row, int64_t block,
                                                int64_t count, const float* acc) {
  float* y = args.y + row * args.y_stride;
  if (args.epilogue == Epilogue::kSiluGate) {
    for (int64_t b = 0; b < count; b += 2)
      V::Store(y + (block + b) / 2 * kLanes,
               V::Mul(VectorSilu<V>(V::Load(acc + b * kLanes)), V::Load(acc + (b + 1) * kLanes)));
    return;
  }
  for (int64_t b = 0; b < count; ++b) {
    const int64_t channel = (block + b) * kLanes;
    const auto mask = V::FirstLanes(Min(kLanes, args.n - channel));
    auto value = V::Load(acc + b * kLanes);
    if (args.bias != nullptr) value = V::Add(value, V::MaskedLoad(mask, args.bias + channel));
    if (args.epilogue == Epilogue::kAdd)
      value =
          V::Add(V::MaskedLoad(mask, args.residual + row * args.residual_stride + channel), value);
    V::MaskedStore(mask, y + channel, value);
  }
}

// A panel of a few blocks is read from memory by the first tile of rows and stays in the level 2
// cache while the other rows pass: 4 blocks of k = 3072 in bf16 are 4 * 3072 * 32 = 393 KB.
template <class V>
void MatMul(const MatMulArgs& args, int64_t block_begin, int64_t block_end) {
  constexpr int64_t kPanel = 4;
  // Ahead by more than a memory access takes: with few rows 4 streams of 32 lines at a line in 6
  // cycles are 768 cycles; with more, a tile has fewer streams.
  const int64_t prefetch_bytes = args.rows <= 2 ? 2048 : 4096;
  const int64_t tiles = (args.rows + V::kTileRows - 1) / V::kTileRows;
  const int64_t block_bytes = isa::PackedLines(args.k, args.weight_type) * isa::kLineBytes;
  for (int64_t block = block_begin; block < block_end; block += kPanel) {
    const int64_t count = Min(kPanel, block_end - block);
    const std::byte* blocks[kPanel];
    const std::byte* ahead[kPanel];
    for (int64_t b = 0; b < count; ++b) {
      blocks[b] = args.w + (block + b) * block_bytes;
      ahead[b] = blocks[b] + prefetch_bytes;
    }
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = TileBegin(args.rows, tiles, t);
      const int64_t rows = TileBegin(args.rows, tiles, t + 1) - row;
      alignas(64) float acc[V::kTileRows * kPanel * kLanes];
      const float* x = args.x + row * args.x_stride;
      if (args.weight_type == DType::kF32)
        DotRows<V, DType::kF32>(rows, x, args.x_stride, args.k, blocks, ahead, count, acc,
                                kPanel * kLanes);
      else
        DotRows<V, DType::kBf16>(rows, x, args.x_stride, args.k, blocks, ahead, count, acc,
                                 kPanel * kLanes);
      for (int64_t r = 0; r < rows; ++r)
        FinishBlocks<V>(args, row + r, block, count, acc + r * kPanel * kLanes);
    }
  }
}

// ---- Attention ----

// What is prefetched while a page is used: the pages of K that the next register tile takes, and V
// four pages on. Either is 16 KB at head_dim 128 in bf16, 0.4 us at 40 GB/s: time enough for
// memory.
constexpr int64_t kPagesAhead = 4;

// out[r * head_dim + c * 16 + lane] continues its fma chain over positions [begin, end) of one
// segment: e[r * segment + p] * V[p][channel]. v[page] + offset_bytes is the first channel of the
// page's first position; kPagesAhead pages beyond are prefetched.
template <class V, DType kType, int kRows, int kVectors, bool kMasked>
[[gnu::noinline]] void WeighTile(const float* e, const std::byte* const* v, int64_t offset_bytes,
                                 int64_t begin, int64_t end, int64_t head_dim,
                                 typename V::Mask mask, float* out) {
  using Float = typename V::Float;
  static_assert(!kMasked || kVectors == 1);
  Float acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      const float* from = out + r * head_dim + c * kLanes;
      acc[r][c] = kMasked ? V::MaskedLoad(mask, from) : V::Load(from);
    }

  const int64_t row_bytes = head_dim * SizeBytes(kType);
  for (int64_t p = begin; p < end;) {
    const int64_t slot = p % isa::kPagePositions;
    const int64_t page_end = Min(end, p - slot + isa::kPagePositions);
    const int64_t page = p / isa::kPagePositions;
    const std::byte* at = v[page] + offset_bytes + slot * row_bytes;
    const std::byte* ahead = v[page + kPagesAhead] + offset_bytes + slot * row_bytes;
    for (; p < page_end; ++p, at += row_bytes, ahead += row_bytes) {
      constexpr int kBytes = kVectors * kLanes * SizeBytes(kType);
#pragma GCC unroll 8
      for (int line = 0; line < kBytes; line += isa::kLineBytes) __builtin_prefetch(ahead + line);
      Float value[kVectors];
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        if constexpr (kType == DType::kF32) {
          const float* from = reinterpret_cast<const float*>(at) + c * kLanes;
          value[c] = kMasked ? V::MaskedLoad(mask, from) : V::Load(from);
        } else {
          const std::byte* from = at + c * kLanes * SizeBytes(kType);
          value[c] = kMasked ? V::MaskedLoadBf16(mask, from) : V::LoadBf16(from);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Float er = V::Set1(e[r * isa::kAttentionSegment + p]);
#pragma GCC unroll 8
        for (int c = 0; c < kVectors; ++c) acc[r][c] = V::Fma(er, value[c], acc[r][c]);
      }
    }
  }

#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      float* to = out + r * head_dim + c * kLanes;
      if constexpr (kMasked)
        V::MaskedStore(mask, to, acc[r][c]);
      else
        V::Store(to, acc[r][c]);
    }
}

// WeighTile over the channels from `channel` on, kVectors vectors at a time.
template <class V, DType kType, int kRows, int kVectors>
void WeighChannels(const float* e, const std::byte* const* v, int64_t begin, int64_t end,
                   int64_t head_dim, int64_t channel, float* out) {
  constexpr int64_t kVectorChannels = kVectors * kLanes;
  for (; channel + kVectorChannels <= head_dim; channel += kVectorChannels)
    WeighTile<V, kType, kRows, kVectors, false>(e, v, channel * SizeBytes(kType), begin, end,
                                                head_dim, V::FirstLanes(kLanes), out + channel);
  if constexpr (kVectors > 1) {
    WeighChannels<V, kType, kRows, kVectors / 2>(e, v, begin, end, head_dim, channel, out);
  } else if (channel < head_dim) {
    WeighTile<V, kType, kRows, 1, true>(e, v, channel * SizeBytes(kType), begin, end, head_dim,
                                        V::FirstLanes(head_dim - channel), out + channel);
  }
}

template <class V, DType kType>
void WeighRows(int64_t rows, const float* e, const std::byte* const* v, int64_t begin, int64_t end,
               int64_t head_dim, float* out) {
  WithRows<V>(rows, [&]<int kRows>() {
    WeighChannels<V, kType, kRows, TileVectors<V, kRows, 8>()>(e, v, begin, end, head_dim, 0, out);
  });
}

// Turns the first `count` scores s of a segment into e = Exp(s * scale - max) in place.
template <class V>
[[gnu::always_inline]] inline void SegmentSoftmax(float* s, int64_t count, float scale, float* max,
                                                  float* sum) {
  const auto scales = V::Set1(scale);
  const auto lowest = V::Set1(-__builtin_inff());
  auto top = lowest;
  for (int64_t p = 0; p < count; p += kLanes) {
    const auto scaled = V::Mul(V::Load(s + p), scales);
    V::Store(s + p, scaled);
    top = V::Max(V::Select(V::FirstLanes(Min(kLanes, count - p)), scaled, lowest), top);
  }
  alignas(64) float lanes[kLanes];
  V::Store(lanes, top);
  float m = lanes[0];
  for (int j = 1; j < kLanes; ++j) m = lanes[j] > m ? lanes[j] : m;

  const auto maxima = V::Set1(m);
  auto total = V::Zero();
  for (int64_t p = 0; p < count; p += kLanes) {
    const auto e = VectorExp<V>(V::Sub(V::Load(s + p), maxima));
    V::Store(s + p, e);
    total = V::Add(total, V::Select(V::FirstLanes(Min(kLanes, count - p)), e, V::Zero()));
  }
  *max = m;
  *sum = Sum16<V>(total);
}

// A query is one row and one head. A tile of consecutive queries passes over the sequence together,
// segment by segment, so that K and V come from memory once per tile; 24 queries make that traffic
// small beside the arithmetic (2 * 24 flops per element read), and the scratch at most 172 KB of
// stack (45 KB at head_dim 64).
constexpr int64_t kTileQueries = 24;

template <class V, DType kType>
void AttendTile(const AttentionArgs& args, int64_t query_begin, int64_t count) {
  constexpr int64_t kSegment = isa::kAttentionSegment;
  constexpr int64_t kPages = kSegment / isa::kPagePositions;
  const int64_t head_dim = args.head_dim;

  alignas(64) float q[kTileQueries * isa::kMaxHeadDim];        // [count, head_dim]
  alignas(64) float segment[kTileQueries * isa::kMaxHeadDim];  // o
  alignas(64) float total[kTileQueries * isa::kMaxHeadDim];    // O
  alignas(64) float scores[kTileQueries * kSegment];           // s, then e
  float max[kTileQueries];                                     // M
  float sum[kTileQueries];                                     // L
  int64_t visible[kTileQueries];  // positions that a query sees; never falls within the tile
  const int64_t last_visible = args.first_position + (query_begin + count - 1) / args.group + 1;

  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = (query_begin + i) / args.group;
    const int64_t head = (query_begin + i) % args.group;
    __builtin_memcpy(q + i * head_dim, args.q + row * args.q_stride + head * head_dim,
                     static_cast<size_t>(head_dim) * sizeof(float));
    visible[i] = args.first_position + row + 1;
  }

  const int64_t tiles = (count + V::kTileRows - 1) / V::kTileRows;
  for (int64_t begin = 0; begin < last_visible; begin += kSegment) {
    const int64_t seen_by_last = Min(kSegment, last_visible - begin);
    const int64_t pages = (seen_by_last + isa::kPagePositions - 1) / isa::kPagePositions;
    const std::byte* k[kPages + kPagesAhead];
    const std::byte* v[kPages + kPagesAhead];
    const int64_t last_page = (last_visible - 1) / isa::kPagePositions;
    for (int64_t i = 0; i < pages + kPagesAhead; ++i) {
      const int64_t page = args.pages[Min(begin / isa::kPagePositions + i, last_page)];
      k[i] = args.kv + page * args.page_bytes + args.head_offset_bytes;
      v[i] = k[i] + isa::VOffset(0, 0, head_dim, kType);
    }

    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t i = TileBegin(count, tiles, t);
      DotRows<V, kType>(TileBegin(count, tiles, t + 1) - i, q + i * head_dim, head_dim, head_dim, k,
                        k + kPagesAhead, pages, scores + i * kSegment, kSegment);
    }

    float segment_max[kTileQueries];
    float segment_sum[kTileQueries];
    for (int64_t i = 0; i < count; ++i)
      if (visible[i] > begin)
        SegmentSoftmax<V>(scores + i * kSegment, Min(kSegment, visible[i] - begin), args.scale,
                          &segment_max[i], &segment_sum[i]);

    __builtin_memset(segment, 0, static_cast<size_t>(count * head_dim) * sizeof(float));
    for (int64_t t = 0; t < tiles; ++t) {
      // Together over the positions that all see, then each over the few it sees beyond those.
      const int64_t first = TileBegin(count, tiles, t);
      const int64_t last = TileBegin(count, tiles, t + 1);
      const int64_t common = Max(0, Min(kSegment, visible[first] - begin));
      WeighRows<V, kType>(last - first, scores + first * kSegment, v, 0, common, head_dim,
                          segment + first * head_dim);
      for (int64_t i = first; i < last; ++i)
        if (const int64_t seen = Min(kSegment, visible[i] - begin); seen > common)
          WeighRows<V, kType>(1, scores + i * kSegment, v, common, seen, head_dim,
                              segment + i * head_dim);
    }

    for (int64_t i = 0; i < count; ++i) {
      if (visible[i] <= begin) continue;
      const float* from = segment + i * head_dim;
      float* to = total + i * head_dim;
      if (begin == 0) {
        max[i] = segment_max[i];
        sum[i] = segment_sum[i];
        __builtin_memcpy(to, from, static_cast<size_t>(head_dim) * sizeof(float));
        continue;
      }
      const float new_max = max[i] < segment_max[i] ? segment_max[i] : max[i];
      const float a = OneExp<V>(max[i] - new_max);
      const float b = OneExp<V>(segment_max[i] - new_max);
      sum[i] = sum[i] * a + segment_sum[i] * b;
      max[i] = new_max;
      for (int64_t c = 0; c < head_dim; ++c) to[c] = to[c] * a + from[c] * b;
    }
  }

  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = (query_begin + i) / args.group;
    const int64_t head = (query_begin + i) % args.group;
    float* out = args.out + row * args.out_stride + head * head_dim;
    const float inv = 1.0f / sum[i];
    for (int64_t c = 0; c < head_dim; ++c) out[c] = total[i * head_dim + c] * inv;
  }
}

template <class V>
void Attention(const AttentionArgs& args) {
  const int64_t queries = args.query_rows * args.group;
  const int64_t tiles = (queries + kTileQueries - 1) / kTileQueries;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = TileBegin(queries, tiles, t);
    const int64_t count = TileBegin(queries, tiles, t + 1) - begin;
    if (args.kv_type == DType::kF32)
      AttendTile<V, DType::kF32>(args, begin, count);
    else
      AttendTile<V, DType::kBf16>(args, begin, count);
  }
}

// ---- Row by row ----

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

template <class V>
constexpr KernelSet MakeKernelSet(const char* name, const char* instructions) {
  return {
      .name = name,
      .instructions = instructions,
      .matmul = MatMul<V>,
      .rms_norm = RmsNorm<V>,
      .rope_table = ScalarRopeTable,
      .rope = Rope<V>,
      .kv_append = ScalarKvAppend,
      .attention = Attention<V>,
      .gather_packed = ScalarGatherPacked,
      .argmax = ArgMax<V>,
      .sum_exp = SumExp<V>,
  };
}

}  // namespace
}  // namespace millpower::kernels
