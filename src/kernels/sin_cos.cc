#include "kernels/sin_cos.h"

#include <bit>
#include <cstdint>

namespace millpower::kernels {
namespace {

constexpr double kTwoOverPi = 0.63661977236758134308;
// pi/2 in three parts (Cody and Waite). The first two have 33 bits, so that n * part is exact for
// |n| < 2^20; what all three leave out of pi/2 is below 2^-120.
constexpr double kPiHalf1 = 0x1.921fb544p+0;
constexpr double kPiHalf2 = 0x1.0b4611a6p-34;
constexpr double kPiHalf3 = 0x1.3198a2e037073p-69;
constexpr double kRoundMagic = 0x1.8p52;  // adding it rounds to an integer, kept in the low bits

// Taylor polynomials on |r| <= pi/4. First terms left out: r^17/17! < 5e-17, r^18/18! < 3e-18.
double SinPolynomial(double r) {
  const double z = r * r;
  double p = -1.0 / 1307674368000.0;  // -1/15!
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return r + r * (z * p);
}

double CosPolynomial(double r) {
  const double z = r * r;
  double p = 1.0 / 20922789888000.0;  // 1/16!
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  p = p * z - 0.5;
  return 1.0 + z * p;
}

}  // namespace

SinCosResult SinCos(double a) {
  const double shifted = a * kTwoOverPi + kRoundMagic;
  const double n = shifted - kRoundMagic;
  const double r = ((a - n * kPiHalf1) - n * kPiHalf2) - n * kPiHalf3;
  const double s = SinPolynomial(r);
  const double c = CosPolynomial(r);
  switch (std::bit_cast<uint64_t>(shifted) & 3) {  // the quadrant, n mod 4
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

}  // namespace millpower::kernels
