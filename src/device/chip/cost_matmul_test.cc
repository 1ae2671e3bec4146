#include "device/chip/cost_matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace millpower::device::chip {
namespace {

double Length(const Work& work) {
  double length = work.issue_s;
  for (const Wave& wave : work.waves)
    length +=
        static_cast<double>(wave.count) * (*std::ranges::max_element(wave.busy_s) + wave.latency_s);
  return length;
}

MatMulShape Shape(int64_t rows, int64_t channels, int64_t steps, DType weights = DType::kBf16,
                  bool quantised = false) {
  MatMulShape shape;
  shape.rows = rows;
  shape.channels = channels;
  shape.steps = steps;
  shape.weights = weights;
  shape.quantised = quantised;
  return shape;
}

double Seconds(const Chip& chip, const MatMulShape& shape) {
  const auto work = MatMulWork(chip, shape);
  EXPECT_TRUE(work) << work.error().message;
  return work ? Length(*work) : NAN;
}

struct Golden {
  const char* chip;
  DType weights;
  bool quantised;
  int64_t rows, channels, steps;
  double microseconds;
};

// Printed by tools/goldens/make_matmul_times.py, which works the model out a second time.
constexpr Golden kGoldens[] = {
    {"h100", DType::kBf16, false, 1, 4096, 4096, 14.0425},
    {"h100", DType::kBf16, false, 16, 64, 16384, 6.1963},
    {"h100", DType::kBf16, false, 257, 16384, 7168, 95.3809},
    {"h100", DType::kBf16, false, 4096, 12288, 12288, 1586.4386},
    {"h100", DType::kBf16, false, 4096, 32, 4096, 10.1105},
    {"h100", DType::kBf16, false, 129, 1281, 1000, 4.5551},
    {"h100", DType::kF8E4M3, true, 7, 65536, 8192, 199.2882},
    {"h100", DType::kF8E4M3, true, 100, 5120, 5120, 16.3234},
    {"h100", DType::kF8E4M3, true, 8192, 51200, 64, 387.2484},
    {"h100", DType::kF8E4M3, true, 16384, 8192, 16384, 3416.5459},
    {"a100", DType::kBf16, false, 1, 2048, 512, 4.0632},
    {"a100", DType::kBf16, false, 2, 1024, 12288, 21.1246},
    {"a100", DType::kBf16, false, 8192, 16384, 32, 270.6671},
    {"a100", DType::kBf16, false, 512, 7168, 4096, 169.2853},
    {"a100", DType::kQ8_0, true, 4, 1024, 7168, 15.0041},
    {"a100", DType::kQ8_0, true, 2048, 5120, 3072, 136.4692},
    {"a100", DType::kQ8_0, false, 48, 128, 65536, 31.7825},
    {"a100", DType::kQ8_0, false, 768, 7168, 4096, 223.9269},
    {"a100", DType::kQ4_0, false, 8, 65536, 16384, 481.0602},
};

TEST(MatMulCost, AgreesWithTheModelWorkedOutASecondTime) {
  for (const Golden& golden : kGoldens) {
    const Chip chip = *ReadChip(golden.chip);
    MatMulShape shape =
        Shape(golden.rows, golden.channels, golden.steps, golden.weights, golden.quantised);
    const double weight = MatMulWork(chip, shape)->traffic.weights;
    shape.program_weight_bytes = 6 * weight;
    double seconds = Seconds(chip, shape);
    if (golden.weights == DType::kF8E4M3)
      seconds += Length(*QuantiseWork(chip, golden.rows, golden.steps, golden.weights));
    EXPECT_NEAR(seconds * 1e6, golden.microseconds, 1e-4 * golden.microseconds)
        << golden.chip << " " << golden.rows << " x " << golden.channels << " x " << golden.steps;
  }
}

TEST(MatMulCost, WavesAreOfAsManyTilesAsCoresHold) {
  Chip chip = *ReadChip("h100");
  chip.matrix[static_cast<size_t>(MatrixType::kBf16)].tiles = {{128, 128, 64, 4, 1}};
  // 16 x 32 tiles on 132 cores: three full waves, and 116 tiles.
  const auto work = MatMulWork(chip, Shape(2048, 4096, 1024));
  ASSERT_TRUE(work);
  ASSERT_EQ(work->waves.size(), 2);
  EXPECT_EQ(work->waves[0].count, 3);
  EXPECT_EQ(work->waves[1].count, 1);
  // One more row is one more row of tiles: a wave more.
  const auto more = MatMulWork(chip, Shape(2049, 4096, 1024));
  ASSERT_TRUE(more);
  EXPECT_EQ(more->waves[0].count, 4);
  EXPECT_GT(Length(*more), 1.1 * Length(*work));
  EXPECT_EQ(work->traffic.matrix_ops, 2.0 * 2048 * 4096 * 1024);
}

TEST(MatMulCost, TheTileMenuCounts) {
  Chip chip = *ReadChip("h100");
  const double with_all = Seconds(chip, Shape(4096, 4096, 4096));
  auto& tiles = chip.matrix[static_cast<size_t>(MatrixType::kBf16)].tiles;
  tiles = {{64, 64, 64, 4, 1}};
  EXPECT_GT(Seconds(chip, Shape(4096, 4096, 4096)), 1.3 * with_all);
  // A tile for other products only is taken where there is no other.
  tiles = {{64, 64, 64, 4, 1}, {128, 256, 64, 4, 1, 1, 100}};
  EXPECT_GT(Seconds(chip, Shape(4096, 4096, 4096)), 1.3 * with_all);
  tiles.erase(tiles.begin());
  EXPECT_LT(Seconds(chip, Shape(4096, 4096, 4096)), 1.1 * with_all);
}

TEST(MatMulCost, FewWeightsStayInTheCache) {
  const Chip chip = *ReadChip("h100");
  MatMulShape shape = Shape(1, 1024, 1024);
  const auto cold = MatMulWork(chip, shape);
  shape.program_weight_bytes = 10e6;
  const auto warm = MatMulWork(chip, shape);
  ASSERT_TRUE(cold && warm);
  EXPECT_EQ(cold->traffic.weights, 1024.0 * 1024 * 2);
  EXPECT_EQ(warm->traffic.weights, 0);
  EXPECT_LT(Length(*warm), Length(*cold));
}

TEST(MatMulCost, ReadsOfWeightsTakeWhatTheMemoryGives) {
  const Chip chip = *ReadChip("h100");
  const auto work = MatMulWork(chip, Shape(8, 65536, 65536));
  ASSERT_TRUE(work);
  const double rate = 65536.0 * 65536 * 2 / Length(*work) / chip.memory.bytes_per_s.value;
  EXPECT_GT(rate, 0.8);
  EXPECT_LT(rate, chip.Fitted("gemm_bf16", "memory_efficiency", 0));
  EXPECT_GT(work->waves[0].weight_share, 0.99);
}

TEST(MatMulCost, GatedProductsHaveHalfTheResults) {
  const Chip chip = *ReadChip("h100");
  MatMulShape shape = Shape(32768, 8192, 1024);
  const auto whole = MatMulWork(chip, shape);
  shape.gated = true;
  const auto gated = MatMulWork(chip, shape);
  EXPECT_EQ(gated->traffic.memory_written, whole->traffic.memory_written / 2);
}

TEST(MatMulCost, NothingToDoTakesItsStart) {
  const Chip chip = *ReadChip("h100");
  const auto work = MatMulWork(chip, Shape(0, 4096, 4096));
  ASSERT_TRUE(work);
  EXPECT_TRUE(work->waves.empty());
}

TEST(MatMulCost, HugeProductsAreFiniteAndInOrder) {
  for (const std::string& name : BuiltInChips()) {
    const Chip chip = *ReadChip(name);
    if (MatrixRate(chip, chip.activation_type) <= 0) continue;
    double before = 0;
    for (const int64_t rows : {1, 100, 10000, 1000000, 1000000000}) {
      const double seconds = Seconds(chip, Shape(rows, 1 << 20, 1 << 20));
      EXPECT_TRUE(std::isfinite(seconds)) << name;
      EXPECT_GT(seconds, before) << name << " " << rows;
      before = seconds;
    }
  }
}

TEST(MatMulCost, NumbersThatTheChipDoesNotMultiplyAreRefused) {
  Chip chip = *ReadChip("h100");
  for (MatrixEngine& engine : chip.matrix) engine.ops_per_s.value = 0;
  const auto work = MatMulWork(chip, Shape(1, 64, 64));
  ASSERT_FALSE(work);
  EXPECT_EQ(work.error().code, ErrorCode::kUnsupported);
}

TEST(QuantiseCost, IsAKernelWhereItsTimeIsKnown) {
  const Chip chip = *ReadChip("h100");
  const auto one = QuantiseWork(chip, 132, 4096, DType::kF8E4M3);
  const auto two = QuantiseWork(chip, 133, 4096, DType::kF8E4M3);
  ASSERT_TRUE(one && two);
  // A core takes a row at a time.
  EXPECT_NEAR((Length(*two) - two->issue_s) / (Length(*one) - one->issue_s), 2, 1e-9);
  EXPECT_FALSE(QuantiseWork(*ReadChip("a100"), 132, 4096, DType::kI8));
}

}  // namespace
}  // namespace millpower::device::chip
