// Serving by a pipeline in virtual time: what cutting a model into stages changes of it, and what
// it does not.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/check.h"
#include "compile/compile.h"
#include "device/chip/cost_collective.h"
#include "import/qwen3/graph.h"
#include "import/qwen3/published.h"
#include "isa/sampling.h"
#include "plan/serving.h"

namespace millpower::plan {
namespace {

std::shared_ptr<const isa::Program> ProgramOf(int ranks, int stages, int stage) {
  import::GraphOptions options;
  options.ranks = ranks;
  options.stages = stages;
  options.stage = stage;
  const auto graph =
      import::BuildQwen3Graph(import::FindPublishedModel("qwen3-8b")->config, options);
  CHECK(graph) << graph.error().message;
  auto compiled = compile::Compile(*graph, {});
  CHECK(compiled) << compiled.error().message;
  return std::make_shared<const isa::Program>(std::move(compiled->program));
}

ServingSetup SetupOf(int ranks, int stages) {
  ServingSetup setup;
  setup.program = ProgramOf(ranks, 1, 0);
  for (int stage = 0; stages > 1 && stage < stages; ++stage)
    setup.stages.push_back(ProgramOf(ranks, stages, stage));
  setup.ranks = ranks;
  const auto chip = device::chip::ReadChip("h100");
  CHECK(chip) << chip.error().message;
  setup.chip = chip->At(device::chip::Bound::kValue);
  return setup;
}

double MeanTimePerToken(const ServingResult& result) {
  double sum = 0;
  for (const Served& served : result.requests) sum += served.TimePerToken();
  return sum / static_cast<double>(result.requests.size());
}

ServingResult Simulated(const ServingSetup& setup, const Workload& workload) {
  auto result = SimulateServing(setup, workload);
  CHECK(result) << result.error().message;
  return *std::move(result);
}

// One user waits for all stages: a token takes what it takes uncut, one launch more for each cut,
// and the way of its row over the links.
TEST(Pipeline, OneUserWaitsForAllStages) {
  const Workload workload = ClosedLoop(1, 2, 64, 32);
  const ServingSetup whole = SetupOf(1, 1), cut = SetupOf(1, 2);
  const double before = MeanTimePerToken(Simulated(whole, workload));
  const double after = MeanTimePerToken(Simulated(cut, workload));
  const device::chip::Work receive = device::chip::ReceiveWork(cut.chip, 4096 * 2);
  ASSERT_EQ(receive.waves.size(), 1u);
  const double way = receive.issue_s + receive.waves[0].latency_s +
                     receive.waves[0].busy(device::chip::Unit::kLink);
  EXPECT_GT(way, 1e-6);
  EXPECT_NEAR(after - before, cut.chip.launch_s.value + way, 0.02 * before);
}

// With as many users as stages there is always something to do for each, and the two get twice as
// much as one does.
TEST(Pipeline, StagesWorkAtTheSameTime) {
  const ServingSetup setup = SetupOf(1, 2);
  const ServingResult one = Simulated(setup, ClosedLoop(1, 2, 64, 64));
  const ServingResult two = Simulated(setup, ClosedLoop(2, 4, 64, 64));
  EXPECT_NEAR(two.seconds, one.seconds, 0.15 * one.seconds);
  EXPECT_LT(UseOf(one, setup, one.seconds).launched, 0.55);
  EXPECT_GT(UseOf(two, setup, two.seconds).launched, 0.8);
}

TEST(Pipeline, IsTheSameEveryTime) {
  const ServingSetup setup = SetupOf(2, 3);
  const Workload workload = PoissonArrivals(20, 40, 300, 20, 7);
  std::vector<double> first;
  for (int run = 0; run < 3; ++run) {
    const ServingResult result = Simulated(setup, workload);
    ASSERT_EQ(result.requests.size(), 40u);
    std::vector<double> numbers = {result.joules, result.busy_s, result.traffic.memory_read};
    for (const Served& served : result.requests) {
      EXPECT_EQ(served.output, 20);
      numbers.push_back(served.first_token_s);
      numbers.push_back(served.done_s);
    }
    if (run == 0) first = numbers;
    EXPECT_EQ(numbers, first);
  }
}

// Half of the layers, and of the memory that they take; only the table of rotations is on both.
TEST(Pipeline, EachStageHasItsPart) {
  const auto whole = device::chip::FootprintOn(SetupOf(1, 1).chip, *ProgramOf(1, 1, 0));
  const auto first = device::chip::FootprintOn(SetupOf(1, 1).chip, *ProgramOf(1, 2, 0));
  const auto second = device::chip::FootprintOn(SetupOf(1, 1).chip, *ProgramOf(1, 2, 1));
  ASSERT_TRUE(whole && first && second);
  EXPECT_EQ(first->kv_page + second->kv_page, whole->kv_page);
  EXPECT_EQ(first->weights + second->weights, whole->weights + 64 * 4);
}

// A meter that integrates the power of every stage's chips over their launches.
TEST(Pipeline, EnergyIsPowerOverTime) {
  ServingSetup setup = SetupOf(2, 2);
  double joules = 0;
  setup.on_launch = [&](const device::chip::LaunchReport& report) {
    for (const double unit : report.time->unit_joules) joules += unit;
  };
  const ServingResult result = Simulated(setup, ClosedLoop(3, 6, 64, 16));
  EXPECT_NEAR(2 * joules + 4 * setup.chip.idle_w.value * result.seconds, result.joules,
              1e-9 * result.joules);
}

}  // namespace
}  // namespace millpower::plan
