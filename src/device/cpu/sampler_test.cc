#include "device/cpu/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>

#include "base/rng.h"
#include "isa/sampling.h"

namespace millpower::device::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Params {
  float temperature = 1;
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;
  uint64_t seed = 1;
  int32_t counter = 0;
  int32_t logprobs = -1;
  int32_t target = -1;
};

std::vector<int32_t> Words(const Params& params) {
  std::vector<int32_t> words(isa::kSampleParamWords, 0);
  words[isa::kSampleTemperature] = isa::WordOf(params.temperature);
  words[isa::kSampleTopP] = isa::WordOf(params.top_p);
  words[isa::kSampleMinP] = isa::WordOf(params.min_p);
  words[isa::kSampleTopK] = params.top_k;
  words[isa::kSampleSeedLow] = static_cast<int32_t>(params.seed);
  words[isa::kSampleSeedHigh] = static_cast<int32_t>(params.seed >> 32);
  words[isa::kSampleCounter] = params.counter;
  words[isa::kSampleLogprobs] = params.logprobs;
  words[isa::kSampleTarget] = params.target;
  return words;
}

using Record = std::vector<int32_t>;

// By every kernel set, which must agree.
Record Sample(const std::vector<float>& logits, const Params& params) {
  Record expected;
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    Sampler sampler(*set, std::ssize(logits));
    Record record(isa::kSampleRecordWords, -1);
    sampler.Run(logits, Words(params).data(), {}, record.data());
    if (expected.empty()) expected = record;
    EXPECT_EQ(record, expected) << set->name;
  }
  return expected;
}

int32_t Draw(const std::vector<float>& logits, const Params& params) {
  return Sample(logits, params)[isa::kRecordToken];
}

// The definition in sampler.h, in float64.
struct Naive {
  std::vector<int32_t> tokens;  // those kept, in the order in which they are drawn
  std::vector<double> weights;

  Naive(const std::vector<float>& logits, const Params& params) {
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    auto weight = [&](int32_t token) {
      const float max = *std::ranges::max_element(logits);
      return std::exp(static_cast<double>(logits[static_cast<size_t>(token)] - max) /
                      static_cast<double>(params.temperature));
    };
    const bool some_k = params.top_k > 0 && params.top_k < std::ssize(logits);
    if (!some_k && params.top_p >= 1 && params.min_p <= 0) {  // in the vocabulary's order
      tokens = order;
      for (const int32_t token : tokens) weights.push_back(weight(token));
      return;
    }
    std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    if (some_k) order.resize(static_cast<size_t>(params.top_k));
    double total = 0, before = 0;
    for (const int32_t token : order) total += weight(token);
    for (const int32_t token : order) {
      const double w = weight(token);
      const bool enough = params.top_p < 1 && before >= static_cast<double>(params.top_p) * total;
      if (!tokens.empty() && (enough || w < static_cast<double>(params.min_p))) break;
      tokens.push_back(token);
      weights.push_back(w);
      before += w;
    }
  }

  int32_t Draw(double uniform) const {
    double left = uniform * std::accumulate(weights.begin(), weights.end(), 0.0);
    size_t drawn = 0;
    while (drawn + 1 < tokens.size() && left >= weights[drawn]) left -= weights[drawn++];
    return tokens[drawn];
  }
};

std::vector<float> RandomLogits(Rng& rng, size_t size, float width) {
  std::vector<float> logits(size);
  for (float& logit : logits) logit = rng.Uniform(-width, width);
  return logits;
}

TEST(Sampler, DrawsAsOftenAsIsLikely) {
  const std::vector<float> logits = {0.5f, -1, 2, 0, 1.2f, -0.3f, 0.5f, 1.9f};
  constexpr int kDraws = 40000;
  for (const Params& params :
       {Params{}, Params{.temperature = 0.5f}, Params{.temperature = 3}, Params{.top_k = 5},
        Params{.top_p = 0.8f}, Params{.min_p = 0.2f},
        Params{.temperature = 1.3f, .top_p = 0.95f, .min_p = 0.1f, .top_k = 6}}) {
    const Naive naive(logits, params);
    const double total = std::accumulate(naive.weights.begin(), naive.weights.end(), 0.0);
    std::vector<int> counts(logits.size(), 0);
    Sampler sampler(kernels::ScalarKernels(), std::ssize(logits));
    Record record(isa::kSampleRecordWords);
    Params draw = params;
    for (draw.counter = 0; draw.counter < kDraws; ++draw.counter) {
      sampler.Run(logits, Words(draw).data(), {}, record.data());
      ++counts[static_cast<size_t>(record[isa::kRecordToken])];
    }
    double chi_square = 0;
    int drawn = 0;
    for (size_t i = 0; i < naive.tokens.size(); ++i) {
      const double expected = kDraws * naive.weights[i] / total;
      const int count = counts[static_cast<size_t>(naive.tokens[i])];
      chi_square += (count - expected) * (count - expected) / expected;
      drawn += count;
    }
    EXPECT_EQ(drawn, kDraws);      // nothing else was drawn
    EXPECT_LT(chi_square, 24.33);  // exceeded once in a thousand with 7 degrees of freedom
  }
}

