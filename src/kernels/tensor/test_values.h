// Elements of any type as numbers, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/dtype.h"
#include "base/rng.h"
#include "kernels/tensor/elements.h"

namespace millpower::kernels {

inline constexpr DType kElementTypes[] = {
    DType::kF32, DType::kF64, DType::kF16, DType::kBf16, DType::kI8,  DType::kI16, DType::kI32,
    DType::kI64, DType::kU8,  DType::kU16, DType::kU32,  DType::kU64, DType::kBool};

using Integer = __int128;

// A value of any element type: a real one or an integer, exactly.
struct Number {
  bool is_real = false;
  long double real = 0;
  Integer integer = 0;

  static Number Of(long double value) { return {true, value, 0}; }
  static Number Of(Integer value) { return {false, 0, value}; }
  long double AsReal() const { return is_real ? real : static_cast<long double>(integer); }
};

inline int Bits(DType type) { return type == DType::kBool ? 1 : 8 * SizeBytes(type); }
inline bool IsReal(DType type) { return IsFloat(type); }
inline Integer Lowest(DType type) {
  return IsSignedInteger(type) ? -(Integer{1} << (Bits(type) - 1)) : 0;
}
inline Integer Highest(DType type) {
  return (Integer{1} << (Bits(type) - (IsSignedInteger(type) ? 1 : 0))) - 1;
}
// Modulo 2^bits into the type.
inline Integer Wrap(Integer value, DType type) {
  const Integer range = Integer{1} << Bits(type);
  value %= range;
  if (value < 0) value += range;
  return value > Highest(type) ? value - range : value;
}

inline Number ReadElement(const std::byte* at, DType type) {
  const auto as = [at]<typename T>(T value) {
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  switch (type) {
    case DType::kF32:
      return Number::Of(static_cast<long double>(as(float{})));
    case DType::kF64:
      return Number::Of(static_cast<long double>(as(double{})));
    case DType::kF16:
      return Number::Of(static_cast<long double>(F16ToF32(as(uint16_t{}))));
    case DType::kBf16:
      return Number::Of(static_cast<long double>(Bf16ToF32(as(uint16_t{}))));
    default: {
      uint64_t bits = 0;
      std::memcpy(&bits, at, static_cast<size_t>(SizeBytes(type)));
      if (type == DType::kBool) return Number::Of(Integer{bits != 0});
      return Number::Of(Wrap(static_cast<Integer>(bits), type));
    }
  }
}

// Rounds to f32 and then to halves, as the kernels do; integers must fit.
inline void WriteElement(const Number& value, std::byte* at, DType type) {
  const auto put = [at](auto bits) { std::memcpy(at, &bits, sizeof bits); };
  const auto real = value.AsReal();
  switch (type) {
    case DType::kF32:
      return put(static_cast<float>(real));
    case DType::kF64:
      return put(static_cast<double>(real));
    case DType::kF16:
      return put(F32ToF16(static_cast<float>(real)));
    case DType::kBf16:
      return put(F32ToBf16(static_cast<float>(real)));
    default: {
      const auto bits = static_cast<uint64_t>(value.integer);
      std::memcpy(at, &bits, static_cast<size_t>(SizeBytes(type)));
    }
  }
}

// What a value becomes when it is stored as `type`.
inline Number Rounded(const Number& value, DType type) {
  std::byte bytes[8] = {};
  WriteElement(value, bytes, type);
  return ReadElement(bytes, type);
}

// A list of elements in a buffer of exactly their size.
class TestTensor {
 public:
  TestTensor(DType type, int64_t count)
      : type_(type), count_(count), bytes_(static_cast<size_t>(count * SizeBytes(type))) {}

  DType type() const { return type_; }
  int64_t count() const { return count_; }
  std::byte* data() { return bytes_.data(); }
  const std::byte* data() const { return bytes_.data(); }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  Number at(int64_t i) const { return ReadElement(bytes_.data() + i * SizeBytes(type_), type_); }
  void Set(int64_t i, const Number& value) {
    WriteElement(value, bytes_.data() + i * SizeBytes(type_), type_);
  }

 private:
  DType type_;
  int64_t count_;
  std::vector<std::byte> bytes_;
};

// The type's ends, and what is special about it.
inline std::vector<Number> EdgeValues(DType type) {
  std::vector<Number> values;
  if (!IsReal(type)) {
    for (const Integer value :
         {Lowest(type), Lowest(type) + 1, Highest(type), Highest(type) - 1, Integer{0}, Integer{1},
          Integer{-1}, Integer{2}, Integer{7}, Integer{31}, Integer{32}, Integer{63}, Integer{64}})
      if (value >= Lowest(type) && value <= Highest(type)) values.push_back(Number::Of(value));
    return values;
  }
  const long double infinity = std::numeric_limits<long double>::infinity();
  for (const long double value : {0.0L,
                                  -0.0L,
                                  1.0L,
                                  -1.0L,
                                  0.5L,
                                  1.5L,
                                  2.5L,
                                  -0.5L,
                                  -1.5L,
                                  -2.5L,
                                  255.0L,
                                  256.0L,
                                  -129.0L,
                                  65504.0L,
                                  2147483647.0L,
                                  2147483648.0L,
                                  -2147483648.0L,
                                  -2147483904.0L,
                                  9223372036854775808.0L,
                                  -9223372036854775808.0L,
                                  18446744073709551616.0L,
                                  1e30L,
                                  -1e30L,
                                  6e-8L,
                                  1e-40L,
                                  0.3L,
                                  -0.7L,
                                  infinity,
                                  -infinity})
    values.push_back(Rounded(Number::Of(value), type));
  values.push_back(Number::Of(std::numeric_limits<long double>::quiet_NaN()));
  return values;
}

// Small numbers mostly, so that products stay in range; integers of the whole type now and then.
inline Number RandomValue(Rng& rng, DType type) {
  if (type == DType::kBool) return Number::Of(static_cast<Integer>(rng.Below(2)));
  if (!IsReal(type)) {
    if (rng.Below(4) == 0) return Number::Of(Wrap(static_cast<Integer>(rng.Next()), type));
    return Number::Of(static_cast<Integer>(rng.Below(100)) - (IsSignedInteger(type) ? 50 : 0));
  }
  const float range = rng.Below(3) == 0 ? 30.0f : 2.0f;
  return Rounded(Number::Of(static_cast<long double>(rng.Uniform(-range, range))), type);
}

inline TestTensor RandomTensor(Rng& rng, DType type, int64_t count) {
  TestTensor tensor(type, count);
  for (int64_t i = 0; i < count; ++i) tensor.Set(i, RandomValue(rng, type));
  return tensor;
}

// Distance of a real result from what it should be, in units of the last place of the type. Two
// NaNs, or two infinities of one sign, are no distance apart.
inline long double UlpsApart(const Number& value, long double expected, DType type) {
  if (std::isnan(expected) || std::isnan(value.real))
    return std::isnan(expected) && std::isnan(value.real) ? 0 : HUGE_VALL;
  const Number rounded = Rounded(Number::Of(expected), type);
  if (value.real == rounded.real) return 0;
  if (std::isinf(value.real)) return HUGE_VALL;
  const int mantissa = type == DType::kF64   ? 53
                       : type == DType::kF32 ? 24
                       : type == DType::kF16 ? 11
                                             : 8;
  const int least = type == DType::kF64 ? -1022 : type == DType::kF16 ? -14 : -126;
  const int exponent =
      expected == 0 ? least : std::max(least, static_cast<int>(std::ilogb(expected)));
  return std::abs(value.real - expected) / std::ldexp(1.0L, exponent - mantissa + 1);
}

// The same bits, or NaN both.
inline bool SameElement(const TestTensor& a, const TestTensor& b, int64_t i) {
  const auto size = static_cast<size_t>(SizeBytes(a.type()));
  if (std::memcmp(a.data() + static_cast<size_t>(i) * size,
                  b.data() + static_cast<size_t>(i) * size, size) == 0)
    return true;
  return IsReal(a.type()) && std::isnan(a.at(i).real) && std::isnan(b.at(i).real);
}

// The element kernels of each set that this machine has, the baseline last.
template <typename Test>
void ForEachElementSet(const Test& test) {
  for (const KernelSet* set : AvailableKernels()) {
    const ElementKernels& elements = ElementKernelsOf(*set);
    SCOPED_TRACE(elements.name);
    test(elements);
  }
}

}  // namespace millpower::kernels
