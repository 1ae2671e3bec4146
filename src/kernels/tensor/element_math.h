// Functions of one element, f32, as the loops of every instruction set compute them. Included by
// the files of the sets only (element_loops.h says why nothing here has a name that links).
//
// Every function is straight-line arithmetic with selections instead of branches, so that loops
// over it become vector code by themselves; each operation rounds as written, and fma rounds once.
#pragma once

#include <cstdint>

#include "kernels/scalar_math.h"

namespace millpower::kernels {
namespace {

#define MP_ELEMENT [[gnu::always_inline, maybe_unused]] inline

template <typename To, typename From>
MP_ELEMENT To BitsAs(From value) {
  return __builtin_bit_cast(To, value);
}

MP_ELEMENT float FusedMulAdd(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// c[0] + c[1] * x + ..., Horner's scheme in fma.
template <int kCount>
MP_ELEMENT float Polynomial(const float (&c)[kCount], float x) {
  float p = c[kCount - 1];
#pragma GCC unroll 16
  for (int i = kCount - 2; i >= 0; --i) p = FusedMulAdd(p, x, c[i]);
  return p;
}

MP_ELEMENT float AbsOf(float x) { return BitsAs<float>(BitsAs<uint32_t>(x) & 0x7fffffffu); }
MP_ELEMENT float WithSignOf(float magnitude, float sign) {
  return BitsAs<float>((BitsAs<uint32_t>(magnitude) & 0x7fffffffu) |
                       (BitsAs<uint32_t>(sign) & 0x80000000u));
}

// scalar_math.h's Exp over the whole range of f32: 2^n is multiplied in two halves, so that results
// reach infinity above 88.72 and go through the subnormals to 0 below -87.3.
MP_ELEMENT float ElementExp(float x) {
  static constexpr float kTaylor[] = {
      1, 1, 0.5f, 1.0f / 6, 1.0f / 24.0f, 1.0f / 120.0f, 1.0f / 720.0f, 1.0f / 5040.0f};
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  const float shifted = FusedMulAdd(x, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  float r = FusedMulAdd(n, -kLn2Hi, x);
  r = FusedMulAdd(n, -kLn2Lo, r);
  const float p = Polynomial(kTaylor, r);
  const auto whole =
      static_cast<int32_t>(BitsAs<uint32_t>(shifted) - BitsAs<uint32_t>(kRoundMagic));
  const int32_t half = whole >> 1;
  const auto power = [](int32_t exponent) __attribute__((always_inline)) {
    return BitsAs<float>((static_cast<uint32_t>(exponent) + 127u) << 23);
  };
  return p * power(half) * power(whole - half);
}

MP_ELEMENT float ElementSigmoid(float x) { return 1.0f / (1.0f + ElementExp(-x)); }

// Below 0.625 x + x^3 P(x^2), P of degree 4 with the least largest relative error on [0, 0.625^2],
// 4.2e-9; above 1 - 2 / (e^2x + 1).
MP_ELEMENT float ElementTanh(float x) {
  static constexpr float kP[] = {-0.333332837f, 0.133314908f, -0.0537434965f, 0.0206505861f,
                                 -0.0057170447f};
  const float a = AbsOf(x);
  const float z = x * x;
  const float small = FusedMulAdd(x * z, Polynomial(kP, z), x);
  const float large = 1.0f - 2.0f / (ElementExp(2.0f * a) + 1.0f);
  return a < 0.625f ? small : WithSignOf(large, x);
}

// Below 1 x + x P(x^2), P of degree 6 with the least largest error, 1.2e-9; above 1 - e^Q(x), Q of
// degree 7 the logarithm of erfc on [1, 4] with an error of 2.1e-11 in erfc. erf(4) rounds to 1.
MP_ELEMENT float ElementErf(float x) {
  static constexpr float kP[] = {0.128379166f,   -0.37612626f,     0.112836003f,   -0.0268544443f,
                                 0.00518953567f, -0.000802084222f, 7.88912294e-05f};
  static constexpr float kQ[] = {0.00018803704f,  -1.12957835f,    -0.633219898f,
                                 -0.108418554f,   0.0252082404f,   -0.00420455635f,
                                 0.000441335287f, -2.16867629e-05f};
  const float a = AbsOf(x);
  const float small = FusedMulAdd(x, Polynomial(kP, x * x), x);
  const float t = a > 4.0f ? 4.0f : a;
  const float large = 1.0f - ElementExp(Polynomial(kQ, t));
  return a < 1.0f ? small : WithSignOf(large, x);
}

// x = 2^e * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)): log x = e ln 2 + f - f^2/2 + f^3 P(f), P of
// degree 7 with the least largest error of f^2 P, 5.9e-9.
MP_ELEMENT float ElementLog(float x) {
  static constexpr float kP[] = {0.333333164f, -0.250008106f, 0.200022861f, -0.166245535f,
                                 0.141811922f, -0.131287545f, 0.128816471f, -0.0785961151f};
  constexpr float kInfinity = __builtin_inff();
  const bool is_subnormal = x < 0x1p-126f;
  // Unsigned, as what is below 0 or no number wraps; its result is replaced at the end.
  const auto bits = BitsAs<uint32_t>(is_subnormal ? x * 0x1p23f : x);
  const int32_t exponent = BitsAs<int32_t>(bits - 0x3f3504f3u) >> 23;  // 0x3f3504f3: sqrt(1/2)
  const float f = BitsAs<float>(bits - (BitsAs<uint32_t>(exponent) << 23)) - 1.0f;
  const float e = static_cast<float>(exponent) - (is_subnormal ? 23.0f : 0.0f);
  const float z = f * f;
  float y = f * z * Polynomial(kP, f);
  y = FusedMulAdd(e, kLn2Lo, y);
  y = FusedMulAdd(-0.5f, z, y);
  float result = FusedMulAdd(e, kLn2Hi, f + y);
  result = x > 0.0f ? result : __builtin_nanf("");
  result = x == 0.0f ? -kInfinity : result;
  return x == kInfinity ? kInfinity : result;
}

// ---- Halves: dtype.h's conversions without branches ----

MP_ELEMENT float WidenF16(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  uint32_t bits = magnitude < 0x400u ? BitsAs<uint32_t>(subnormal) : normal;
  bits = magnitude >= 0x7c00u ? special : bits;
  return BitsAs<float>(bits | sign);
}

MP_ELEMENT uint16_t NarrowF16(float value) {
  const uint32_t bits = BitsAs<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  const uint32_t subnormal = BitsAs<uint32_t>(BitsAs<float>(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return static_cast<uint16_t>(half | sign);
}

MP_ELEMENT float WidenBf16(uint16_t half) {
  return BitsAs<float>(static_cast<uint32_t>(half) << 16);
}

MP_ELEMENT uint16_t NarrowBf16(float value) {
  const uint32_t bits = BitsAs<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

}  // namespace
}  // namespace millpower::kernels