TEST(Sampler, EqualsTheNaiveOne) {
  int near_a_boundary = 0;
  for (uint64_t seed = 1; seed <= 1500; ++seed) {
    Rng rng(seed);
    const size_t size = rng.Below(4) == 0 ? 1 + rng.Below(5000) : 1 + rng.Below(60);
    std::vector<float> logits = RandomLogits(rng, size, rng.Uniform(0.1f, 12));
    if (rng.Below(3) == 0)  // ties, many of them
      for (float& logit : logits) logit = std::round(logit);
    if (rng.Below(4) == 0) logits[rng.Below(size)] = -kInfinity;
    if (std::ranges::max(logits) == -kInfinity) continue;
    Params params;
    params.temperature = rng.Uniform(0.2f, 3);
    if (rng.Below(2) == 0) params.top_k = static_cast<int32_t>(rng.Below(size + 3));
    if (rng.Below(2) == 0) params.top_p = rng.Uniform(0.001f, 1);
    if (rng.Below(2) == 0) params.min_p = rng.Uniform(0, 0.3f);
    params.seed = rng.Next();
    params.counter = static_cast<int32_t>(rng.Below(1000));
    const int32_t drawn = Draw(logits, params);
    const double uniform =
        static_cast<double>(RandomUniform(params.seed, static_cast<uint32_t>(params.counter)));
    // float32 sums are off by some 1e-6; where the naive one's choice hangs on that, either will
    // do.
    const Naive naive(logits, params);
    if (drawn == naive.Draw(uniform)) continue;
    ++near_a_boundary;
    bool explained = false;
    for (const double by : {-1e-5, 1e-5}) {
      for (const double keep : {-1e-5, 0.0, 1e-5}) {
        Params other = params;
        if (params.top_p < 1) other.top_p *= static_cast<float>(1 + keep);
        if (params.min_p > 0) other.min_p *= static_cast<float>(1 + keep);
        explained = explained || drawn == Naive(logits, other).Draw(uniform + by);
      }
    }
    EXPECT_TRUE(explained) << "seed " << seed << ": " << drawn << ", not " << naive.Draw(uniform);
  }
  EXPECT_LT(near_a_boundary, 10);
}

TEST(Sampler, FiltersKeepTheFewestThatWillDo) {
  // Weights that are exact: eight of 1, so that an eighth of top_p is one token.
  const std::vector<float> logits(8, 0.5f);
  auto kept = [&](const Params& params) {
    std::set<int32_t> drawn;
    Params draw = params;
    for (draw.counter = 0; draw.counter < 400; ++draw.counter) drawn.insert(Draw(logits, draw));
    EXPECT_EQ(*drawn.rbegin() + 1, std::ssize(drawn));  // a beginning of the order
    return std::ssize(drawn);
  };
  EXPECT_EQ(kept({.top_p = 0.5f}), 4);
  EXPECT_EQ(kept({.top_p = 0.5001f}), 5);
  EXPECT_EQ(kept({.top_p = 0.4999f}), 4);
  EXPECT_EQ(kept({.top_p = 0.125f}), 1);
  EXPECT_EQ(kept({.top_p = 0.5f, .top_k = 4}), 2);  // half of what top_k left
  EXPECT_EQ(kept({.top_k = 3}), 3);
  EXPECT_EQ(kept({.top_k = 9}), 8);
  EXPECT_EQ(kept({.min_p = 1}), 8);  // all are as likely as the likeliest
}

