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

// Reduction steps held by one lane.
constexpr int64_t StepsPerLine(DType type) { return kLaneBytes / SizeBytes(type); }

// Lines of one 16-channel block of a weight with `k` reduction steps; a last partial line is
// filled up with zeros.
constexpr int64_t PackedLines(int64_t k, DType type) {
  return (k + StepsPerLine(type) - 1) / StepsPerLine(type);
}

// Blocks of `n` output channels; the channels that fill up the last block are zeros.
constexpr int64_t PackedBlocks(int64_t n) { return (n + kLanes - 1) / kLanes; }

// Packed weight [n output channels, k reduction steps].
constexpr int64_t PackedBytes(int64_t n, int64_t k, DType type) {
  return PackedBlocks(n) * PackedLines(k, type) * kLineBytes;
}

// Byte offset of element (channel, step) of a packed weight with `k` reduction steps.
constexpr int64_t PackedOffset(int64_t channel, int64_t step, int64_t k, DType type) {
  const int64_t steps = StepsPerLine(type);
  return ((channel / kLanes) * PackedLines(k, type) + step / steps) * kLineBytes +
         (channel % kLanes) * kLaneBytes + (step % steps) * SizeBytes(type);
}

// KV cache. A page holds 16 positions of every KV head of one layer:
//   [kv_heads][ K: head_dim/steps lines of (16 positions x steps) | V: 16 positions x head_dim ]
// so that K is packed like a weight whose output channels are positions: scores of 16 positions
// come out of one register, and both K and V stream contiguously. head_dim is even.
inline constexpr int64_t kPagePositions = 16;

constexpr int64_t KvHeadBytes(int64_t head_dim, DType type) {
  return 2 * kPagePositions * head_dim * SizeBytes(type);
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
  return kPagePositions * head_dim * SizeBytes(type) + (slot * head_dim + d) * SizeBytes(type);
}

// Attention reduces over positions in segments of this many absolute positions, each with its own
// maximum and sum, combined in order. The split never depends on the batch, so bits do not either;
// and segments can go to different threads.
inline constexpr int64_t kAttentionSegment = 256;
static_assert(kAttentionSegment % kPagePositions == 0);

// The widest head that kernels keep on the stack.
inline constexpr int64_t kMaxHeadDim = 512;

}  // namespace millpower::isa
