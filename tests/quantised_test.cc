// int8 and int4 weights against transformers in float32 with the very same weights: what may differ
// is how the device rounds activations. tests/golden/quantised holds what the reference gave;
// tools/goldens/make_quantised.py makes it, and draws the same weights as this file.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>

#include "golden_models.h"
#include "import/qwen3/graph.h"

namespace millpower {
namespace {

constexpr int64_t kHidden = 1024, kFfn = 3072, kHeadDim = 64;
constexpr double kDeviation = 0.02, kNormDeviation = 0.1;
constexpr std::array<int64_t, 6> kOutliers = {7, 130, 311, 512, 700, 1001};
constexpr int64_t kOutlierPeriod = 1024;
constexpr float kOutlierFactor = 16;

import::Qwen3Config Config() {
  import::Qwen3Config config;
  config.vocab_size = 512;
  config.hidden_size = kHidden;
  config.intermediate_size = kFfn;
  config.layers = 3;
  config.heads = 16;
  config.kv_heads = 8;
  config.head_dim = kHeadDim;
  config.max_positions = 64;
  config.dtype = DType::kF32;
  config.rope.theta = 1e6;
  return config;
}

uint64_t Fnv1a(const std::string& name) {
  uint64_t value = 0xcbf29ce484222325;
  for (const char c : name) value = (value ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return value;
}

// Number `i` of those drawn for a tensor: splitmix64 (Vigna) of a counter from the name's hash on.
uint64_t RandomBits(uint64_t hash, int64_t i) {
  uint64_t x = hash + (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Nearly normal: the sum of four uniform 16-bit numbers, whose deviation is
// sqrt(4 (2^32 - 1) / 12) = 37837.2.
std::vector<float> RandomNormal(const std::string& name, int64_t count, double deviation) {
  const uint64_t hash = Fnv1a(name);
  const auto scale = static_cast<float>(deviation / 37837.2);
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = RandomBits(hash, i);
    const auto sum = static_cast<int64_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                          ((bits >> 32) & 0xffff) + (bits >> 48));
    values[static_cast<size_t>(i)] = static_cast<float>(sum - 131070) * scale;
  }
  return values;
}

// Some channels of each norm and of up_proj larger, what reads them smaller: the same function,
// with activations as trained models have them.
void AddOutliers(const std::string& name, const std::vector<int64_t>& shape,
                 std::vector<float>& values) {
  const int64_t columns = shape.back();
  const auto scale_column = [&](int64_t column, float factor) {
    for (size_t at = static_cast<size_t>(column); at < values.size();
         at += static_cast<size_t>(columns))
      values[at] *= factor;
  };
  const auto is = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (shape.size() == 1) {
    if (columns == kHeadDim) return;  // q_norm and k_norm are not read by a matrix
    for (const int64_t channel : kOutliers) scale_column(channel, kOutlierFactor);
    return;
  }
  for (int64_t base = 0; base < kFfn; base += kOutlierPeriod)
    for (const int64_t channel : kOutliers) {
      const int64_t row = base + channel;
      if (is("up_proj"))
        for (int64_t i = row * columns; i < (row + 1) * columns; ++i)
          values[static_cast<size_t>(i)] *= kOutlierFactor;
      if (is("down_proj")) scale_column(row, 1 / kOutlierFactor);
    }
  if (is("down_proj") || is("o_proj") || is("embed_tokens")) return;
  for (const int64_t channel : kOutliers) scale_column(channel, 1 / kOutlierFactor);
}

// All weights of a graph, drawn.
class DrawnWeights final : public ir::WeightSource {
 public:
  DrawnWeights(const ir::Graph& graph, bool outliers) {
    for (const ir::Value& value : graph.values()) {
      if (value.kind != ir::ValueKind::kWeight || !value.values.empty()) continue;
      Tensor tensor;
      int64_t count = 1;
      for (const ir::Dim& dim : value.shape) {
        tensor.shape.push_back(dim.size);
        count *= dim.size;
      }
      const bool norm = tensor.shape.size() == 1;
      tensor.values = RandomNormal(value.name, count, norm ? kNormDeviation : kDeviation);
      if (norm)
        for (float& weight : tensor.values) weight += 1;
      if (outliers) AddOutliers(value.name, tensor.shape, tensor.values);
      tensors_[value.name] = std::move(tensor);
    }
  }
  Result<ir::TensorView> Find(const std::string& name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return Fail(ErrorCode::kNotFound, "no tensor '" + name + "'");
    return ir::TensorView{DType::kF32, found->second.shape,
                          std::as_bytes(std::span(found->second.values))};
  }
  void Release(std::span<const std::byte>) const override {}

 private:
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> tensors_;
};

double Cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

class Quantised : public testing::TestWithParam<bool> {};

TEST_P(Quantised, LogitsAreThoseOfTheReference) {
  const bool outliers = GetParam();
  const Reference reference("quantised");
  const auto prompt = reference.Get<int32_t>("prompt_ids");
  for (size_t i = 0; i < prompt.size(); ++i)
    ASSERT_EQ(prompt[i],
              static_cast<int32_t>(RandomBits(Fnv1a("prompt"), static_cast<int64_t>(i)) % 512));
  const auto graph = import::BuildQwen3Graph(Config());
  ASSERT_TRUE(graph) << graph.error().message;
  const DrawnWeights weights(*graph, outliers);
  for (const auto& [type, label] : {std::pair{DType::kQ8_0, "int8"}, {DType::kQ4_0, "int4"}}) {
    DeviceModel model(
        CompileAndPack(*graph, weights, {.weight_type = type, .kv_type = DType::kF32}),
        {.threads = 2});
    const auto logits = model.Run(prompt, static_cast<int64_t>(prompt.size()));
    const auto expected =
        reference.Get<float>(std::string(label) + (outliers ? ".outliers" : "") + ".logits");
    const size_t vocab = logits[0].size();
    ASSERT_EQ(expected.size(), prompt.size() * vocab);
    for (size_t i = 0; i < prompt.size(); ++i)
      EXPECT_GE(Cosine(logits[i], std::span(expected).subspan(i * vocab, vocab)),
                outliers ? 0.995 : 0.999)
          << label << ", position " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Outliers, Quantised, testing::Bool(),
                         [](const auto& info) { return info.param ? "With" : "Without"; });

// Both sides draw the same weights, and in float32 outliers change nothing.
TEST(QuantisedWeights, AreThoseOfTheReferenceBeforeRounding) {
  const auto graph = import::BuildQwen3Graph(Config());
  ASSERT_TRUE(graph) << graph.error().message;
  const Reference reference("quantised");
  const auto prompt = reference.Get<int32_t>("prompt_ids");
  const auto expected = reference.Get<float>("f32.logits");
  for (const bool outliers : {false, true}) {
    DeviceModel model(CompileAndPack(*graph, DrawnWeights(*graph, outliers),
                                     {.weight_type = DType::kF32, .kv_type = DType::kF32}),
                      {.threads = 2});
    const auto logits = model.Run(prompt, static_cast<int64_t>(prompt.size()));
    const size_t vocab = logits[0].size();
    for (size_t i = 0; i < prompt.size(); ++i)
      EXPECT_GE(Cosine(logits[i], std::span(expected).subspan(i * vocab, vocab)), 0.99999999) << i;
  }
}

}  // namespace
}  // namespace millpower