TEST(Sampler, TiesGoToTheLowerId) {
  const std::vector<float> logits = {0, 1, 1, 1, 0, 1};
  for (int32_t counter = 0; counter < 50; ++counter) {
    EXPECT_EQ(Draw(logits, {.top_k = 1, .counter = counter}), 1);
    EXPECT_LE(Draw(logits, {.top_k = 3, .counter = counter}), 3);
    EXPECT_EQ(Draw(logits, {.top_p = 0.01f, .counter = counter}), 1);
    EXPECT_EQ(Draw(logits, {.temperature = 0, .counter = counter}), 1);
  }
  const Record record = Sample(logits, {.temperature = 0, .logprobs = 6});
  const int32_t expected[] = {1, 2, 3, 5, 0, 4};
  for (int i = 0; i < 6; ++i)
    EXPECT_EQ(record[static_cast<size_t>(isa::kRecordIds + i)], expected[i]);
}

TEST(Sampler, ExtremesAreSafe) {
  Rng rng(1);
  const std::vector<float> logits = RandomLogits(rng, 300, 5);
  const auto best = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
  for (int32_t counter = 0; counter < 20; ++counter) {
    EXPECT_EQ(Draw({7.0f}, {.counter = counter}), 0);  // a vocabulary of one
    EXPECT_EQ(Draw({7.0f}, {.top_p = 0.5f, .top_k = 3, .counter = counter}), 0);
    EXPECT_EQ(Draw(logits, {.top_p = 1e-30f, .counter = counter}), best);
    EXPECT_EQ(Draw(logits, {.top_p = 0, .counter = counter}), best);
    EXPECT_EQ(Draw(logits, {.min_p = 1, .counter = counter}), best);
    EXPECT_EQ(Draw(logits, {.temperature = 1e-30f, .counter = counter}), best);
    EXPECT_EQ(Draw(logits, {.temperature = kNan, .counter = counter}), best);
    EXPECT_EQ(Draw(logits, {.temperature = -1, .counter = counter}), best);
  }
  // So hot that all are alike.
  std::set<int32_t> drawn;
  for (int32_t counter = 0; counter < 3000; ++counter)
    drawn.insert(Draw(logits, {.temperature = kInfinity, .counter = counter}));
  EXPECT_GT(drawn.size(), 290u);
  for (const float odd : {kNan, kInfinity, -1.0f, 2.0f})
    for (const Params& params : {Params{.top_p = odd}, Params{.min_p = odd}})
      EXPECT_LT(Draw(logits, params), 300);
}

TEST(Sampler, NanIsNeverDrawn) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    std::vector<float> logits = RandomLogits(rng, 1 + rng.Below(3000), 3);
    const size_t sound = rng.Below(logits.size());
    for (size_t i = 0; i < logits.size(); ++i)
      if (i != sound && rng.Below(2) == 0) logits[i] = kNan;
    for (const Params& params :
         {Params{.temperature = 0}, Params{}, Params{.top_k = 40}, Params{.top_p = 0.9f},
          Params{.min_p = 0.1f}, Params{.top_p = 0.5f, .top_k = 1000}}) {
      Params draw = params;
      draw.seed = seed;
      draw.logprobs = 20;
      const Record record = Sample(logits, draw);
      const int32_t token = record[isa::kRecordToken];
      ASSERT_GE(token, 0);
      ASSERT_LT(token, std::ssize(logits));
      EXPECT_FALSE(std::isnan(logits[static_cast<size_t>(token)])) << "seed " << seed;
      for (int32_t i = 0; i < record[isa::kRecordCount]; ++i)
        EXPECT_FALSE(std::isnan(
            logits[static_cast<size_t>(record[static_cast<size_t>(isa::kRecordIds + i)])]));
    }
  }
  const std::vector<float> nothing(50, kNan);
  const Record record = Sample(nothing, {.top_p = 0.5f, .logprobs = 5});
  EXPECT_LT(record[isa::kRecordToken], 50);
  EXPECT_EQ(record[isa::kRecordCount], 0);
}

TEST(Sampler, InfinitiesAreSafe) {
  std::vector<float> logits(100, -kInfinity);
  for (const Params& params : {Params{.logprobs = 3}, Params{.top_p = 0.5f, .logprobs = 3},
                               Params{.top_k = 5, .logprobs = 3}}) {
    EXPECT_LT(Draw(logits, params), 100);
    std::vector<float> one = logits;
    one[42] = 1.5f;
    EXPECT_EQ(Draw(one, params), 42);
    one[17] = kInfinity;
    EXPECT_EQ(Draw(one, params), 17);
    one[3] = kInfinity;
    EXPECT_EQ(Draw(one, params), 3);
  }
}

