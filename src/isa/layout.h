// The bytes of packed weights and KV pages: one layout for every host, so that files move between
// machines. Format documented in docs/isa/layout.md.
//
// A *line* is 64 bytes: 16 lanes of 4 bytes. In a packed weight a lane is one output channel and
// its 4 bytes are consecutive steps of the reduction: one f32, or two bf16. A vector register
// then holds 16 channels, and a dot product runs down the lines without ever adding across lanes.
// 64 bytes is one cache line and one AVX-512 register; AVX2 takes a line as two halves.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace millpower::isa {

inline constexpr int64_t kLineBytes = 64;
inline constexpr int64_t kLanes = 16;
inline constexpr int64_t kLaneBytes = 4;

// Reduction steps held by one lane, of types without blocks.
constexpr int64_t StepsPerLine(DType type) { return kLaneBytes / SizeBytes(type); }

// ---- Packed weights ----
//
// 16 channels form a block; f32 and bf16 are lines down the reduction. Types whose values share
// scales (DType::kQ...) come in *chunks* of the reduction, the last filled up with values of 0:
// first the lines that hold the scales of all 16 channels, then the lines of values. An integer is
// stored with a bias that makes it unsigned, as the processors' u8 x s8 dot products want their
// weights; the multiplier takes the bias off again, exactly, by the sum of the activations.
//
//   q8_0  chunk of 64 steps, 17 lines:  f16 d[group 2][channel 16]
//                                       16 lines, 4 steps a lane: u8 q + 128
//   q4_0  chunk of 64 steps, 9 lines:   f16 d[group 2][channel 16]
//                                       8 lines, 8 steps a lane: nibbles q (bias 8)
//   q4_k  chunk of 256 steps, 37 lines: f16 d[channel 16], f16 dmin[channel 16]
//                                       u8 scale[group 8][channel 16], u8 min[group 8][channel 16]
//                                       32 lines, 8 steps a lane: nibbles q (bias 0)
//   q6_k  chunk of 256 steps, 69 lines: f16 d[channel 16], 32 bytes of 0
//                                       i8 scale[group 16][channel 16]
//                                       64 lines, 4 steps a lane: u8 q (bias 32)
//
// In f8_e4m3 a block begins with one line f32 scale[channel 16]; then lines of 4 steps a lane run
// down the reduction: value = q * scale.
//
// A line of nibbles holds 8 steps: byte b of a lane has step b in its low half and step 4 + b in
// its high half, so that masking gives the first four steps and shifting the next four.

// Steps of a chunk; for types without blocks, those of a line.
constexpr int64_t ChunkSteps(DType type) {
  switch (type) {
    case DType::kQ8_0:
    case DType::kQ4_0:
      return 64;
    case DType::kQ4_K:
    case DType::kQ6_K:
      return 256;
    default:
      return StepsPerLine(type);
  }
}

// Lines at the start of a chunk that hold scales.
constexpr int64_t ScaleLines(DType type) {
  switch (type) {
    case DType::kQ8_0:
    case DType::kQ4_0:
      return 1;
    case DType::kQ4_K:
    case DType::kQ6_K:
      return 5;
    default:
      return 0;
  }
}

// Lines of a chunk that hold values.
constexpr int64_t ValueLines(DType type) {
  const bool nibbles = type == DType::kQ4_0 || type == DType::kQ4_K;
  return IsBlockType(type) ? ChunkSteps(type) / (nibbles ? 8 : 4) : 1;
}

constexpr int64_t ChunkLines(DType type) { return ScaleLines(type) + ValueLines(type); }

// Lines at the start of a block of 16 channels that hold a scale for each.
constexpr int64_t BlockScaleLines(DType type) { return type == DType::kF8E4M3 ? 1 : 0; }

// Lines of one 16-channel block of a weight with `k` reduction steps.
constexpr int64_t PackedLines(int64_t k, DType type) {
  return BlockScaleLines(type) + (k + ChunkSteps(type) - 1) / ChunkSteps(type) * ChunkLines(type);
}

// Blocks of `n` output channels; the channels that fill up the last block are values of 0.
constexpr int64_t PackedBlocks(int64_t n) { return (n + kLanes - 1) / kLanes; }

// Packed weight [n output channels, k reduction steps].
constexpr int64_t PackedBytes(int64_t n, int64_t k, DType type) {
  return PackedBlocks(n) * PackedLines(k, type) * kLineBytes;
}

// Byte offset of element (channel, step) of a packed f32, bf16 or f8_e4m3 weight.
constexpr int64_t PackedOffset(int64_t channel, int64_t step, int64_t k, DType type) {
  const int64_t steps = StepsPerLine(type);
  return ((channel / kLanes) * PackedLines(k, type) + BlockScaleLines(type) + step / steps) *
             kLineBytes +
         (channel % kLanes) * kLaneBytes + (step % steps) * SizeBytes(type);
}

// Of the f32 scale of a channel of an f8_e4m3 weight.
constexpr int64_t ChannelScaleOffset(int64_t channel, int64_t k) {
  return channel / kLanes * PackedLines(k, DType::kF8E4M3) * kLineBytes + channel % kLanes * 4;
}

