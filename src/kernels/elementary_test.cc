#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/scalar_math.h"
#include "kernels/sin_cos.h"
#include "kernels/test_operands.h"

namespace millpower::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Distance in units of the last place of a float near `exact`.
double UlpError(float value, double exact) {
  const float near = static_cast<float>(exact);
  const double ulp = std::nextafter(std::abs(near), kInf) - std::abs(near);
  return std::abs(value - exact) / ulp;
}

TEST(Exp, IsWithinOneUlp) {
  double worst = 0;
  for (double x = -87; x <= 88; x += 1.0 / 4096) {
    const auto rounded = static_cast<float>(x);
    worst = std::max(worst, UlpError(Exp(rounded), std::exp(static_cast<double>(rounded))));
  }
  EXPECT_LT(worst, 1.0);
}

TEST(Exp, AtTheEnds) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  EXPECT_EQ(Exp(-kInf), 0.0f);
  EXPECT_EQ(Exp(-87.01f), 0.0f);
  EXPECT_EQ(Exp(kInf), Exp(88.0f));
  EXPECT_TRUE(std::isnormal(Exp(-87.0f)));
  EXPECT_TRUE(std::isnan(Exp(NAN)));
}

TEST(Silu, IsCloseToFloat64) {
  for (float x = -80; x <= 80; x += 0.01f) {
    const double exact = x / (1 + std::exp(-static_cast<double>(x)));
    EXPECT_LT(UlpError(Silu(x), exact), 3.0) << x;
  }
  EXPECT_EQ(Silu(0.0f), 0.0f);
  EXPECT_EQ(Silu(-0.0f), -0.0f);
}

// sum_exp of one element is Exp of it, and a gate with up = 1 is Silu: so the vector forms.
TEST(Elementary, VectorFormsGiveTheScalarBits) {
  std::vector<float> x = {0.0f, -0.0f, -kInf,  kInf,    -87,   -87.01f,
                          88,   88.5f, 1e-30f, -1e-30f, 1e-41f};
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) x.push_back(rng.Uniform(-95, 95));
  ForEachSet([&](const KernelSet& set) {
    for (float value : x) {
      const float e = set.sum_exp(&value, 1, 0, 1);
      const float exact = Exp(value);
      ASSERT_EQ(std::bit_cast<uint32_t>(e), std::bit_cast<uint32_t>(exact)) << value;
    }
    // Blocks gate, up: x[0] = value meets weight 1 in the gate, x[1] = 1 weight 1 in up.
    AlignedBytes w(isa::PackedBytes(32, 2, DType::kF32));
    std::memset(w.data(), 0, static_cast<size_t>(w.size_bytes()));
    for (int64_t lane = 0; lane < 16; ++lane) {
      Store(1, w.data() + isa::PackedOffset(lane, 0, 2, DType::kF32), DType::kF32);
      Store(1, w.data() + isa::PackedOffset(16 + lane, 1, 2, DType::kF32), DType::kF32);
    }
    for (float value : x) {
      if (std::isinf(value)) continue;  // infinity * 0
      const float row[2] = {value, 1};
      float y[16];
      MatMulArgs args;
      args.x = row;
      args.w = w.data();
      args.y = y;
      args.rows = 1;
      args.k = args.x_stride = 2;
      args.n = 32;
      args.y_stride = 16;
      args.epilogue = Epilogue::kSiluGate;
      set.matmul(args, 0, 2);
      const float exact = Silu(value + 0.0f);  // the sum starts at +0, so -0 becomes 0
      ASSERT_EQ(std::bit_cast<uint32_t>(y[9]), std::bit_cast<uint32_t>(exact)) << value;
    }
  });
}

TEST(SinCos, AgreesWithLibmUpToAMillion) {
  Rng rng(2);
  double worst = 0;
  const auto check = [&](double a) {
    const SinCosResult value = SinCos(a);
    worst = std::max({worst, std::abs(value.sin - std::sin(a)), std::abs(value.cos - std::cos(a))});
  };
  for (int i = 0; i < 200000; ++i) {
    check(rng.Uniform(-1e6f, 1e6f));
    check(rng.Uniform(-10, 10));
  }
  for (int64_t n = -600000; n <= 600000; n += 7)  // next to the multiples of pi/2
    check(static_cast<float>(static_cast<double>(n) * 1.5707963267948966));
  EXPECT_LT(worst, 4e-16);
}

TEST(SinCos, BeyondAMillion) {
  for (float a : {2e6f, 1e8f, 2147483648.0f}) {
    EXPECT_NEAR(SinCos(a).sin, std::sin(static_cast<double>(a)), 1e-6);
    EXPECT_NEAR(SinCos(a).cos, std::cos(static_cast<double>(a)), 1e-6);
  }
  EXPECT_EQ(SinCos(0).sin, 0);
  EXPECT_EQ(SinCos(0).cos, 1);
  EXPECT_TRUE(std::isnan(SinCos(kInf).sin));
  EXPECT_TRUE(std::isnan(SinCos(NAN).cos));
}

}  // namespace
}  // namespace millpower::kernels
