#include "import/qwen3/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace millpower::import {
namespace {

// theta ^ (2i / head_dim): positions per radian of dimension pair i.
float Wavelength(double theta, int64_t i, int64_t head_dim) {
  const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
  return static_cast<float>(
      std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent)));
}

// The (fractional) dimension pair that turns `rotations` times over the original context.
double PairOfRotations(const RopeConfig& rope, double rotations, int64_t head_dim) {
  const auto positions = static_cast<double>(rope.yarn->original_max_positions);
  return static_cast<double>(head_dim) * std::log(positions / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

// Dimension pairs from `low` to `high` are blended.
struct Ramp {
  double low = 0;
  double high = 0;
  // 0: kept as trained; 1: divided by the factor.
  float At(int64_t i) const {
    const double width = low == high ? high + 0.001 - low : high - low;
    const float at = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(width);
    return std::clamp(at, 0.0f, 1.0f);
  }
};

Ramp RampOf(const RopeConfig& rope, int64_t head_dim) {
  Ramp ramp{PairOfRotations(rope, rope.yarn->beta_fast, head_dim),
            PairOfRotations(rope, rope.yarn->beta_slow, head_dim)};
  if (rope.yarn->truncate) ramp = {std::floor(ramp.low), std::ceil(ramp.high)};
  return {std::max(ramp.low, 0.0), std::min(ramp.high, static_cast<double>(head_dim - 1))};
}

}  // namespace

double DefaultYarnAttentionFactor(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t head_dim) {
  const Ramp ramp = rope.yarn ? RampOf(rope, head_dim) : Ramp();
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float wavelength = Wavelength(rope.theta, i, head_dim);
    float frequency = 1.0f / wavelength;
    if (rope.yarn) {
      const float kept = 1.0f - ramp.At(i);
      const float divided = 1.0f / (static_cast<float>(rope.yarn->factor) * wavelength);
      frequency = divided * (1.0f - kept) + frequency * kept;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace millpower::import
