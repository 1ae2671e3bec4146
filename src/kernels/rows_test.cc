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
  for (const auto& [name, set] : {std::pair{"avx2", Avx2Kernels()},
                                  {"avx512", Avx512Kernels()},
                                  {"avx512vnni", Avx512VnniKernels()}}) {
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

// What a quantised row holds, read back by docs/isa/layout.md.
struct QuantisedView {
  QuantisedView(const AlignedBytes& rows, int64_t row, int64_t k)
      : bytes(rows.data() + row * isa::QuantisedRowBytes(k)), k(k) {}
  int Q(int64_t i) const { return static_cast<int8_t>(bytes[i / 32 * 48 + i % 32]); }
  float Scale(int64_t group) const { return Load(bytes + group * 48 + 32, DType::kF32); }
  // Of a group: all, the first half, the second.
  int32_t Sum(int64_t group, int64_t which) const {
    int32_t sum;
    std::memcpy(&sum, bytes + group * 48 + 36 + which * 4, sizeof sum);
    return sum;
  }
  const std::byte* bytes;
  int64_t k;
};

TEST(Quantise, RoundsToTheNearestOf255Steps) {
  Rng rng(21);
  for (const int64_t k : {1, 31, 32, 40, 64, 100, 1024}) {
    const std::vector<float> x = RandomFloats(rng, 3 * k, -5, 5);
    const AlignedBytes rows = QuantiseRows(x.data(), k, 3, k, DType::kQ8_0);
    for (int64_t row = 0; row < 3; ++row) {
      const QuantisedView view(rows, row, k);
      for (int64_t i = 0; i < (k + 31) / 32 * 32; ++i) {
        const double value = i < k ? static_cast<double>(x[static_cast<size_t>(row * k + i)]) : 0.0;
        EXPECT_NEAR(view.Q(i) * static_cast<double>(view.Scale(i / 32)), value,
                    0.5001 * static_cast<double>(view.Scale(i / 32)));
        EXPECT_LE(std::abs(view.Q(i)), 127);
      }
      for (int64_t group = 0; group < (k + 31) / 32; ++group) {
        int halves[] = {0, 0};
        for (int64_t i = 0; i < 32; ++i) halves[i / 16] += view.Q(group * 32 + i);
        EXPECT_EQ(view.Sum(group, 0), halves[0] + halves[1]);
        EXPECT_EQ(view.Sum(group, 1), halves[0]);
        EXPECT_EQ(view.Sum(group, 2), halves[1]);
      }
    }
  }
}

TEST(Quantise, ZerosTiniesAndWhatIsNotFinite) {
  std::vector<float> x(5 * 32, 0.0f);
  x[32] = 1e-42f;  // 127 / a overflows
  x[64] = NAN;
  x[65] = 3;
  x[96] = -INFINITY;
  x[128] = 3e38f;
  const AlignedBytes rows = QuantiseRows(x.data(), 160, 1, 160, DType::kQ8_0);
  const QuantisedView view(rows, 0, 160);
  EXPECT_EQ(view.Scale(0), 0);
  EXPECT_EQ(view.Scale(1), 0);
  EXPECT_TRUE(std::isnan(view.Scale(2)));
  EXPECT_TRUE(std::isnan(view.Scale(3)));
  EXPECT_EQ(view.Q(65), 0);
  EXPECT_EQ(view.Q(128), 127);
  EXPECT_FLOAT_EQ(view.Scale(4), 3e38f / 127);
}

TEST(Quantise, RoundsRowsToF8) {
  Rng rng(24);
  const int64_t k = 77, row_bytes = isa::QuantisedRowBytes(k, DType::kF8E4M3);
  EXPECT_EQ(row_bytes, 64 + 128);
  std::vector<float> x = RandomFloats(rng, 5 * k, -30, 30);
  std::fill_n(x.begin() + k, k, 0.0f);                                         // row 1
  x[static_cast<size_t>(2 * k + 3)] = NAN;                                     // row 2
  for (int64_t i = 0; i < k; ++i) x[static_cast<size_t>(3 * k + i)] = 1e-42f;  // 448 / a overflows
  ForEachSet([&](const KernelSet& set) {
    AlignedBytes y(5 * row_bytes);
    std::memset(y.data(), 0x55, static_cast<size_t>(y.size_bytes()));
    set.quantise({.x = x.data(), .y = y.data(), .k = k, .x_stride = k, .type = DType::kF8E4M3}, 0,
                 5);
    for (int64_t row = 0; row < 5; ++row) {
      const std::byte* bytes = y.data() + row * row_bytes;
      const float scale = Load(bytes, DType::kF32);
      float largest = 0;
      for (int64_t i = 0; i < k; ++i)
        largest = std::max(largest, std::abs(x[static_cast<size_t>(row * k + i)]));
      if (row == 2)
        EXPECT_TRUE(std::isnan(scale));
      else
        EXPECT_EQ(scale, row == 1 || row == 3 ? 0 : largest / 448);
      for (int64_t at = 4; at < row_bytes; ++at) {
        const int64_t i = at - 64;
        const bool zero = i < 0 || i >= k || row == 1 || row == 2 || row == 3;
        const float value = zero ? 0.0f : x[static_cast<size_t>(row * k + i)] * (448 / largest);
        EXPECT_EQ(static_cast<uint8_t>(bytes[at]), zero ? 0 : F32ToF8E4M3(value))
            << row << " " << i;
      }
    }
  });
}

TEST(Quantise, AllSetsGiveTheScalarBits) {
  Rng rng(22);
  for (int round = 0; round < 100; ++round) {
    const auto k = static_cast<int64_t>(1 + rng.Below(400));
    const auto rows = static_cast<int64_t>(1 + rng.Below(5));
    const int64_t stride = k + static_cast<int64_t>(rng.Below(3));
    std::vector<float> x = RandomFloats(rng, (rows - 1) * stride + k, -9, 9);
    for (float& value : x) {
      if (rng.Below(3) == 0) value = std::round(value * 2) / 2;  // ties
      if (rng.Below(300) == 0) value = rng.Below(2) ? NAN : INFINITY;
    }
    const AlignedBytes expected = QuantiseRows(x.data(), stride, rows, k, DType::kQ8_0);
    ForEachSet([&](const KernelSet& set) {
      AlignedBytes y(rows * isa::QuantisedRowBytes(k));
      set.quantise({.x = x.data(), .y = y.data(), .k = k, .x_stride = stride}, 0, rows);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t used = (k + 31) / 32 * 48;
        EXPECT_EQ(std::memcmp(y.data() + row * isa::QuantisedRowBytes(k),
                              expected.data() + row * isa::QuantisedRowBytes(k),
                              static_cast<size_t>(used)),
                  0)
            << "k " << k << " round " << round;
      }
    });
  }
}

