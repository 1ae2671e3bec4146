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
};
inline constexpr int kDTypeCount = 4;

constexpr int SizeBytes(DType type) { return type == DType::kF32 || type == DType::kI32 ? 4 : 2; }

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

}  // namespace millpower
