#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/test_operands.h"

namespace millpower::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(RmsNorm, ScalarAgreesWithFloat64AndAllSetsWithScalar) {
  Rng rng(1);
  for (int64_t group : {1, 15, 16, 40, 128, 1024, 1030}) {
    for (int64_t heads : {1, 3}) {
      const int64_t rows = 3, cols = group * heads;
      RmsNormArgs args;
      args.cols = cols;
      args.group = group;
      args.x_stride = cols + 2;
      args.y_stride = cols + 1;
      args.epsilon = 1e-6f;
      const auto x = RandomFloats(rng, (rows - 1) * args.x_stride + cols, -3, 3);
      const auto weight = RandomFloats(rng, group);
      args.x = x.data();
      args.weight = weight.data();
      const std::vector<float> empty(static_cast<size_t>((rows - 1) * args.y_stride + cols), -7);

      std::vector<float> expected = empty;
      args.y = expected.data();
      ScalarKernels().rms_norm(args, 0, rows);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t c = 0; c < cols; ++c) {
          const float* head = x.data() + row * args.x_stride + c / group * group;
          double squares = 0;
          for (int64_t i = 0; i < group; ++i) squares += static_cast<double>(head[i]) * head[i];
          const double y = head[c % group] /
                           std::sqrt(squares / static_cast<double>(group) + 1e-6) *
                           weight[static_cast<size_t>(c % group)];
          EXPECT_NEAR(expected[static_cast<size_t>(row * args.y_stride + c)], y, 1e-6);
        }
      }
      ForEachSet([&](const KernelSet& set) {
        std::vector<float> y = empty;
        args.y = y.data();
        set.rms_norm(args, 1, rows);  // in two ranges
        set.rms_norm(args, 0, 1);
        EXPECT_TRUE(SameBits(y, expected)) << "group " << group;

        RmsNormArgs in_place = args;
        std::vector<float> both = x;
        in_place.x = in_place.y = both.data();
        in_place.y_stride = in_place.x_stride;
        set.rms_norm(in_place, 0, rows);
        for (int64_t row = 0; row < rows; ++row)
          EXPECT_EQ(
              std::memcmp(both.data() + row * args.x_stride, expected.data() + row * args.y_stride,
                          static_cast<size_t>(cols) * sizeof(float)),
              0);
      });
    }
  }
}

TEST(Rope, RotatesByTheTable) {
  Rng rng(2);
  for (int64_t half : {1, 12, 16, 40, 64}) {
    const int64_t rows = 4, heads = 3;
    const std::vector<int32_t> positions = {0, 1, 777, 131071};
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < half; ++i)
      inv_freq.push_back(std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(half)));
    RopeTableArgs table_args;
    table_args.positions = positions.data();
    table_args.inv_freq = inv_freq.data();
    table_args.half = half;
    table_args.scale = 1.25f;
    const auto size = static_cast<size_t>(rows * 2 * half);
    std::vector<float> expected_table(size);
    table_args.table = expected_table.data();
    ScalarKernels().rope_table(table_args, 0, rows);

    RopeArgs args;
    args.heads = heads;
    args.half = half;
    args.x_stride = heads * 2 * half + 3;
    args.table = expected_table.data();
    const auto x = RandomFloats(rng, (rows - 1) * args.x_stride + heads * 2 * half);
    std::vector<float> expected = x;
    args.x = expected.data();
    ScalarKernels().rope(args, 0, rows);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(positions[static_cast<size_t>(row)]) *
                            inv_freq[static_cast<size_t>(i)];
        const double cos = 1.25 * std::cos(static_cast<double>(angle));
        const double sin = 1.25 * std::sin(static_cast<double>(angle));
        for (int64_t head = 0; head < heads; ++head) {
          const auto at = static_cast<size_t>(row * args.x_stride + head * 2 * half + i);
          const auto other = at + static_cast<size_t>(half);
          EXPECT_NEAR(expected[at], x[at] * cos - x[other] * sin, 1e-6);
          EXPECT_NEAR(expected[other], x[other] * cos + x[at] * sin, 1e-6);
        }
      }
    }
    ForEachSet([&](const KernelSet& set) {
      std::vector<float> table(size);
      table_args.table = table.data();
      set.rope_table(table_args, 0, 2);
      set.rope_table(table_args, 2, rows);
      EXPECT_TRUE(SameBits(table, expected_table));
      std::vector<float> y = x;
      args.x = y.data();
      set.rope(args, 3, rows);
      set.rope(args, 0, 3);
      EXPECT_TRUE(SameBits(y, expected)) << "half " << half;
    });
  }
}