TEST(Route, ChoosesTheLargestAndListsWhoWorksOnWhat) {
  Rng rng(23);
  for (int round = 0; round < 60; ++round) {
    const auto experts = static_cast<int64_t>(1 + rng.Below(140));
    const auto choices =
        static_cast<int64_t>(1 + rng.Below(static_cast<uint64_t>(std::min<int64_t>(experts, 32))));
    const auto rows = static_cast<int64_t>(1 + rng.Below(9));
    const bool normalise = rng.Below(2) != 0;
    std::vector<float> logits = RandomFloats(rng, rows * experts, -4, 4);
    for (float& logit : logits) {
      if (rng.Below(2)) logit = std::round(logit);  // equals
      if (rng.Below(40) == 0) logit = rng.Below(2) ? NAN : -INFINITY;
    }
    for (int64_t row = 0; row < rows; ++row) logits[static_cast<size_t>(row * experts)] = 0.5f;
    std::vector<int32_t> list(
        static_cast<size_t>(isa::ExpertListBytes(rows, choices, experts) / 4));
    std::vector<float> weights(static_cast<size_t>(rows * choices));
    RouteArgs args{.logits = logits.data(),
                   .list = list.data(),
                   .weights = weights.data(),
                   .rows = rows,
                   .experts = experts,
                   .choices = choices,
                   .logits_stride = experts,
                   .weights_stride = choices,
                   .normalise = normalise};
    ScalarKernels().route(args);

    std::vector<std::vector<int32_t>> work(static_cast<size_t>(experts));
    for (int64_t row = 0; row < rows; ++row) {
      const float* l = logits.data() + row * experts;
      std::vector<int64_t> order(static_cast<size_t>(experts));
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return l[a] > l[b] || (std::isnan(l[b]) && !std::isnan(l[a]));
      });
      double all = 0, chosen = 0;
      for (int64_t i = 0; i < experts; ++i)
        all += std::exp(static_cast<double>(l[i]) - l[order[0]]);
      for (int64_t j = 0; j < choices; ++j)
        chosen += std::exp(static_cast<double>(l[order[static_cast<size_t>(j)]]) - l[order[0]]);
      for (int64_t j = 0; j < choices; ++j) {
        const int64_t expert = order[static_cast<size_t>(j)];
        work[static_cast<size_t>(expert)].push_back(static_cast<int32_t>(row * choices + j));
        const double e = std::exp(static_cast<double>(l[expert]) - l[order[0]]);
        const double expected = e / (normalise ? chosen : all);
        const float weight = weights[static_cast<size_t>(row * choices + j)];
        if (std::isnan(expected))
          EXPECT_TRUE(std::isnan(weight));
        else
          EXPECT_NEAR(weight, expected, 1e-6) << "round " << round;
      }
    }
    size_t active = 0;
    for (int64_t expert = 0; expert < experts; ++expert) {
      const auto& wanted = work[static_cast<size_t>(expert)];
      const int32_t* begins = list.data() + isa::ExpertListBegins(experts) + expert;
      const int32_t* entries = list.data() + isa::ExpertListEntries(experts);
      EXPECT_EQ(std::vector<int32_t>(entries + begins[0], entries + begins[1]), wanted);
      if (wanted.empty()) continue;
      EXPECT_EQ(list[static_cast<size_t>(isa::kExpertListExperts) + active], expert);
      ++active;
    }
    EXPECT_EQ(list[isa::kExpertListActive], static_cast<int32_t>(active));

    ForEachSet([&](const KernelSet& set) {
      std::vector<int32_t> other_list(list.size());
      std::vector<float> other(weights.size());
      RouteArgs again = args;
      again.list = other_list.data();
      again.weights = other.data();
      set.route(again);
      EXPECT_EQ(other_list[0], list[0]);
      EXPECT_TRUE(SameBits(other, weights)) << "round " << round;
      const auto entries_at = isa::ExpertListBegins(experts);
      EXPECT_TRUE(
          std::equal(other_list.begin() + entries_at, other_list.end(), list.begin() + entries_at));
    });
  }
}

