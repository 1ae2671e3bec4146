#include "base/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace millpower {
namespace {

// Where the parts of a block begin.
constexpr int64_t kQ8Quants = 2, kQ4Quants = 2;
constexpr int64_t kQ4KMin = 2, kQ4KScales = 4, kQ4KQuants = 16;
constexpr int64_t kQ6KHigh = 128, kQ6KScales = 192, kQ6KScale = 208;

uint16_t ReadU16(const std::byte* at) {
  return static_cast<uint16_t>(std::to_integer<uint16_t>(at[0]) |
                               (std::to_integer<uint16_t>(at[1]) << 8));
}

void WriteU16(std::byte* at, uint16_t value) {
  at[0] = static_cast<std::byte>(value & 0xff);
  at[1] = static_cast<std::byte>(value >> 8);
}

uint8_t Byte(const std::byte* at, int64_t i) { return std::to_integer<uint8_t>(at[i]); }

// Low nibbles of `count` bytes, then their high nibbles.
void UnpackNibbles(const std::byte* bytes, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = Byte(bytes, i) & 0xf;
    out[count + i] = Byte(bytes, i) >> 4;
  }
}

void UnpackQ6K(const std::byte* block, uint8_t* out) {
  for (int64_t half = 0; half < 2; ++half) {
    const std::byte* low = block + 64 * half;
    const std::byte* high = block + kQ6KHigh + 32 * half;
    for (int64_t run = 0; run < 4; ++run)
      for (int64_t i = 0; i < 32; ++i) {
        const int nibble = (Byte(low, i + 32 * (run % 2)) >> (4 * (run / 2))) & 0xf;
        const int top = (Byte(high, i) >> (2 * run)) & 3;
        out[128 * half + 32 * run + i] = static_cast<uint8_t>(nibble | (top << 4));
      }
  }
}

void DequantiseBlock(DType type, const std::byte* block, float* out) {
  uint8_t q[256];
  UnpackQuants(type, block, q);
  const float d = F16ToF32(BlockScale(type, block));
  switch (type) {
    case DType::kQ8_0:
    case DType::kQ4_0: {
      const int bias = type == DType::kQ8_0 ? 128 : 8;
      for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - bias);
      return;
    }
    case DType::kQ4_K: {
      const Q4KScales scales = ReadQ4KScales(block);
      for (int group = 0; group < 8; ++group) {
        const float scale = d * static_cast<float>(scales.scale[group]);
        const float min = F16ToF32(scales.dmin) * static_cast<float>(scales.min[group]);
        for (int i = 32 * group; i < 32 * group + 32; ++i)
          out[i] = scale * static_cast<float>(q[i]) - min;
      }
      return;
    }
    case DType::kQ6_K: {
      const Q6KScales scales = ReadQ6KScales(block);
      for (int i = 0; i < 256; ++i)
        out[i] = d * static_cast<float>(scales.scale[i / 16]) * static_cast<float>(q[i] - 32);
      return;
    }
    default:
      CHECK(false) << Name(type) << " is no type of blocks";
  }
}

// x as an int in [low, high]; not a number gives `low`.
int ClampToInt(double x, int low, int high) {
  return x > low ? (x < high ? static_cast<int>(x) : high) : low;
}

}  // namespace

void Dequantise(DType type, const std::byte* blocks, int64_t values, float* out) {
  const int64_t size = BlockSize(type);
  CHECK(values % size == 0) << values << " values are not whole blocks of " << Name(type);
  switch (type) {
    case DType::kF32:
      std::memcpy(out, blocks, static_cast<size_t>(values) * sizeof(float));
      return;
    case DType::kBf16:
      for (int64_t i = 0; i < values; ++i) out[i] = Bf16ToF32(ReadU16(blocks + 2 * i));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < values; ++i) out[i] = F16ToF32(ReadU16(blocks + 2 * i));
      return;
    default:
      for (int64_t block = 0; block < values / size; ++block)
        DequantiseBlock(type, blocks + block * BlockBytes(type), out + block * size);
  }
}

