#include "import/qwen3/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace millpower::import {
namespace {

// Equal but for the last place, in which torch's power may be off.
void ExpectClose(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_LE(std::abs(actual[i] - expected[i]), expected[i] * 0x1p-23f) << i;
}

// The numbers below are Qwen3RotaryEmbedding(config).inv_freq of transformers 5.23 with torch.

TEST(Rope, DefaultFrequenciesAreThoseOfTransformers) {
  ExpectClose(InverseFrequencies({.theta = 1e6, .yarn = std::nullopt}, 16),
              {0x1p+0f, 0x1.6c310ep-3f, 0x1.030dc6p-5f, 0x1.708938p-8f, 0x1.0624dep-10f,
               0x1.74eea6p-13f, 0x1.094564p-15f, 0x1.796182p-18f});
}

TEST(Rope, YarnFrequenciesAreThoseOfTransformers) {
  const Yarn yarn{.factor = 4, .original_max_positions = 32768};
  ExpectClose(InverseFrequencies({1e6, yarn}, 16),
              {0x1p+0f, 0x1.6c310ep-3f, 0x1.030dc6p-5f, 0x1.1466eap-8f, 0x1.0624dep-11f,
               0x1.74eea6p-15f, 0x1.094564p-17f, 0x1.796182p-20f});
  ExpectClose(InverseFrequencies({1e6, yarn}, 128),
              {0x1p+0f,         0x1.9c975ap-1f,  0x1.4c7bcp-1f,   0x1.0beddep-1f,  0x1.afd136p-2f,
               0x1.5bf9fep-2f,  0x1.186a08p-2f,  0x1.c3f06ap-3f,  0x1.6c310ep-3f,  0x1.257b22p-3f,
               0x1.d8ffacp-4f,  0x1.7d298cp-4f,  0x1.33281ap-4f,  0x1.ef0a26p-5f,  0x1.8eec7ep-5f,
               0x1.41783ap-5f,  0x1.030dc6p-5f,  0x1.a1835p-6f,   0x1.507316p-6f,  0x1.0f201p-6f,
               0x1.b4f7e4p-7f,  0x1.6020a4p-7f,  0x1.1bc25ap-7f,  0x1.c9548cp-8f,  0x1.6046eep-8f,
               0x1.0ec71p-8f,   0x1.9f4aap-9f,   0x1.3da49p-9f,   0x1.e483bep-10f, 0x1.70578p-10f,
               0x1.17040ep-10f, 0x1.a4fb7p-11f,  0x1.3c1d64p-11f, 0x1.d832dp-12f,  0x1.5e7a04p-12f,
               0x1.02387cp-12f, 0x1.79277cp-13f, 0x1.107c7p-13f,  0x1.847d34p-14f, 0x1.103a14p-14f,
               0x1.74eea6p-15f, 0x1.2c8648p-15f, 0x1.e459c4p-16f, 0x1.864f6ap-16f, 0x1.3a8748p-16f,
               0x1.faeba8p-17f, 0x1.987f7cp-17f, 0x1.492f56p-17f, 0x1.094564p-17f, 0x1.ab8882p-18f,
               0x1.58863ap-18f, 0x1.15a1dap-18f, 0x1.bf749ep-19f, 0x1.68941cp-19f, 0x1.2291c6p-19f,
               0x1.d44e64p-20f, 0x1.796182p-20f, 0x1.301c04p-20f, 0x1.ea20ep-21f,  0x1.8af756p-21f,
               0x1.3e47c8p-21f, 0x1.007bd8p-21f, 0x1.9d5ef2p-22f, 0x1.4d1c98p-22f});
}

TEST(Rope, YarnOptionsAreThoseOfTransformers) {
  const Yarn yarn{.factor = 2.5,
                  .original_max_positions = 8192,
                  .beta_fast = 24,
                  .beta_slow = 2,
                  .truncate = false};
  ExpectClose(InverseFrequencies({5e6, yarn}, 16),
              {0x1p+0f, 0x1.29d2c6p-3f, 0x1.5a7abcp-6f, 0x1.c9db78p-10f, 0x1.772664p-13f,
               0x1.b47068p-16f, 0x1.fbbdbep-19f, 0x1.275894p-21f});
  EXPECT_DOUBLE_EQ(DefaultYarnAttentionFactor(4), 1.138629436111989);
  EXPECT_DOUBLE_EQ(DefaultYarnAttentionFactor(2.5, 1.2) / DefaultYarnAttentionFactor(2.5, 0.7),
                   1.0430530959010258);
  EXPECT_EQ(DefaultYarnAttentionFactor(1), 1);
}

// A ramp of no width, and one that is upside down, still give frequencies.
TEST(Rope, OddYarnIsFinite) {
  for (const double beta_slow : {32.0, 1e6})
    for (const float frequency : InverseFrequencies({1e6, Yarn{.factor = 8,
                                                               .original_max_positions = 1,
                                                               .beta_fast = 32,
                                                               .beta_slow = beta_slow}},
                                                    8))
      EXPECT_TRUE(std::isfinite(frequency) && frequency > 0);
}

}  // namespace
}  // namespace millpower::import
