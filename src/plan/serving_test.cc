#include "plan/serving.h"

#include <gtest/gtest.h>

#include "device/test_program.h"
#include "plan/report.h"

namespace millpower::plan {
namespace {

ServingSetup TestModel() {
  ServingSetup setup;
  setup.program = device::SoundProgram(device::TestModelText());
  const auto chip = device::chip::ReadChip("h100");
  EXPECT_TRUE(chip) << chip.error().message;
  if (chip) setup.chip = chip->At(device::chip::Bound::kValue);
  setup.kv_pages = 64;
  return setup;
}

TEST(Serving, EveryRequestIsServedInFull) {
  const auto result = SimulateServing(TestModel(), ClosedLoop(4, 20, 12, 9));
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->requests.size(), 20u);
  for (const Served& served : result->requests) {
    EXPECT_EQ(served.output, 9);
    EXPECT_GT(served.first_token_s, served.arrived_s);
    EXPECT_GT(served.done_s, served.first_token_s);
  }
}

TEST(Serving, IsTheSameEveryTime) {
  const Workload workload = PoissonArrivals(2000, 200, 20, 10, 7);
  std::vector<double> first;
  for (int run = 0; run < 3; ++run) {
    const auto result = SimulateServing(TestModel(), workload);
    ASSERT_TRUE(result) << result.error().message;
    std::vector<double> times;
    for (const Served& served : result->requests) {
      times.push_back(served.first_token_s);
      times.push_back(served.done_s);
    }
    if (run == 0) first = times;
    EXPECT_EQ(times, first);
  }
}

// The requests' parts of the launches are the launches.
TEST(Serving, ChipTimeAddsUp) {
  const auto result = SimulateServing(TestModel(), ClosedLoop(5, 30, 12, 9));
  ASSERT_TRUE(result) << result.error().message;
  double sum = 0;
  for (const Served& served : result->requests) sum += served.chip_s;
  EXPECT_NEAR(sum, result->busy_s, 1e-9 * static_cast<double>(result->steps));
}

TEST(Serving, SharedPrefixesAreFound) {
  Workload workload = PoissonArrivals(10, 10, 40, 4, 1);
  for (Arrival& arrival : workload.requests) arrival.prefix_group = 0, arrival.prefix_tokens = 32;
  const auto result = SimulateServing(TestModel(), workload);
  ASSERT_TRUE(result) << result.error().message;
  for (size_t i = 1; i < result->requests.size(); ++i) EXPECT_EQ(result->requests[i].cached, 32);
}

TEST(Serving, WhatDoesNotFitSaysWhy) {
  ServingSetup setup = TestModel();
  setup.chip.memory.bytes.value = 1000;
  const auto result = SimulateServing(setup, ClosedLoop(1, 1, 4, 4));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kNoCapacity);
  EXPECT_NE(result.error().message.find("does not fit"), std::string::npos);
}

// A meter that integrates the power of each launch over its time, idle time between them included,
// reads what the result says.
TEST(Serving, EnergyIsPowerOverTime) {
  ServingSetup setup = TestModel();
  double joules = 0, until_s = 0;
  setup.on_launch = [&](const device::chip::LaunchReport& report) {
    const double start_s = static_cast<double>(report.start_ns) * 1e-9;
    joules += (start_s - until_s) * setup.chip.idle_w.value;
    // Each instruction takes its energy evenly while it runs.
    for (const device::chip::Span& span : report.spans) {
      const auto* work = report.timer->WorkOf(span.stream, span.index);
      for (const double unit : report.timer->JoulesOf(*work)) joules += unit;
    }
    const double end_s = static_cast<double>(report.end_ns) * 1e-9;
    joules += (end_s - start_s) * setup.chip.idle_w.value;
    until_s = end_s;
  };
  const auto result = SimulateServing(setup, PoissonArrivals(500, 50, 20, 10, 7));
  ASSERT_TRUE(result) << result.error().message;
  // The first request came later than the meter began.
  const double before = result->requests[0].arrived_s * setup.chip.idle_w.value;
  const double after_host =
      (setup.chip.host_s.value + setup.chip.sampling_s.value) * setup.chip.idle_w.value;
  EXPECT_NEAR(joules - before + after_host, result->joules, 1e-6 * result->joules);
}

}  // namespace
}  // namespace millpower::plan