TEST(ArgMax, LowestOfEqualsAndNeverNaN) {
  struct Row {
    std::vector<float> x;
    int64_t expected;
  };
  std::vector<Row> rows = {
      {{5}, 0},
      {{NAN}, 0},
      {{NAN, -kInf}, 1},
      {{NAN, 1, NAN, 2, 2}, 3},
      {{-0.0f, 0.0f}, 0},
      {{-kInf, -kInf}, 0},
      {{1, kInf, kInf, NAN}, 1},
      {std::vector<float>(100, NAN), 0},
  };
  Row late{std::vector<float>(100, 1.0f), 96};  // in the part beyond whole vectors
  late.x[96] = late.x[99] = 3;
  late.x[40] = NAN;
  rows.push_back(late);
  Row lanes{std::vector<float>(64, 0.0f), 17};  // equals in other lanes and vectors
  lanes.x[17] = lanes.x[18] = lanes.x[32] = lanes.x[33] = 1;
  rows.push_back(lanes);
  ForEachSet([&](const KernelSet& set) {
    for (const Row& row : rows)
      EXPECT_EQ(set.argmax(row.x.data(), static_cast<int64_t>(row.x.size())), row.expected);
  });

  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    auto x = RandomFloats(rng, 1 + static_cast<int64_t>(rng.Below(90)));
    for (float& value : x) {
      value = std::round(value * 8);
      if (rng.Below(10) == 0) value = rng.Below(2) ? NAN : -kInf;
    }
    const auto n = static_cast<int64_t>(x.size());
    const int64_t expected = ScalarKernels().argmax(x.data(), n);
    ForEachSet([&](const KernelSet& set) { EXPECT_EQ(set.argmax(x.data(), n), expected); });
  }
}

TEST(SumExp, ScalarAgreesWithFloat64AndAllSetsWithScalar) {
  Rng rng(4);
  for (int64_t n : {1, 15, 16, 17, 1000, 1003}) {
    auto x = RandomFloats(rng, n, -9, 9);
    if (n > 16) x[7] = -kInf;
    double expected = 0;
    for (float value : x) expected += std::exp((static_cast<double>(value) - 9) * 1.5);
    const float scalar = ScalarKernels().sum_exp(x.data(), n, 9, 1.5f);
    EXPECT_NEAR(scalar, expected, expected * 1e-5);
    ForEachSet(
        [&](const KernelSet& set) { EXPECT_EQ(set.sum_exp(x.data(), n, 9, 1.5f), scalar) << n; });
  }
}

TEST(SelectKernels, KnowsItsNames) {
  EXPECT_EQ(*SelectKernels("auto"), AvailableKernels().front());
  EXPECT_EQ(*SelectKernels("scalar"), &ScalarKernels());
  EXPECT_EQ(AvailableKernels().back(), &ScalarKernels());
  EXPECT_EQ(SelectKernels("mmx").error().code, ErrorCode::kInvalidArgument);
  for (const auto& [name, set] : {std::pair{"avx2", Avx2Kernels()}, {"avx512", Avx512Kernels()}}) {
    const auto selected = SelectKernels(name);
    if (set != nullptr) {
      ASSERT_TRUE(selected);
      EXPECT_EQ(*selected, set);
      EXPECT_STREQ((*selected)->name, name);
    } else {
      ASSERT_FALSE(selected);
      EXPECT_EQ(selected.error().code, ErrorCode::kUnsupported);
    }
  }
}

}  // namespace
}  // namespace millpower::kernels
