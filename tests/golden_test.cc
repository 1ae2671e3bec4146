// Small random-weight models against Hugging Face transformers in float32: the whole path from
// folder to tokens. tests/golden/ holds the models and what the reference gave;
// tools/goldens/make_qwen3.py makes them.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "golden_models.h"

namespace millpower {
namespace {

float LargestDifference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
  return largest;
}

float LargestMagnitude(std::span<const float> a) {
  float largest = 0;
  for (const float value : a) largest = std::max(largest, std::fabs(value));
  return largest;
}

const compile::Options kExact = {.weight_type = DType::kF32, .kv_type = DType::kF32};

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, LogitsEqualTheReference) {
  const Reference reference(GetParam());
  DeviceModel model(CompileGolden(GetParam(), kExact), {.threads = 2});
  const auto prompt = reference.Get<int32_t>("short.prompt_ids");
  const auto expected = reference.Get<float>("short.logits");
  const auto logits = model.Run(prompt, static_cast<int64_t>(prompt.size()));
  const size_t vocab = logits[0].size();
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::span row(expected.data() + i * vocab, vocab);
    EXPECT_LE(LargestDifference(logits[i], row), 1e-4f * LargestMagnitude(row)) << "position " << i;
  }
  model.Restart();
  const auto long_expected = reference.Get<float>("long.last_logits");
  const auto last = model.Run(reference.Get<int32_t>("long.prompt_ids"), 1);
  EXPECT_LE(LargestDifference(last[0], long_expected), 1e-4f * LargestMagnitude(long_expected));
}

TEST_P(Golden, GreedyOutputIsTheReferences) {
  const Reference reference(GetParam());
  for (const std::string which : {"short", "long"}) {
    DeviceModel model(CompileGolden(GetParam(), kExact), {.threads = 2});
    const auto expected = reference.Get<int32_t>(which + ".greedy_ids");
    ASSERT_GE(expected.size(), 180u);
    model.Run(reference.Get<int32_t>(which + ".prompt_ids"), 1);
    std::vector<int32_t> output;
    for (size_t i = 0; i < expected.size(); ++i) {
      output.push_back(model.sampled());
      if (i + 1 < expected.size()) model.Run(std::span(&output.back(), 1), 1);
    }
    EXPECT_EQ(output, expected) << which;
  }
}

// With bf16 weights and KV, fed the reference's own tokens, the choice differs only where the
// reference's top two lie closer than our logits' error.
TEST_P(Golden, Bf16DiffersOnlyAtNearTies) {
  const Reference reference(GetParam());
  DeviceModel exact(CompileGolden(GetParam(), kExact), {.threads = 2});
  DeviceModel model(
      CompileGolden(GetParam(), {.weight_type = DType::kBf16, .kv_type = DType::kBf16}),
      {.threads = 2});
  const auto prompt = reference.Get<int32_t>("long.prompt_ids");
  const auto expected = reference.Get<int32_t>("long.greedy_ids");
  const auto gaps = reference.Get<float>("long.top2_gap");
  auto exact_logits = exact.Run(prompt, 1);
  auto logits = model.Run(prompt, 1);
  int same = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const float error = LargestDifference(logits[0], exact_logits[0]);
    EXPECT_LE(error, 0.1f * LargestMagnitude(exact_logits[0])) << "step " << i;
    if (model.sampled() == expected[i])
      ++same;
    else
      EXPECT_LE(gaps[i], 2 * error) << "step " << i;
    if (i + 1 == expected.size()) break;
    exact_logits = exact.Run(std::span(&expected[i], 1), 1);
    logits = model.Run(std::span(&expected[i], 1), 1);
  }
  EXPECT_GE(same, static_cast<int>(expected.size() * 8 / 10));
}

// The bits of all logits of the long prompt and some steps after it.
uint64_t HashOfLogits(DeviceModel& model, const Reference& reference, int64_t chunk) {
  const auto prompt = reference.Get<int32_t>("long.prompt_ids");
  const auto output = reference.Get<int32_t>("long.greedy_ids");
  std::vector<int32_t> tokens = prompt;
  tokens.insert(tokens.end(), output.begin(), output.begin() + 20);
  uint64_t hash = 0;
  for (size_t at = 0; at < tokens.size();) {
    // Chunks while in the prompt, then one token at a time.
    const size_t left = at < prompt.size() ? prompt.size() - at : 1;
    const size_t count = std::min(left, static_cast<size_t>(chunk));
    const auto logits =
        model.Run(std::span(tokens).subspan(at, count), static_cast<int64_t>(count));
    for (const auto& row : logits) hash = XXH3_64bits_withSeed(row.data(), row.size() * 4, hash);
    at += count;
  }
  return hash;
}

TEST_P(Golden, BitsDoNotDependOnThreadsChunksOrOrder) {
  const Reference reference(GetParam());
  const compile::Options options{.weight_type = {}, .kv_type = DType::kBf16};
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    uint64_t expected = 0;
    for (const auto& [threads, chunk, seed] :
         {std::tuple{1, 64, 0}, {2, 1, 0}, {4, 7, 0}, {2, 33, 1}, {1, 13, 2}, {3, 64, 3}}) {
      DeviceModel model(CompileGolden(GetParam(), options),
                        {.threads = threads,
                         .kernels = set,
                         .order_seed = static_cast<uint64_t>(seed),
                         .serial_cost = 0});
      const uint64_t hash = HashOfLogits(model, reference, chunk);
      if (expected == 0) expected = hash;
      EXPECT_EQ(hash, expected) << set->name << ", " << threads << " threads, chunks of " << chunk
                                << ", order " << seed;
    }
    RecordProperty(std::string("hash_") + set->name, std::to_string(expected));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         testing::Values("tiny-tied", "tiny-untied-bf16", "tiny-yarn", "tiny-f16",
                                         "tiny-bias", "tiny-moe", "tiny-moe-fused",
                                         "tiny-moe-sparse"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

// One hash for all kernel sets: the same bits on every machine.
TEST(Bits, ArePinned) {
  const Reference reference("tiny-untied-bf16");
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    DeviceModel model(
        CompileGolden("tiny-untied-bf16", {.weight_type = {}, .kv_type = DType::kBf16}),
        {.threads = 2, .kernels = set});
    EXPECT_EQ(HashOfLogits(model, reference, 64), 16733139604770133152u) << set->name;
  }
}

}  // namespace
}  // namespace millpower