void UnpackQuants(DType type, const std::byte* block, uint8_t* quants) {
  switch (type) {
    case DType::kQ8_0:
      for (int64_t i = 0; i < 32; ++i) quants[i] = Byte(block, kQ8Quants + i) ^ 0x80;  // q + 128
      return;
    case DType::kQ4_0:
      return UnpackNibbles(block + kQ4Quants, 16, quants);
    case DType::kQ4_K:
      for (int64_t run = 0; run < 4; ++run)
        UnpackNibbles(block + kQ4KQuants + 32 * run, 32, quants + 64 * run);
      return;
    case DType::kQ6_K:
      return UnpackQ6K(block, quants);
    default:
      CHECK(false) << Name(type) << " is no type of blocks";
  }
}

uint16_t BlockScale(DType type, const std::byte* block) {
  CHECK(IsBlockType(type)) << Name(type) << " is no type of blocks";
  return ReadU16(block + (type == DType::kQ6_K ? kQ6KScale : 0));
}

// The 12 bytes hold, for j in 0..3: scale j in the low 6 bits of byte j; min j in the low 6 bits of
// byte 4 + j; scale and min 4 + j with their low 4 bits in the halves of byte 8 + j, and their high
// 2 bits at the top of bytes j and 4 + j.
Q4KScales ReadQ4KScales(const std::byte* block) {
  const std::byte* packed = block + kQ4KScales;
  Q4KScales scales{.d = ReadU16(block), .dmin = ReadU16(block + kQ4KMin)};
  for (int j = 0; j < 4; ++j) {
    const int scale = Byte(packed, j), min = Byte(packed, 4 + j), both = Byte(packed, 8 + j);
    scales.scale[j] = static_cast<uint8_t>(scale & 63);
    scales.min[j] = static_cast<uint8_t>(min & 63);
    scales.scale[4 + j] = static_cast<uint8_t>((both & 0xf) | ((scale >> 6) << 4));
    scales.min[4 + j] = static_cast<uint8_t>((both >> 4) | ((min >> 6) << 4));
  }
  return scales;
}

Q6KScales ReadQ6KScales(const std::byte* block) {
  Q6KScales scales{.d = ReadU16(block + kQ6KScale)};
  std::memcpy(scales.scale, block + kQ6KScales, sizeof(scales.scale));
  return scales;
}

void QuantiseQ8_0(const float* x, int64_t values, std::byte* blocks) {
  CHECK(values % 32 == 0) << values << " values are not whole blocks of q8_0";
  for (int64_t begin = 0; begin < values; begin += 32, blocks += BlockBytes(DType::kQ8_0)) {
    float largest = 0;
    for (int64_t i = begin; i < begin + 32; ++i) largest = std::max(largest, std::abs(x[i]));
    const float d = largest / 127;
    const float inverse = d != 0 ? 1 / d : 0;
    WriteU16(blocks, F32ToF16(d));
    for (int64_t i = 0; i < 32; ++i) {
      // In float64, adding a half is exact, so that truncating rounds halves away from zero.
      const double scaled = x[begin + i] * inverse;
      const int q = ClampToInt(scaled + std::copysign(0.5, scaled), -127, 127);
      blocks[kQ8Quants + i] = static_cast<std::byte>(q);
    }
  }
}

void QuantiseQ4_0(const float* x, int64_t values, std::byte* blocks) {
  CHECK(values % 32 == 0) << values << " values are not whole blocks of q4_0";
  for (int64_t begin = 0; begin < values; begin += 32, blocks += BlockBytes(DType::kQ4_0)) {
    float largest = 0, magnitude = 0;
    for (int64_t i = begin; i < begin + 32; ++i)
      if (std::abs(x[i]) > magnitude) {
        magnitude = std::abs(x[i]);
        largest = x[i];
      }
    const float d = largest / -8;
    const float inverse = d != 0 ? 1 / d : 0;
    WriteU16(blocks, F32ToF16(d));
    const auto quant = [&](int64_t i) {  // ggml's product and sum are one fused step: no rounding
      return ClampToInt(double{x[begin + i]} * double{inverse} + 8.5, 0, 15);
    };
    for (int64_t i = 0; i < 16; ++i)
      blocks[kQ4Quants + i] = static_cast<std::byte>(quant(i) | (quant(16 + i) << 4));
  }
}

}  // namespace millpower