TEST(Sampler, LogprobsAreTheModelsOwn) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    const std::vector<float> logits = RandomLogits(rng, 1 + rng.Below(3000), rng.Uniform(0.1f, 20));
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    auto expected = [&](int32_t token) {
      return static_cast<double>(logits[static_cast<size_t>(token)]) - std::log(total);
    };
    // Temperature and filters change what is drawn, not what its logprob is.
    Params params{.temperature = 2, .top_p = 0.7f, .top_k = 9, .seed = seed};
    params.logprobs = static_cast<int32_t>(rng.Below(22));
    const Record record = Sample(logits, params);
    const int32_t token = record[isa::kRecordToken];
    EXPECT_NEAR(isa::FloatOf(record[isa::kRecordLogprob]), expected(token), 2e-5);
    ASSERT_EQ(record[isa::kRecordCount],
              std::min<int64_t>({params.logprobs, isa::kMaxAlternatives, std::ssize(logits)}));
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    for (int32_t i = 0; i < record[isa::kRecordCount]; ++i) {
      const auto at = static_cast<size_t>(i);
      EXPECT_EQ(record[isa::kRecordIds + at], order[at]);
      EXPECT_NEAR(isa::FloatOf(record[isa::kRecordLogprobs + at]), expected(order[at]), 2e-5);
    }
  }
}

TEST(Sampler, ATargetIsTakenAndOneOutOfRangeIsNot) {
  Rng rng(4);
  const std::vector<float> logits = RandomLogits(rng, 40, 4);
  const Record record = Sample(logits, {.logprobs = 0, .target = 13});
  EXPECT_EQ(record[isa::kRecordToken], 13);
  EXPECT_LT(isa::FloatOf(record[isa::kRecordLogprob]), 0);
  EXPECT_EQ(record[isa::kRecordCount], 0);
  for (const int32_t target :
       {-1, -5, 40, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()})
    EXPECT_EQ(Draw(logits, {.seed = 8, .target = target}), Draw(logits, {.seed = 8}));
  // Without logprobs nothing but the token is told.
  const Record bare = Sample(logits, {.target = 13});
  for (size_t i = 1; i < bare.size(); ++i) EXPECT_EQ(bare[i], 0);
}

TEST(Sampler, OneSamplerServesRowsOfAnyWidth) {
  Rng rng(9);
  Sampler sampler(kernels::ScalarKernels(), 4000);
  for (const size_t size : {4000u, 3u, 700u, 1u, 2500u}) {
    const std::vector<float> logits = RandomLogits(rng, size, 3);
    for (const Params& params : {Params{.logprobs = 20}, Params{.top_p = 0.6f, .logprobs = 20},
                                 Params{.top_k = 2000, .logprobs = 20}}) {
      Record record(isa::kSampleRecordWords);
      sampler.Run(logits, Words(params).data(), {}, record.data());
      EXPECT_EQ(record, Sample(logits, params)) << size;
    }
  }
}

// Token, divisor and addend of each adjustment of a row.
struct Adjusted {
  explicit Adjusted(const std::vector<std::tuple<int32_t, float, float>>& list) {
    for (const auto& [token, divide, add] : list) {
      tokens.push_back(token);
      rows.push_back(isa::WordOf(divide));
      rows.push_back(isa::WordOf(add));
    }
  }
  Adjustments All() const { return {tokens, rows.data()}; }
  std::vector<int32_t> tokens, rows;
};

Record SampleAdjusted(const std::vector<float>& logits, const Params& params,
                      const Adjusted& adjusted, int32_t begin = 0, int32_t count = 1 << 20) {
  Sampler sampler(kernels::ScalarKernels(), std::ssize(logits));
  std::vector<int32_t> words = Words(params);
  words[isa::kSampleAdjustBegin] = begin;
  words[isa::kSampleAdjustCount] = count;
  Record record(isa::kSampleRecordWords);
  sampler.Run(logits, words.data(), adjusted.All(), record.data());
  return record;
}

