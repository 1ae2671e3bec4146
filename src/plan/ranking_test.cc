#include "plan/ranking.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "device/test_program.h"
#include "plan/report.h"

namespace millpower::plan {
namespace {

namespace chip = device::chip;

// Three ids in one table, a bag of ids in another, and a matrix.
constexpr char kRecommender[] = R"(program small
register batch 64
register items 512
semaphores 0
buffer dense input f32 rows [batch, 16]
buffer ids input i64 rows [batch, 3] below 1000
buffer list input i32 rows [items, 1] below 1000
buffer offsets input i64 rows [batch, 1]
buffer table weight f32 table [1000, 16]
buffer packed weight f32 packed [16, 16]
buffer few scratch f32 rows [batch, 16]
buffer many scratch f32 rows [batch, 16]
buffer score output f32 rows [batch, 16]
stream compute
  embedding_bag table=table index=ids:[batch,3] y=few:[batch,16] mode=0 ends=0 policy=0 default_row=-1 padding_row=-1
  embedding_bag table=table index=list:[items] offsets=offsets:[batch] y=many:[batch,16] mode=0 ends=0 policy=0 default_row=-1 padding_row=-1
  map x0=few:[batch,16] x1=many:[batch,16] y=few:[batch,16] code={t0=x0:f32;t1=x1:f32;t2=add:f32(t0,t1)} sizes=[]
  matmul x=dense w=packed residual=few y=score epilogue=add
  end
stream transfer
  end
stream link
  end
)";

RankingSetup SmallModel() {
  RankingSetup setup;
  setup.program = device::SoundProgram(kRecommender);
  const Size batch = Size::Symbol("batch"), items = Size::Symbol("items");
  const auto port = [](const char* name, DType type, std::vector<Size> shape) {
    return ranking::Port{
        .name = name, .dtype = type, .is_string = false, .shape = std::move(shape), .buffer = name};
  };
  setup.signature.batch = "batch";
  setup.signature.inputs = {
      port("dense", DType::kF32, {batch, 16}), port("ids", DType::kI64, {batch, 3}),
      port("list", DType::kI32, {items}), port("offsets", DType::kI64, {batch})};
  setup.signature.inputs[3].offsets_of = {"list"};
  setup.signature.outputs = {port("score", DType::kF32, {batch, 16})};
  setup.ids_per_bag = 2;
  const auto described = chip::ReadChip("h100");
  EXPECT_TRUE(described) << described.error().message;
  if (described) setup.chip = described->At(chip::Bound::kValue);
  return setup;
}

Workload Queries(std::vector<double> at_s, int32_t items) {
  Workload workload;
  for (const double at : at_s) workload.requests.push_back({at, items});
  return workload;
}

RankingResult Simulated(const RankingSetup& setup, const Workload& workload) {
  auto result = SimulateRanking(setup, workload);
  EXPECT_TRUE(result) << result.error().message;
  return result ? *std::move(result) : RankingResult();
}

// What one launch of so many items takes, with what the host does after it.
double LaunchSeconds(const RankingSetup& setup, int32_t items) {
  const RankingResult result = Simulated(setup, Queries({0}, items));
  EXPECT_EQ(result.steps, 1);
  return result.requests.at(0).done_s;
}

TEST(Ranking, AQueryAloneTakesItsLaunch) {
  const RankingSetup setup = SmallModel();
  const RankingResult result = Simulated(setup, Queries({1, 2}, 10));
  ASSERT_EQ(result.requests.size(), 2u);
  EXPECT_EQ(result.steps, 2);
  for (int i = 0; i < 2; ++i) {
    const Answered& query = result.requests[static_cast<size_t>(i)];
    EXPECT_EQ(query.items, 10);
    EXPECT_DOUBLE_EQ(query.arrived_s, 1 + i);
    // The last nanosecond of the rounding of times aside.
    EXPECT_NEAR(query.done_s - query.arrived_s, query.chip_s + setup.chip.host_s.value, 2e-9);
  }
}

// Dynamic batching, as the engine does it: what comes while a launch is under way shares the next,
// up to the bound of a launch.
TEST(Ranking, QueriesThatWaitShareALaunch) {
  RankingSetup setup = SmallModel();
  const double launch_s = LaunchSeconds(setup, 10);
  const Workload workload =
      Queries({0, 0.1 * launch_s, 0.2 * launch_s, 0.3 * launch_s, 0.9 * launch_s}, 10);
  RankingResult result = Simulated(setup, workload);
  EXPECT_EQ(result.steps, 2);
  for (size_t i = 1; i < 5; ++i)
    EXPECT_DOUBLE_EQ(result.requests[i].done_s, result.requests[1].done_s);
  EXPECT_GT(result.requests[1].done_s, result.requests[0].done_s);
  setup.max_batch = 20;
  result = Simulated(setup, workload);
  EXPECT_EQ(result.steps, 3);
  EXPECT_LT(result.requests[2].done_s, result.requests[3].done_s);
}

// The bound on waiting counts from when a query came, even if that was during a launch.
TEST(Ranking, WaitsForCompanyInVirtualTime) {
  RankingSetup setup = SmallModel();
  setup.max_queue_delay_us = 10'000;
  const double launch_s = LaunchSeconds(setup, 10) - 0.01;
  EXPECT_GT(launch_s, 0);
  const RankingResult result = Simulated(setup, Queries({0, 0.004, 0.009, 0.0100001, 0.05}, 10));
  EXPECT_EQ(result.steps, 3);
  EXPECT_NEAR(result.requests[0].done_s,
              0.010 + result.requests[0].chip_s * 3 + setup.chip.host_s.value, 1e-8);
  EXPECT_DOUBLE_EQ(result.requests[2].done_s, result.requests[0].done_s);
  // It came during the first launch, and began 10 ms after it had come.
  EXPECT_NEAR(result.requests[3].done_s, 0.0100001 + 0.01 + launch_s, 1e-8);
  EXPECT_NEAR(result.requests[4].done_s, 0.05 + 0.01 + launch_s, 1e-8);
}

TEST(Ranking, IsTheSameEveryTime) {
  RankingSetup setup = SmallModel();
  setup.max_queue_delay_us = 100;
  Workload workload = PoissonArrivals(20'000, 2'000, 8, 0, 7);
  for (size_t i = 0; i < workload.requests.size(); ++i)
    workload.requests[i].input = 1 + static_cast<int32_t>(i * 7 % 30);
  std::vector<double> first;
  for (int run = 0; run < 3; ++run) {
    std::vector<double> times;
    for (const Answered& query : Simulated(setup, workload).requests) {
      EXPECT_GT(query.done_s, query.arrived_s);
      times.push_back(query.done_s);
    }
    if (run == 0) first = times;
    EXPECT_EQ(times, first);
  }
}

TEST(Ranking, UsersOfAClosedLoopAskAgain) {
  RankingSetup setup = SmallModel();
  setup.turnaround_s = 0.001;
  const RankingResult result = Simulated(setup, ClosedLoop(4, 40, 10, 0));
  ASSERT_EQ(result.requests.size(), 40u);
  // Four of 10 items fit one launch; never are more than four under way.
  EXPECT_GE(result.steps, 10);
  std::vector<double> done;
  for (const Answered& query : result.requests) done.push_back(query.done_s);
  std::ranges::sort(done);
  for (size_t i = 4; i < 40; ++i)
    EXPECT_GE(result.requests[i].arrived_s + 1e-12, done[i - 4] + 0.001);
}

// Parts of launches are the launches, and energy is power over time.
TEST(Ranking, ChipTimeAndEnergyAddUp) {
  RankingSetup setup = SmallModel();
  setup.replicas = 2;
  double joules = 0;
  setup.on_launch = [&](const chip::LaunchReport& report) {
    for (const chip::Span& span : report.spans)
      for (const double unit :
           report.timer->JoulesOf(*report.timer->WorkOf(span.stream, span.index)))
        joules += unit;
  };
  // Both replicas get the same.
  const RankingResult result = Simulated(setup, ClosedLoop(6, 60, 10, 0));
  double parts = 0;
  for (const Answered& query : result.requests) parts += query.chip_s;
  EXPECT_NEAR(parts, result.busy_s, 1e-9 * static_cast<double>(result.requests.size()));
  EXPECT_NEAR(result.joules, 2 * (joules + setup.chip.idle_w.value * result.seconds),
              1e-9 * result.joules);
}

TEST(Ranking, ReplicasShareTheLoad) {
  RankingSetup setup = SmallModel();
  const Workload workload = PoissonArrivals(30'000, 1'000, 32, 0, 3);
  const RankingReport one = Report(Simulated(setup, workload), setup, 0);
  setup.replicas = 3;
  const RankingResult shared = Simulated(setup, workload);
  const RankingReport three = Report(shared, setup, 0);
  EXPECT_EQ(three.requests, 1'000);
  EXPECT_LT(three.latency_s.p99, one.latency_s.p99);
  // The first of each three went to the first replica.
  for (size_t i = 0; i < 334; ++i)
    EXPECT_NEAR(shared.requests[i].arrived_s, workload.requests[3 * i].at_s, 1e-9);
}

TEST(Ranking, MoreReplicasThanUsersAreIdle) {
  RankingSetup setup = SmallModel();
  const RankingResult one = Simulated(setup, ClosedLoop(1, 10, 10, 0));
  setup.replicas = 3;
  const RankingResult three = Simulated(setup, ClosedLoop(1, 10, 10, 0));
  EXPECT_DOUBLE_EQ(three.seconds, one.seconds);
  EXPECT_NEAR(three.joules - one.joules, 2 * setup.chip.idle_w.value * one.seconds, 1e-9);
}

TEST(Ranking, SaysWhyNot) {
  RankingSetup setup = SmallModel();
  setup.chip.memory.bytes.value = 1000;
  auto result = SimulateRanking(setup, Queries({0}, 1));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kNoCapacity);
  EXPECT_NE(result.error().message.find("does not fit"), std::string::npos);

  setup = SmallModel();
  result = SimulateRanking(setup, Queries({0, 1}, 65));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kOutOfRange) << result.error().message;

  setup.ranks = 2;
  result = SimulateRanking(setup, Queries({0}, 1));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace millpower::plan
