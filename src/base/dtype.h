// Number formats of weights, activations, KV pages and launch inputs.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace millpower {

enum class DType : uint8_t {
  kF32 = 0,   // IEEE 754 binary32
  kBf16 = 1,  // upper half of a binary32
  kF16 = 2,   // IEEE 754 binary16; in files only, widened to f32 when packed
  kI32 = 3,   // token ids, positions, work lists
  kI8 = 4,    // quantised activations and KV pages, with their scales beside them

  // Weights in blocks that share scales: values as ggml (github.com/ggml-org/ggml, ggml-common.h)
  // defines them. In a file the bytes are ggml's blocks; packed, they are those of isa/layout.h.
  kQ8_0 = 5,  // 32 values: d * q, q an int8, d an f16
  kQ4_0 = 6,  // 32 values: d * (q - 8), q of 4 bits
  kQ4_K = 7,  // 256 values in 8 groups: d * scale * q - dmin * min, q of 4 bits, scale, min of 6
  kQ6_K = 8,  // 256 values in 16 groups: d * scale * (q - 32), q of 6 bits, scale an int8

  // What tensors of imported models hold besides.
  kF64 = 9,  // IEEE 754 binary64
  kI64 = 10,
  kI16 = 11,
  kU8 = 12,
  kU16 = 13,
  kU32 = 14,
  kU64 = 15,
  kBool = 16,  // a byte, 0 or 1
  kI4 = 17,    // rows of embedding tables only (isa/layout.h): two values a byte, the first low

  // OCP FP8 E4M3 (Open Compute Project, "OCP 8-bit Floating Point Specification (OFP8)", rev. 1.0):
  // sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities, 0x7f and 0xff are NaN. What
  // PyTorch calls float8_e4m3fn. Matrix weights and quantised activations, with scales beside them,
  // and KV pages.
  kF8E4M3 = 18,
};
inline constexpr int kDTypeCount = 19;

// Values that share the scales of one block; 1 for types without blocks.
constexpr int64_t BlockSize(DType type) {
  switch (type) {
    case DType::kQ8_0:
    case DType::kQ4_0:
      return 32;
    case DType::kQ4_K:
    case DType::kQ6_K:
      return 256;
    case DType::kI4:
      return 2;
    default:
      return 1;
  }
}

// Bytes of one block as files have it: of one value, for types without blocks.
constexpr int64_t BlockBytes(DType type) {
  switch (type) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kBf16:
    case DType::kF16:
    case DType::kI16:
    case DType::kU16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
    case DType::kI4:
    case DType::kF8E4M3:
      return 1;
    case DType::kQ8_0:
      return 34;
    case DType::kQ4_0:
      return 18;
    case DType::kQ4_K:
      return 144;
    case DType::kQ6_K:
      return 210;
  }
  return 0;
}

// Of ggml's types, whose values share scales.
constexpr bool IsBlockType(DType type) { return type >= DType::kQ8_0 && type <= DType::kQ6_K; }

// Of matrix weights that products take with quantised activations, or with f32 ones when only the
// weights are to be small.
constexpr bool IsQuantisedType(DType type) { return IsBlockType(type) || type == DType::kF8E4M3; }

constexpr bool IsFloat(DType type) {
  return type == DType::kF32 || type == DType::kF64 || type == DType::kF16 || type == DType::kBf16;
}
constexpr bool IsSignedInteger(DType type) {
  return type == DType::kI8 || type == DType::kI16 || type == DType::kI32 || type == DType::kI64;
}
constexpr bool IsUnsignedInteger(DType type) {
  return type == DType::kU8 || type == DType::kU16 || type == DType::kU32 || type == DType::kU64;
}
constexpr bool IsInteger(DType type) { return IsSignedInteger(type) || IsUnsignedInteger(type); }
// Types that elements of a tensor have; the others are forms of weights.
constexpr bool IsElementType(DType type) {
  return IsFloat(type) || IsInteger(type) || type == DType::kBool;
}

// Bytes of one value, of types without blocks.
constexpr int SizeBytes(DType type) { return static_cast<int>(BlockBytes(type)); }

constexpr const char* Name(DType type) {
  switch (type) {
    case DType::kF32:
      return "f32";
    case DType::kBf16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI32:
      return "i32";
    case DType::kI8:
      return "i8";
    case DType::kQ8_0:
      return "q8_0";
    case DType::kQ4_0:
      return "q4_0";
    case DType::kQ4_K:
      return "q4_k";
    case DType::kQ6_K:
      return "q6_k";
    case DType::kF64:
      return "f64";
    case DType::kI64:
      return "i64";
    case DType::kI16:
      return "i16";
    case DType::kU8:
      return "u8";
    case DType::kU16:
      return "u16";
    case DType::kU32:
      return "u32";
    case DType::kU64:
      return "u64";
    case DType::kBool:
      return "bool";
    case DType::kI4:
      return "i4";
    case DType::kF8E4M3:
      return "f8_e4m3";
  }
  return "?";
}

constexpr std::optional<DType> DTypeFromName(std::string_view name) {
  for (int i = 0; i < kDTypeCount; ++i)
    if (name == Name(static_cast<DType>(i))) return static_cast<DType>(i);
  return std::nullopt;
}

// bf16 is stored as its 16 bits.
using Bf16 = uint16_t;

constexpr float Bf16ToF32(Bf16 bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
constexpr Bf16 F32ToBf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Bf16>((bits >> 16) | 0x40u);
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<Bf16>(bits >> 16);
}

// Exact: every binary16 value is a binary32 value.
constexpr float F16ToF32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal
  return sign ? -magnitude : magnitude;
}

// Round to nearest, ties to even; beyond the largest finite value, infinity.
constexpr uint16_t F32ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);  // NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // a multiple of 2^-24: let the adder round
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// The largest value of f8_e4m3, 1.75 * 2^8.
inline constexpr float kF8E4M3Max = 448.0f;

// Exact: every value is a binary32 value.
constexpr float F8E4M3ToF32(uint8_t bits) {
  const uint32_t sign = uint32_t{bits & 0x80u} << 24;
  const uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-9f;
  return sign ? -subnormal : subnormal;
}

// Round to nearest, ties to even; what is larger than the largest value, infinities too, becomes
// that (OFP8's saturating mode); a NaN stays a NaN.
constexpr uint8_t F32ToF8E4M3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448
  if (magnitude < 0x3c800000u) {  // below 2^-6, a multiple of 2^-9: let the adder round
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
  }
  const uint32_t rounded = magnitude + 0x7ffffu + ((magnitude >> 20) & 1u);
  return static_cast<uint8_t>(sign | ((rounded - (120u << 23)) >> 20));
}

}  // namespace millpower