TEST(Sampler, AdjustmentsDivideThenAdd) {
  const std::vector<float> logits = {4, 3, -1, -2};
  auto greedy = [&](const Adjusted& adjusted) {
    return SampleAdjusted(logits, {.temperature = 0}, adjusted)[isa::kRecordToken];
  };
  EXPECT_EQ(greedy(Adjusted({})), 0);
  EXPECT_EQ(greedy(Adjusted({{0, 1.5f, 0}})), 1);            // 2.67
  EXPECT_EQ(greedy(Adjusted({{0, 1.3f, 0}})), 0);            // 3.08
  EXPECT_EQ(greedy(Adjusted({{2, 1, 5.5f}})), 2);            // 4.5
  EXPECT_EQ(greedy(Adjusted({{2, 2, 5.5f}})), 0);            // -2 + 5.5: it is multiplied
  EXPECT_EQ(greedy(Adjusted({{2, 0.1f, 4.2f}})), 2);         // -0.1 + 4.2
  EXPECT_EQ(greedy(Adjusted({{0, 1, -2}, {1, 1, -2}})), 0);  // both
  EXPECT_EQ(greedy(Adjusted({{0, 2, 1.5f}})), 0);            // 4 / 2 + 1.5
  EXPECT_EQ(greedy(Adjusted({{0, 2, 0.5f}})), 1);            // 4 / 2 + 0.5
}

TEST(Sampler, ForbiddenTokensAreNeverDrawn) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    const std::vector<float> logits = RandomLogits(rng, 2 + rng.Below(3000), 3);
    std::set<int32_t> allowed;
    std::vector<std::tuple<int32_t, float, float>> list;
    for (int32_t token = 0; token < std::ssize(logits); ++token)
      if (rng.Below(20) != 0 && token != 1)
        list.emplace_back(token, rng.Uniform(0.5f, 2), -kInfinity);
      else
        allowed.insert(token);
    const Adjusted adjusted(list);
    for (const Params& params :
         {Params{.temperature = 0}, Params{}, Params{.top_k = 40}, Params{.top_p = 0.9f},
          Params{.min_p = 0.1f}, Params{.temperature = kInfinity},
          Params{.temperature = kInfinity, .top_k = 1000},
          Params{.top_p = 0.999f, .top_k = 2000}}) {
      Params draw = params;
      draw.seed = seed;
      EXPECT_TRUE(allowed.contains(SampleAdjusted(logits, draw, adjusted)[isa::kRecordToken]))
          << "seed " << seed;
    }
  }
}

TEST(Sampler, WhereAllIsForbiddenNothingIs) {
  const std::vector<float> logits = {1, 5, 2};
  const Adjusted all({{0, 1, -kInfinity}, {1, 1, -kInfinity}, {2, 1, -kInfinity}});
  EXPECT_EQ(SampleAdjusted(logits, {.temperature = 0}, all)[isa::kRecordToken], 1);
  std::set<int32_t> drawn;
  for (int32_t counter = 0; counter < 500; ++counter)
    drawn.insert(SampleAdjusted(logits, {.temperature = 9, .counter = counter}, all)[0]);
  EXPECT_EQ(drawn.size(), 3u);
}

TEST(Sampler, LogprobsAreOfTheLogitsAsTheyWere) {
  const std::vector<float> logits = {1, 5, 2, 4};
  const Adjusted adjusted({{1, 1, -kInfinity}, {0, 1, 9}});
  const Record record = SampleAdjusted(logits, {.temperature = 0, .logprobs = 4}, adjusted);
  const Record plain = Sample(logits, {.logprobs = 4, .target = 0});
  EXPECT_EQ(record[isa::kRecordToken], 0);
  EXPECT_EQ(record, plain);
}

TEST(Sampler, PartsPastTheEndAreCutOff) {
  const std::vector<float> logits = {3, 2, 1};
  const Adjusted adjusted({{0, 1, -kInfinity}, {1, 1, -kInfinity}});
  auto greedy = [&](int32_t begin, int32_t count) {
    return SampleAdjusted(logits, {.temperature = 0}, adjusted, begin, count)[isa::kRecordToken];
  };
  constexpr int32_t kLeast = std::numeric_limits<int32_t>::min();
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(greedy(0, 0), 0);
  EXPECT_EQ(greedy(0, 1), 1);
  EXPECT_EQ(greedy(0, 2), 2);
  EXPECT_EQ(greedy(1, 1), 0);
  EXPECT_EQ(greedy(0, kMost), 2);
  EXPECT_EQ(greedy(kLeast, kMost), 2);
  EXPECT_EQ(greedy(kMost, kMost), 0);
  EXPECT_EQ(greedy(2, 1), 0);
  EXPECT_EQ(greedy(0, kLeast), 0);
}

}  // namespace
}  // namespace millpower::device::cpu
