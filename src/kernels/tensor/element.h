// Elements of tensors by type, for code that is written once for all types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/dtype.h"

namespace millpower::kernels {

// How values of a type lie in memory (Stored) and are computed with (Number).
template <DType kType>
struct Element;
template <typename T>
struct PlainElement {
  using Stored = T;
  using Number = T;
  static T Widen(T value) { return value; }
  static T Round(T value) { return value; }
};
template <>
struct Element<DType::kF32> : PlainElement<float> {};
template <>
struct Element<DType::kF64> : PlainElement<double> {};
template <>
struct Element<DType::kI8> : PlainElement<int8_t> {};
template <>
struct Element<DType::kI16> : PlainElement<int16_t> {};
template <>
struct Element<DType::kI32> : PlainElement<int32_t> {};
template <>
struct Element<DType::kI64> : PlainElement<int64_t> {};
template <>
struct Element<DType::kU8> : PlainElement<uint8_t> {};
template <>
struct Element<DType::kU16> : PlainElement<uint16_t> {};
template <>
struct Element<DType::kU32> : PlainElement<uint32_t> {};
template <>
struct Element<DType::kU64> : PlainElement<uint64_t> {};
template <>
struct Element<DType::kBool> : PlainElement<uint8_t> {};
template <>
struct Element<DType::kF16> {
  using Stored = uint16_t;
  using Number = float;
  static float Widen(uint16_t value) { return F16ToF32(value); }
  static uint16_t Round(float value) { return F32ToF16(value); }
};
template <>
struct Element<DType::kBf16> {
  using Stored = Bf16;
  using Number = float;
  static float Widen(Bf16 value) { return Bf16ToF32(value); }
  static Bf16 Round(float value) { return F32ToBf16(value); }
};

// work.template operator()<type>() of an element type.
template <typename Work>
auto WithElement(DType type, const Work& work) {
  switch (type) {
    case DType::kF32:
      return work.template operator()<DType::kF32>();
    case DType::kF64:
      return work.template operator()<DType::kF64>();
    case DType::kF16:
      return work.template operator()<DType::kF16>();
    case DType::kBf16:
      return work.template operator()<DType::kBf16>();
    case DType::kI8:
      return work.template operator()<DType::kI8>();
    case DType::kI16:
      return work.template operator()<DType::kI16>();
    case DType::kI32:
      return work.template operator()<DType::kI32>();
    case DType::kI64:
      return work.template operator()<DType::kI64>();
    case DType::kU8:
      return work.template operator()<DType::kU8>();
    case DType::kU16:
      return work.template operator()<DType::kU16>();
    case DType::kU32:
      return work.template operator()<DType::kU32>();
    case DType::kU64:
      return work.template operator()<DType::kU64>();
    case DType::kBool:
      return work.template operator()<DType::kBool>();
    default:
      CHECK(false) << Name(type) << " is no element type";
      std::unreachable();
  }
}

template <typename T>
constexpr bool IsNan(T value) {
  if constexpr (std::is_floating_point_v<T>)
    return value != value;
  else
    return false;
}

// What sums and products of numbers are computed in, so that integers wrap around: uint32_t for
// those of 8 and 16 bits, too, whose products would otherwise be signed and may overflow.
template <typename T>
using Wrapping = std::conditional_t<std::is_integral_v<T>,
                                    std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>, T>;

}  // namespace millpower::kernels
