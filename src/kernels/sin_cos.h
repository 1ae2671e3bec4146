// Sine and cosine in float64, our own so that their bits do not depend on the C library.
#pragma once

namespace millpower::kernels {

struct SinCosResult {
  double sin;
  double cos;
};

// For |a| < 2^20 radians the error is below 4e-16, so the value rounded to float32 is the correctly
// rounded one but for ties a few units in 2^53 wide. Beyond, it degrades slowly (1e-7 at 2^31);
// infinities and NaN give NaN.
SinCosResult SinCos(double a);

}  // namespace millpower::kernels
