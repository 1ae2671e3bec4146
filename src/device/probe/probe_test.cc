#include "device/probe/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "device/chip/cost_host.h"
#include "device/probe/fit.h"

namespace millpower::device::probe {
namespace {

TEST(Fit, FindsTheConstantsThatMadeTheData) {
  double a = 1, b = 1;
  const auto cost = [&] {
    double sum = 0;
    for (const double x : {1.0, 2.0, 8.0, 64.0})
      sum += std::pow(std::log((a + b * x) / (30 + 0.2 * x)), 2);
    return sum;
  };
  EXPECT_LT(Fit({{&a, 1e-3, 1e3}, {&b, 1e-3, 1e3}}, cost), 1e-3);
  EXPECT_NEAR(a, 30, 1);
  EXPECT_NEAR(b, 0.2, 0.02);
}

TEST(Fit, StaysBetweenTheBounds) {
  double a = 100;
  Fit({{&a, 2, 5}}, [&] { return a; });
  EXPECT_NEAR(a, 2, 1e-9);
}

// Short and small: what it finds is rough, but all of it must be there.
TEST(Probe, DescribesThisMachine) {
  const auto prober = Prober::Make({.threads = 2, .seconds = 0, .memory_bytes = 64 << 20});
  ASSERT_TRUE(prober) << prober.error().message;
  const auto described = (*prober)->Describe();
  ASSERT_TRUE(described) << described.error().message;
  const auto parsed = chip::ParseChip(described->toml, "probe");
  ASSERT_TRUE(parsed) << parsed.error().message;
  const chip::Chip chip = parsed->At(chip::Bound::kValue);
  EXPECT_TRUE(chip::IsHost(chip));
  EXPECT_EQ(chip.cores.value, 2);
  EXPECT_EQ(chip.activation_type, DType::kF32);
  EXPECT_FALSE(chip.joins_row_work);
  const auto& constants = parsed->fitted.at(chip::kHostKind);
  for (const char* name : {"append_s", "attention_efficiency", "contract_efficiency", "exchange_s",
                           "finish_steps", "meet_s", "memory_power", "overlap_power", "segment_s",
                           "tensor_s", "thread_memory_share", "thread_share"}) {
    ASSERT_TRUE(constants.contains(name)) << name;
    EXPECT_GT(constants.at(name).value, 0) << name;
    EXPECT_FALSE(constants.at(name).assumed) << name;
  }
  EXPECT_LE(constants.size(), chip::kMaxFittedConstants);
  for (const char* name : {"bag_s", "far_s", "item_s", "miss_s"})
    EXPECT_TRUE(parsed->fitted.at(chip::kHostTablesKind).contains(name)) << name;
  const auto& weights = parsed->fitted.at(chip::kHostWeightsKind);
  for (const char* type : {"bf16", "f32", "q8_0", "q4_0", "q4_k", "q6_k"})
    EXPECT_TRUE(weights.contains(std::string("load_rows_") + type)) << type;
  // Not what the template has.
  const chip::Chip host = *chip::ReadChip("host");
  EXPECT_NE(chip.memory.bytes_per_s.value, host.memory.bytes_per_s.value);
  EXPECT_NE(chip.vector_ops_per_s.value, host.vector_ops_per_s.value);
  // Its own points, measured as roughly as here, come out of the same order.
  EXPECT_LT(described->fit_error, 2);
}

TEST(Probe, SpeedsMoveWhatGoesByThem) {
  Description description;
  description.chip = chip::ReadChip("host")->At(chip::Bound::kValue);
  description.chip.fitted[chip::kHostKind]["meet_s"] = {2e-6, 2e-6, 2e-6, "", false};
  description.chip.fitted[chip::kHostTablesKind]["miss_s"] = {2e-8, 2e-8, 2e-8, "", false};
  description.chip.fitted[chip::kHostKind]["thread_share"] = {0.5, 0.5, 0.5, "", false};
  description.short_speeds = {1e-3, 1e-2};
  description.long_speeds = {2e-3, 1e-2};
  const chip::Chip chip = AtSpeeds(description, {2e-3, 4e-2}, 1e-3);
  EXPECT_EQ(chip.matrix[0].ops_per_s.value, description.chip.matrix[0].ops_per_s.value / 2);
  EXPECT_EQ(chip.memory.bytes_per_s.value, description.chip.memory.bytes_per_s.value / 4);
  EXPECT_EQ(chip.memory.latency_s.value, description.chip.memory.latency_s.value * 4);
  EXPECT_EQ(chip.cache.latency_s.value, description.chip.cache.latency_s.value * 2);
  EXPECT_EQ(chip.Fitted(chip::kHostKind, "meet_s", 0), 4e-6);
  EXPECT_EQ(chip.Fitted(chip::kHostTablesKind, "miss_s", 0), 8e-8);
  EXPECT_EQ(chip.Fitted(chip::kHostKind, "thread_share", 0), 0.5);
  // Long steps are held to long launches.
  EXPECT_EQ(AtSpeeds(description, {2e-3, 1e-2}, 1).matrix[0].ops_per_s.value,
            description.chip.matrix[0].ops_per_s.value);
}

}  // namespace
}  // namespace millpower::device::probe