TEST(Combine, AllSetsWeighAndAdd) {
  Rng rng(24);
  for (int round = 0; round < 60; ++round) {
    const auto cols = static_cast<int64_t>(1 + rng.Below(70));
    const auto choices = static_cast<int64_t>(1 + rng.Below(9));
    const auto rows = static_cast<int64_t>(1 + rng.Below(5));
    const std::vector<float> x = RandomFloats(rng, rows * choices * cols);
    const std::vector<float> weights = RandomFloats(rng, rows * choices);
    const std::vector<float> residual = RandomFloats(rng, rows * cols);
    CombineArgs args{.x = x.data(),
                     .weights = weights.data(),
                     .residual = rng.Below(2) ? residual.data() : nullptr,
                     .cols = cols,
                     .choices = choices,
                     .x_stride = choices * cols,
                     .weights_stride = choices,
                     .residual_stride = cols,
                     .y_stride = cols};
    std::vector<float> expected(static_cast<size_t>(rows * cols));
    args.y = expected.data();
    ScalarKernels().combine(args, 0, rows);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t c = 0; c < cols; ++c) {
        double sum = args.residual ? residual[static_cast<size_t>(row * cols + c)] : 0.0f;
        for (int64_t j = 0; j < choices; ++j)
          sum += static_cast<double>(weights[static_cast<size_t>(row * choices + j)]) *
                 x[static_cast<size_t>((row * choices + j) * cols + c)];
        EXPECT_NEAR(expected[static_cast<size_t>(row * cols + c)], sum, 1e-5);
      }
    ForEachSet([&](const KernelSet& set) {
      std::vector<float> y(expected.size());
      args.y = y.data();
      set.combine(args, 0, rows);
      EXPECT_TRUE(SameBits(y, expected)) << "round " << round;
    });
  }
}

}  // namespace
}  // namespace millpower::kernels
