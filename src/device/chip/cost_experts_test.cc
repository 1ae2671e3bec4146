#include "device/chip/cost_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "device/chip/machine.h"
#include "device/chip/routing.h"
#include "isa/opcodes.h"
#include "isa/program.h"

namespace millpower::device::chip {
namespace {

Figure Of(double value) { return {value, value, value, "test", false}; }

// The figures of chips/h100.toml that count here, and the constants that the golden rows were made
// with.
Chip TestChip() {
  Chip chip;
  chip.name = "test";
  chip.cores = Of(132);
  chip.memory.bytes_per_s = Of(3.35e12);
  chip.memory.efficiency = Of(0.9);
  for (const MatrixType type : {MatrixType::kBf16, MatrixType::kInt8}) {
    MatrixEngine& engine = chip.matrix[static_cast<size_t>(type)];
    engine.ops_per_s = Of(type == MatrixType::kBf16 ? 989.4e12 : 1978.9e12);
    engine.tiles = {{64, 64, 64}, {64, 128, 64}, {128, 64, 64}, {128, 128, 64}, {128, 256, 64}};
  }
  const auto constants = [](std::initializer_list<std::pair<const char*, double>> list) {
    std::map<std::string, Figure> all;
    for (const auto& [name, value] : list) all[name] = Of(value);
    return all;
  };
  chip.fitted["moe"] = constants({{"kernel_s", 4.71e-6},
                                  {"sort_s", 8.54e-11},
                                  {"memory_efficiency", 0.839},
                                  {"rows_efficiency", 0.431},
                                  {"tile_s", 1.73e-6},
                                  {"core_bytes_per_s", 76.1e9},
                                  {"matrix_efficiency", 0.7},
                                  {"away_share", 1}});
  chip.fitted["moe_8bit"] = constants({{"kernel_s", 2.42e-6},
                                       {"memory_efficiency", 0.831},
                                       {"rows_efficiency", 0.0839},
                                       {"tile_s", 1.4e-6},
                                       {"core_bytes_per_s", 64.3e9},
                                       {"matrix_efficiency", 0.7}});
  return chip;
}

// How long a machine that does nothing else takes for it.
double Length(const Work& work) {
  isa::Program program;
  std::array<std::vector<const Work*>, isa::kStreamCount> works;
  const auto compute = static_cast<size_t>(isa::Stream::kCompute);
  program.streams[compute].push_back({isa::Opcode::kExpertMatMul, {}, {}});
  works[compute].push_back(&work);
  for (size_t stream = 0; stream < isa::kStreamCount; ++stream) {
    program.streams[stream].push_back({isa::Opcode::kEnd, {}, {}});
    works[stream].push_back(nullptr);
  }
  const auto played = Machine(0).Play(program, works, nullptr);
  EXPECT_TRUE(played) << played.error().message;
  return played ? played->end_s : 0;
}

struct Layer {
  int64_t rows, hidden, inner, choices, experts, split, ranks;
  double exponent;  // 0: balanced
  bool eight_bit;
  double microseconds;
};

double Predict(const Chip& chip, const Layer& layer) {
  RoutingModel routing;
  routing.experts = layer.exponent > 0 ? Popularity::kDrawn : Popularity::kBalanced;
  routing.expert_exponent = layer.exponent;
  routing.expert_ranks = layer.ranks;
  const auto counts = RowsOfExperts(routing, layer.rows, layer.choices, layer.experts);
  const std::vector<int64_t> mine(counts.begin(), counts.begin() + layer.experts / layer.ranks);
  // The compiler fills rows up to whole 16.
  const int64_t inner = (layer.inner / layer.split + 15) / 16 * 16;

  ExpertShape shape;
  shape.rows = layer.rows;
  shape.choices = layer.choices;
  shape.experts = layer.experts;
  double length = Length(RouteWork(chip, shape));
  shape.away = static_cast<double>(layer.rows * layer.choices -
                                   std::accumulate(mine.begin(), mine.end(), int64_t{0}));
  shape.quantised = layer.eight_bit;
  shape.weights = layer.eight_bit ? DType::kI8 : DType::kBf16;
  shape.channels = 2 * inner;
  shape.steps = layer.hidden;
  shape.gated = true;
  length += Length(*ExpertMatMulWork(chip, shape, mine));
  shape.channels = layer.hidden;
  shape.steps = inner;
  shape.gated = false;
  shape.own_columns = true;
  length += Length(*ExpertMatMulWork(chip, shape, mine));
  ExpertShape combine;
  combine.rows = layer.rows;
  combine.choices = layer.choices;
  combine.channels = layer.hidden;
  length += Length(CombineWork(chip, combine));
  return length * 1e6;
}

// Made with the program that the constants were fitted with.
TEST(ExpertCost, AgreesWithTheModelThatWasFitted) {
  const Chip chip = TestChip();
  const Layer layers[] = {
      {1, 2048, 768, 8, 128, 1, 1, 0, false, 59.9094},
      {16, 4096, 1536, 8, 128, 1, 1, 0, false, 1754.5749},
      {256, 4096, 14336, 2, 8, 1, 1, 0, false, 1088.6020},
      {4096, 2048, 768, 8, 128, 1, 1, 0, false, 838.5718},
      {12288, 2048, 768, 8, 128, 1, 64, 0, false, 931.5097},
      {8192, 6144, 2560, 8, 160, 16, 1, 0, false, 2011.3355},
      {2048, 2816, 704, 8, 128, 32, 1, 0, false, 172.8700},
      {4, 2048, 512, 8, 256, 1, 2, 1.01, false, 69.0409},
      {160, 6144, 2048, 8, 256, 1, 8, 1.2, false, 791.9166},
      {3072, 5120, 8192, 1, 16, 2, 1, 1.2, false, 1131.8092},
      {64, 6144, 16384, 2, 8, 4, 1, 1.01, false, 468.5324},
      {32, 4096, 1536, 8, 128, 4, 1, 1.2, true, 208.8108},
      {4096, 3072, 1024, 8, 256, 1, 1, 0, true, 1908.4564},
  };
  for (const Layer& layer : layers)
    EXPECT_NEAR(Predict(chip, layer), layer.microseconds, 1e-4 * layer.microseconds)
        << layer.rows << " rows, " << layer.hidden << " x " << layer.inner;
}

TEST(ExpertCost, FewerTilesThanCoresTakeOneTile) {
  const Chip chip = TestChip();
  ExpertShape shape;
  shape.rows = 1, shape.choices = 1, shape.experts = 1, shape.channels = 64, shape.steps = 4096;
  const std::vector<int64_t> rows = {1};
  const auto work = ExpertMatMulWork(chip, shape, rows);
  ASSERT_TRUE(work) << work.error().message;
  ASSERT_EQ(work->waves.size(), 1);
  EXPECT_EQ(work->waves[0].count, 1);
  // 16 rows and 64 channels of 4096 bf16 steps, loaded by one core.
  EXPECT_NEAR(work->waves[0].busy(Unit::kScratch), 1.73e-6 + 4096.0 * 80 * 2 / 76.1e9, 1e-12);
  EXPECT_EQ(work->traffic.weights, 64.0 * 4096 * 2);
}

TEST(ExpertCost, OnlyExpertsWithRowsAreRead) {
  const Chip chip = TestChip();
  ExpertShape shape;
  shape.rows = 4, shape.choices = 2, shape.experts = 8, shape.channels = 2048, shape.steps = 2048;
  const std::vector<int64_t> few = {4, 4, 0, 0, 0, 0, 0, 0}, all(8, 1), none(8, 0);
  const double weight = 2048.0 * 2048 * 2;
  EXPECT_EQ(ExpertMatMulWork(chip, shape, few)->traffic.weights, 2 * weight);
  EXPECT_EQ(ExpertMatMulWork(chip, shape, all)->traffic.weights, 8 * weight);
  EXPECT_EQ(ExpertMatMulWork(chip, shape, none)->traffic.weights, 0);
  EXPECT_NEAR(Length(*ExpertMatMulWork(chip, shape, none)), 4.71e-6, 1e-12);
}

TEST(ExpertCost, TheTileMenuCounts) {
  Chip chip = TestChip();
  const Layer layer = {4096, 2048, 768, 8, 128, 1, 1, 0, false, 0};
  const double with_all = Predict(chip, layer);
  chip.matrix[static_cast<size_t>(MatrixType::kBf16)].tiles = {{64, 64, 64}};
  EXPECT_GT(Predict(chip, layer), 1.2 * with_all);
}

TEST(ExpertCost, NumbersThatTheChipDoesNotMultiplyAreRefused) {
  Chip chip = TestChip();
  for (MatrixEngine& engine : chip.matrix) engine.ops_per_s = Of(0);
  ExpertShape shape;
  shape.rows = 1, shape.choices = 1, shape.experts = 1, shape.channels = 64, shape.steps = 64;
  const auto work = ExpertMatMulWork(chip, shape, std::vector<int64_t>{1});
  ASSERT_FALSE(work);
  EXPECT_EQ(work.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(work.error().message.find("bf16"), std::string::npos) << work.error().message;
}

RoutingModel Drawn(double exponent, int64_t ranks) {
  RoutingModel model;
  model.experts = Popularity::kDrawn;
  model.expert_exponent = exponent;
  model.expert_ranks = ranks;
  return model;
}

TEST(Routing, DrawnLoadsAreThoseOfTheModelThatWasFitted) {
  using Counts = std::vector<int64_t>;
  EXPECT_EQ(RowsOfExperts(Drawn(1.01, 4), 4, 2, 16),
            (Counts{0, 2, 0, 2, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0}));
  EXPECT_EQ(RowsOfExperts(Drawn(1.2, 2), 64, 2, 16),
            (Counts{2, 1, 1, 13, 7, 24, 33, 17, 2, 9, 6, 3, 2, 3, 4, 1}));
  EXPECT_EQ(RowsOfExperts(Drawn(1.01, 1), 3, 2, 8), (Counts{0, 0, 0, 1, 0, 3, 2, 0}));
}

TEST(Routing, DrawnLoadsAddUpAndTheFirstRankHasTheMost) {
  for (const int64_t rows : {1, 3, 17, 100, 5000})
    for (const int64_t ranks : {1, 4, 32})
      for (const double exponent : {0.5, 1.0, 1.2}) {
        const auto counts = RowsOfExperts(Drawn(exponent, ranks), rows, 6, 64);
        EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), rows * 6);
        EXPECT_LE(*std::ranges::max_element(counts), rows);
        EXPECT_GE(*std::ranges::min_element(counts), 0);
        const auto each = static_cast<ptrdiff_t>(64 / ranks);
        const auto sum = [&](ptrdiff_t rank) {
          return std::accumulate(counts.begin() + rank * each, counts.begin() + (rank + 1) * each,
                                 int64_t{0});
        };
        for (ptrdiff_t rank = 1; rank < ranks; ++rank) EXPECT_GE(sum(0), sum(rank));
      }
}

TEST(Routing, BalancedRowsLieAStrideApart) {
  RoutingModel model;
  model.experts = Popularity::kBalanced;
  using Counts = std::vector<int64_t>;
  EXPECT_EQ(RowsOfExperts(model, 3, 2, 16),
            (Counts{1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0}));
  EXPECT_EQ(RowsOfExperts(model, 20, 2, 16),
            (Counts{3, 3, 3, 3, 2, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2}));
}

}  // namespace
}  // namespace millpower::device::chip