// ---- Embedding tables ----
//
// Row after row, so that one gather is one run of bytes, and a row can be replaced alone:
//   f32, bf16, f16  the values
//   i8              f32 scale | i8 q[cols]                value = q * scale
//   i4              f32 scale | nibbles q + 8, first low  value = q * scale
// filled up with zeros to a multiple of 4 bytes.
constexpr int64_t TableRowBytes(int64_t cols, DType type) {
  const bool scaled = type == DType::kI8 || type == DType::kI4;
  const int64_t values = type == DType::kI4 ? (cols + 1) / 2 : cols * SizeBytes(type);
  return ((scaled ? 4 : 0) + values + 3) / 4 * 4;
}

// ---- Quantised activations ----
//
// A row of k values in groups of 32, the last filled up with zeros, each a record of 48 bytes:
//   i8 q[32] | f32 scale | i32 sum of all q | i32 sum of the first 16 | i32 sum of the last 16
// Value = q * scale, q in -127..127. The sums take the weights' biases and minima off. A record
// lies together so that one pointer leads a multiplier to all it needs. Rows are padded to whole
// lines.
//
// In f8_e4m3 a row is a line that begins with its f32 scale, the rest of it zeros, and then the
// values, one a byte, filled up with zeros to whole lines: value = q * scale.
inline constexpr int64_t kQuantGroup = 32;
inline constexpr int64_t kQuantGroupBytes = 48;
inline constexpr int64_t kQuantScaleAt = 32;  // bytes into a record
inline constexpr int64_t kQuantSumAt = 36;
inline constexpr int64_t kQuantHalfSumsAt = 40;

constexpr int64_t QuantisedGroups(int64_t k) { return (k + kQuantGroup - 1) / kQuantGroup; }
inline constexpr int64_t kF8ValuesAt = kLineBytes;  // bytes into a row

// `type`: i8 or f8_e4m3.
constexpr int64_t QuantisedRowBytes(int64_t k, DType type = DType::kI8) {
  const int64_t bytes =
      type == DType::kF8E4M3 ? kF8ValuesAt + k : QuantisedGroups(k) * kQuantGroupBytes;
  return (bytes + kLineBytes - 1) / kLineBytes * kLineBytes;
}

// ---- Expert lists ----
//
// What `route` decides for `rows` rows that choose `choices` of `experts` experts each, as 32-bit
// words: which experts have work, where the work of each begins, and the work: entry
// row * choices + choice, ascending within an expert.
//   active | expert[experts], the first `active` of them valid, ascending | begin[experts + 1]
//   | entry[rows * choices] | chosen[rows * choices], the expert of each choice
inline constexpr int64_t kMaxExperts = 1024;
inline constexpr int64_t kMaxChoices = 32;
inline constexpr int64_t kExpertListActive = 0;
inline constexpr int64_t kExpertListExperts = 1;
constexpr int64_t ExpertListBegins(int64_t experts) { return 1 + experts; }
constexpr int64_t ExpertListEntries(int64_t experts) { return 2 + 2 * experts; }
constexpr int64_t ExpertListChosen(int64_t rows, int64_t choices, int64_t experts) {
  return ExpertListEntries(experts) + rows * choices;
}
constexpr int64_t ExpertListBytes(int64_t rows, int64_t choices, int64_t experts) {
  return 4 * (ExpertListChosen(rows, choices, experts) + rows * choices);
}

// ---- KV cache ----
//
// A page holds 16 positions of every KV head of one layer:
//   [kv_heads][ K: head_dim/steps lines of (16 positions x steps) | V: 16 positions x head_dim ]
// so that K is packed like a weight whose output channels are positions: scores of 16 positions
// come out of one register, and both K and V stream contiguously. In i8 a line of scales,
// f32[16 positions], follows K and another follows V: value = q * scale. In f8_e4m3 there are no
// scales. head_dim is a multiple of the steps of a line.
inline constexpr int64_t kPagePositions = 16;

// Bytes of K, or of V, of one head in a page.
constexpr int64_t KvHalfBytes(int64_t head_dim, DType type) {
  return kPagePositions * head_dim * SizeBytes(type) + (type == DType::kI8 ? kLineBytes : 0);
}
constexpr int64_t KvHeadBytes(int64_t head_dim, DType type) {
  return 2 * KvHalfBytes(head_dim, type);
}
constexpr int64_t KvPageBytes(int64_t kv_heads, int64_t head_dim, DType type) {
  return kv_heads * KvHeadBytes(head_dim, type);
}
// Offsets inside one head's part of a page.
constexpr int64_t KOffset(int64_t slot, int64_t d, DType type) {
  const int64_t steps = StepsPerLine(type);
  return (d / steps) * kLineBytes + slot * kLaneBytes + (d % steps) * SizeBytes(type);
}
constexpr int64_t VOffset(int64_t slot, int64_t d, int64_t head_dim, DType type) {
  return KvHalfBytes(head_dim, type) + (slot * head_dim + d) * SizeBytes(type);
}
// Of the scales of i8 pages: of K's position `slot`, and of V's.
constexpr int64_t KScaleOffset(int64_t slot, int64_t head_dim) {
  return kPagePositions * head_dim + slot * 4;
}
constexpr int64_t VScaleOffset(int64_t slot, int64_t head_dim) {
  return KvHalfBytes(head_dim, DType::kI8) + kPagePositions * head_dim + slot * 4;
}

// Attention reduces over positions in segments of this many absolute positions, each with its own
// maximum and sum, combined in order. The split never depends on the batch, so bits do not either;
// and segments can go to different threads.
inline constexpr int64_t kAttentionSegment = 256;
static_assert(kAttentionSegment % kPagePositions == 0);

// The widest head that kernels keep on the stack.
inline constexpr int64_t kMaxHeadDim = 512;

}  // namespace millpower::isa
