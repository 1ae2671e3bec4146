// Attention over pages of keys and values: vector_kernels.h explains.
#pragma once

#include "kernels/vector_dot.h"

namespace millpower::kernels {
namespace {

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
        } else if constexpr (kType == DType::kI8) {
          const std::byte* from = at + c * kLanes;
          value[c] = kMasked ? V::MaskedLoadI8(mask, from) : V::LoadI8(from);
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
  WithRows<V::kTileRows>(rows, [&]<int kRows>() {
    WeighChannels<V, kType, kRows, TileVectors<V::kTileVectors, kRows, 8>()>(e, v, begin, end,
                                                                             head_dim, 0, out);
  });
}

// Turns scores [from, count) of a segment into e = Exp(s * scale - max) in place.
template <class V>
[[gnu::always_inline]] inline void SegmentSoftmax(float* s, int64_t from, int64_t count,
                                                  float scale, float* max, float* sum) {
  const auto scales = V::Set1(scale);
  const auto lowest = V::Set1(-__builtin_inff());
  auto top = lowest;
  // Lanes of `from`'s vector before it, and those behind the end, take no part.
  const int64_t begin = from / kLanes * kLanes;
  const auto seen = [&](int64_t p, auto value, auto otherwise) __attribute__((always_inline)) {
    value = V::Select(V::FirstLanes(Min(kLanes, count - p)), value, otherwise);
    return p < from ? V::Select(V::FirstLanes(from - p), otherwise, value) : value;
  };
  for (int64_t p = begin; p < count; p += kLanes) {
    const auto scaled = V::Mul(V::Load(s + p), scales);
    V::Store(s + p, scaled);
    top = V::Max(seen(p, scaled, lowest), top);
  }
  alignas(64) float lanes[kLanes];
  V::Store(lanes, top);
  float m = lanes[0];
  for (int j = 1; j < kLanes; ++j) m = lanes[j] > m ? lanes[j] : m;

  const auto maxima = V::Set1(m);
  auto total = V::Zero();
  for (int64_t p = begin; p < count; p += kLanes) {
    const auto e = VectorExp<V>(V::Sub(V::Load(s + p), maxima));
    V::Store(s + p, e);
    total = V::Add(total, seen(p, e, V::Zero()));
  }
  *max = m;
  *sum = Sum16<V>(total);
}

// s[p] = s[p] * the scale that position p's page holds at `offset_bytes` from its head's part, for
// the positions of pages [page, pages).
template <class V>
[[gnu::always_inline]] inline void ScalePositions(float* s, const std::byte* const* parts,
                                                  int64_t page, int64_t pages,
                                                  int64_t offset_bytes) {
  for (; page < pages; ++page) {
    const auto* scales = reinterpret_cast<const float*>(parts[page] + offset_bytes);
    float* at = s + page * isa::kPagePositions;
    V::Store(at, V::Mul(V::Load(at), V::Load(scales)));
  }
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
  // A query sees positions [seen, visible); neither falls within the tile.
  int64_t seen[kTileQueries];
  int64_t visible[kTileQueries];
  const int64_t first_visible = args.first_position + query_begin / args.group + 1;
  const int64_t last_visible = args.first_position + (query_begin + count - 1) / args.group + 1;
  const int64_t first_seen = args.window == 0 ? 0 : Max(0, first_visible - args.window);

  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = (query_begin + i) / args.group;
    const int64_t head = (query_begin + i) % args.group;
    __builtin_memcpy(q + i * head_dim, args.q + row * args.q_stride + head * head_dim,
                     static_cast<size_t>(head_dim) * sizeof(float));
    visible[i] = args.first_position + row + 1;
    seen[i] = args.window == 0 ? 0 : Max(0, visible[i] - args.window);
  }

  const int64_t tiles = (count + V::kTileRows - 1) / V::kTileRows;
  for (int64_t begin = first_seen / kSegment * kSegment; begin < last_visible; begin += kSegment) {
    const int64_t seen_by_last = Min(kSegment, last_visible - begin);
    const int64_t pages = (seen_by_last + isa::kPagePositions - 1) / isa::kPagePositions;
    const int64_t first_page = Max(0, first_seen - begin) / isa::kPagePositions;
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
      DotRows<V, kType>(TileBegin(count, tiles, t + 1) - i, StridedRows{q + i * head_dim, head_dim},
                        head_dim, ListedBlocks{k + first_page},
                        Ahead<ListedBlocks>{{k + first_page + kPagesAhead}}, pages - first_page,
                        scores + i * kSegment + first_page * isa::kPagePositions, kSegment);
    }
    if constexpr (kType == DType::kI8)
      for (int64_t i = 0; i < count; ++i)
        ScalePositions<V>(scores + i * kSegment, k, first_page, pages,
                          isa::KScaleOffset(0, head_dim));

    float segment_max[kTileQueries];
    float segment_sum[kTileQueries];
    for (int64_t i = 0; i < count; ++i)
      if (visible[i] > begin && seen[i] < begin + kSegment)
        SegmentSoftmax<V>(scores + i * kSegment, Max(0, seen[i] - begin),
                          Min(kSegment, visible[i] - begin), args.scale, &segment_max[i],
                          &segment_sum[i]);
    if constexpr (kType == DType::kI8)  // k, since the offset counts from the head's part
      for (int64_t i = 0; i < count; ++i)
        ScalePositions<V>(scores + i * kSegment, k, first_page, pages,
                          isa::VScaleOffset(0, head_dim));

    __builtin_memset(segment, 0, static_cast<size_t>(count * head_dim) * sizeof(float));
    for (int64_t t = 0; t < tiles; ++t) {
      // Each over the few positions it sees before those that all see, then together over these,
      // then each over the few beyond.
      const int64_t first = TileBegin(count, tiles, t);
      const int64_t last = TileBegin(count, tiles, t + 1);
      const auto within = [begin](int64_t position) {
        return Max(0, Min(kSegment, position - begin));
      };
      const int64_t common_begin = within(seen[last - 1]);
      const int64_t common_end = Max(common_begin, within(visible[first]));
      const auto weigh_one = [&](int64_t i, int64_t from, int64_t to) {
        if (from < to)
          WeighRows<V, kType>(1, scores + i * kSegment, v, from, to, head_dim,
                              segment + i * head_dim);
      };
      for (int64_t i = first; i < last; ++i)
        weigh_one(i, within(seen[i]), Min(common_begin, within(visible[i])));
      WeighRows<V, kType>(last - first, scores + first * kSegment, v, common_begin, common_end,
                          head_dim, segment + first * head_dim);
      for (int64_t i = first; i < last; ++i) weigh_one(i, common_end, within(visible[i]));
    }

    for (int64_t i = 0; i < count; ++i) {
      if (visible[i] <= begin || seen[i] >= begin + kSegment) continue;
      const float* from = segment + i * head_dim;
      float* to = total + i * head_dim;
      if (begin == seen[i] / kSegment * kSegment) {
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
    else if (args.kv_type == DType::kF8E4M3)
      return ScalarAttention(args);
    else if (args.kv_type == DType::kI8)
      AttendTile<V, DType::kI8>(args, begin, count);
    else
      AttendTile<V, DType::kBf16>(args, begin, count);
  }
}

}  // namespace
}  // namespace millpower::kernels
