// Elementary functions, defined once. Vector kernels do the same operations lane by lane, in the
// same order, so that they give the same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace millpower::kernels {

inline constexpr float kLog2E = 1.44269504f;
// ln 2 in two parts: kLn2Hi has few enough bits that n * kLn2Hi is exact for |n| < 2^10.
inline constexpr float kLn2Hi = 0.693145752f;
inline constexpr float kLn2Lo = 1.42860677e-6f;
inline constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
inline constexpr float kExpMin = -87.0f;           // below: 0 (exp(-87) = 1.6e-38, still normal)
inline constexpr float kExpMax = 88.0f;            // above: exp(88) = 1.65e38

// e^x = 2^n * e^r with n = round(x / ln 2), |r| <= ln(2)/2; e^r by its Taylor polynomial of degree
// 7: the first term left out is r^8/8! < 5.2e-9, below half a unit in the last place.
inline float Exp(float x) {
  if (x < kExpMin) return 0.0f;
  if (x > kExpMax) x = kExpMax;
  const float shifted = std::fma(x, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  float r = std::fma(n, -kLn2Hi, x);
  r = std::fma(n, -kLn2Lo, r);
  float p = 1.0f / 5040.0f;
  p = std::fma(p, r, 1.0f / 720.0f);
  p = std::fma(p, r, 1.0f / 120.0f);
  p = std::fma(p, r, 1.0f / 24.0f);
  p = std::fma(p, r, 1.0f / 6.0f);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  // The low bits of `shifted` are n modulo 2^9; the rest is shifted out.
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
}

// x * sigmoid(x).
inline float Silu(float x) { return x / (1.0f + Exp(-x)); }

}  // namespace millpower::kernels
