#include "import/qwen3/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "import/hf/config.h"
#include "import/hf/test_folder.h"
#include "import/qwen3/published.h"

namespace millpower::import {
namespace {

using ::testing::HasSubstr;

Qwen3Config Small(const Json& changes = Json::object()) {
  Json json = SmallConfig();
  json.update(changes);
  return ParseQwen3Config(DumpJson(json)).value();
}

TEST(Qwen3Graph, PublishedModelsHaveTheirPublishedSize) {
  for (const PublishedModel& model : PublishedModels()) {
    const auto graph = BuildQwen3Graph(model.config);
    ASSERT_TRUE(graph) << graph.error().message;
    EXPECT_EQ(graph->facts.at("parameters"), model.parameters) << model.name;
    EXPECT_EQ(FindPublishedModel(model.name), &model);
  }
  EXPECT_EQ(FindPublishedModel("qwen3-7b"), nullptr);
}

TEST(Qwen3Graph, IsTheModelInItsStraightForm) {
  Qwen3Config config = Small();
  config.layers = 1;
  const auto graph = BuildQwen3Graph(config);
  ASSERT_TRUE(graph) << graph.error().message;
  const std::string text = ir::ToText(*graph);
  EXPECT_EQ(text.substr(text.find("embedding [")),
            R"(embedding [rows, 32] f32 = embedding(model.embed_tokens.weight, tokens)
rope.table [rows, 16] f32 = rope_table(positions, rope.inv_freq) scale=1
layers.0.attn_norm [rows, 32] f32 = rms_norm(embedding, model.layers.0.input_layernorm.weight) epsilon=1e-06 group=32
layers.0.q [rows, 64] f32 = linear(layers.0.attn_norm, model.layers.0.self_attn.q_proj.weight, -, -)
layers.0.k [rows, 32] f32 = linear(layers.0.attn_norm, model.layers.0.self_attn.k_proj.weight, -, -)
layers.0.v [rows, 32] f32 = linear(layers.0.attn_norm, model.layers.0.self_attn.v_proj.weight, -, -)
layers.0.q_norm [rows, 64] f32 = rms_norm(layers.0.q, model.layers.0.self_attn.q_norm.weight) epsilon=1e-06 group=16
layers.0.q_rope [rows, 64] f32 = rope(layers.0.q_norm, rope.table) heads=4
layers.0.k_norm [rows, 32] f32 = rms_norm(layers.0.k, model.layers.0.self_attn.k_norm.weight) epsilon=1e-06 group=16
layers.0.k_rope [rows, 32] f32 = rope(layers.0.k_norm, rope.table) heads=2
layers.0.attn [rows, 64] f32 = attention(layers.0.q_rope, layers.0.k_rope, layers.0.v, sequences, pages) head_dim=16 heads=4 kv_heads=2 layer=0 scale=0.25 window=0
layers.0.o [rows, 32] f32 = linear(layers.0.attn, model.layers.0.self_attn.o_proj.weight, -, -)
layers.0.attn_add [rows, 32] f32 = add(embedding, layers.0.o)
layers.0.mlp_norm [rows, 32] f32 = rms_norm(layers.0.attn_add, model.layers.0.post_attention_layernorm.weight) epsilon=1e-06 group=32
layers.0.gate [rows, 48] f32 = linear(layers.0.mlp_norm, model.layers.0.mlp.gate_proj.weight, -, -)
layers.0.up [rows, 48] f32 = linear(layers.0.mlp_norm, model.layers.0.mlp.up_proj.weight, -, -)
layers.0.silu [rows, 48] f32 = silu(layers.0.gate)
layers.0.gated [rows, 48] f32 = mul(layers.0.silu, layers.0.up)
layers.0.down [rows, 32] f32 = linear(layers.0.gated, model.layers.0.mlp.down_proj.weight, -, -)
layers.0.mlp_add [rows, 32] f32 = add(layers.0.attn_add, layers.0.down)
last [picked, 32] f32 = select_rows(layers.0.mlp_add, picked_rows)
last.norm [picked, 32] f32 = rms_norm(last, model.norm.weight) epsilon=1e-06 group=32
logits [picked, 96] f32 = linear(last.norm, model.embed_tokens.weight, -, -)
sampled [picked, 44] i32 = sample(logits, sampling, adjust_tokens, adjustments) record_words=44
output logits
output sampled
)");
}

// Where a rank's weight lies, "tensor[rows] [columns]".
std::string PlaceOf(const ir::Graph& graph, const std::string& name) {
  const ir::Value& value = graph.value(graph.FindValue(name));
  std::string text;
  for (const ir::TensorSlice& slice : value.slices) {
    text += slice.tensor.substr(slice.tensor.rfind('.', slice.tensor.size() - 8) + 1) + "[" +
            std::to_string(slice.first_row) + "+" + std::to_string(slice.rows) + "]";
    if (slice.cols > 0)
      text += "[" + std::to_string(slice.first_col) + "+" + std::to_string(slice.cols) + "]";
  }
  return ir::ToString(value.shape) + " " + text;
}

TEST(Qwen3Graph, RanksHaveTheirPartsOfEveryLayer) {
  const Qwen3Config config = Small();  // 4 heads, 2 KV heads of 16; 32 wide, 48 inside; 96 tokens
  const auto whole = BuildQwen3Graph(config);
  ASSERT_TRUE(whole);
  const auto graph = BuildQwen3Graph(config, {.ranks = 4, .rank = 3});
  ASSERT_TRUE(graph) << graph.error().message;
  EXPECT_EQ(graph->ranks, 4);
  EXPECT_EQ(graph->facts, whole->facts);
  const std::string layer = "model.layers.1.";
  EXPECT_EQ(PlaceOf(*graph, layer + "self_attn.q_proj.weight"), "[16, 32] q_proj.weight[48+16]");
  // Two ranks share a KV head.
  EXPECT_EQ(PlaceOf(*graph, layer + "self_attn.k_proj.weight"), "[16, 32] k_proj.weight[16+16]");
  EXPECT_EQ(PlaceOf(*graph, layer + "self_attn.o_proj.weight"),
            "[32, 16] o_proj.weight[0+32][48+16]");
  EXPECT_EQ(PlaceOf(*graph, layer + "mlp.up_proj.weight"), "[12, 32] up_proj.weight[36+12]");
  EXPECT_EQ(PlaceOf(*graph, layer + "mlp.down_proj.weight"),
            "[32, 12] down_proj.weight[0+32][36+12]");
  EXPECT_EQ(PlaceOf(*graph, "lm_head.weight"), "[24, 32] embed_tokens.weight[72+24]");
  int collectives = 0;
  for (const ir::Node& node : graph->nodes()) collectives += node.op == ir::Op::kCollective;
  EXPECT_EQ(collectives, 2 * config.layers + 1);

  const auto two = BuildQwen3Graph(config, {.ranks = 2, .rank = 1});
  ASSERT_TRUE(two);
  EXPECT_EQ(PlaceOf(*two, layer + "self_attn.v_proj.weight"), "[16, 32] v_proj.weight[16+16]");
}

TEST(Qwen3Graph, RefusesRanksThatDoNotDivideTheModel) {
  const auto error = [](const Json& changes, const GraphOptions& options) {
    const auto graph = BuildQwen3Graph(Small(changes), options);
    return graph ? "" : graph.error().message;
  };
  EXPECT_THAT(error(Json::object(), {.ranks = 0}), HasSubstr("rank 0 of 0"));
  EXPECT_THAT(error(Json::object(), {.ranks = 2, .rank = 2}), HasSubstr("rank 2 of 2"));
  EXPECT_THAT(error(Json::object(), {.ranks = 3}),
              HasSubstr("3 ranks do not divide num_attention_heads (4)"));
  EXPECT_THAT(error({{"intermediate_size", 50}}, {.ranks = 4}),
              HasSubstr("4 ranks do not divide intermediate_size (50)"));
}

TEST(Qwen3Graph, BoundsFollowTheOptions) {
  const auto graph = BuildQwen3Graph(Small(), {.max_rows = 32, .max_seqs = 3, .max_pages = 200});
  ASSERT_TRUE(graph) << graph.error().message;
  EXPECT_EQ(graph->SymbolMax("rows"), 32);
  EXPECT_EQ(graph->SymbolMax("pages"), 200);
  EXPECT_EQ(graph->SymbolMax("page_entries"), 3 * 640 / 16);
  EXPECT_EQ(graph->facts.at("max_positions"), 640);
  EXPECT_THAT(BuildQwen3Graph(Small(), {.max_rows = 0}).error().message,
              HasSubstr("a graph option is 0"));
}

TEST(Qwen3Graph, UntiedHeadsAndBiasesAreWeights) {
  const auto graph =
      BuildQwen3Graph(Small({{"tie_word_embeddings", false}, {"attention_bias", true}}));
  ASSERT_TRUE(graph) << graph.error().message;
  const auto tensors = TensorsOf(*graph);
  EXPECT_EQ(tensors.at("lm_head.weight"), (std::vector<int64_t>{96, 32}));
  EXPECT_EQ(tensors.at("model.layers.1.self_attn.k_proj.bias"), std::vector<int64_t>{32});
  EXPECT_EQ(tensors.at("model.layers.1.self_attn.o_proj.bias"), std::vector<int64_t>{32});
  EXPECT_EQ(tensors.size(), 3u + 2 * 15);
}

Qwen3Config SmallMoe(const Json& changes = Json::object()) {
  Json json = SmallMoeConfig();
  json.update(changes);
  return ParseQwen3Config(DumpJson(json)).value();
}

// The tensors of one layer's experts, by the way in which a file has them.
enum class Stored { kSingly, kFused, kStacked };
std::map<std::string, std::vector<int64_t>> MoeTensors(const Qwen3Config& config, Stored stored) {
  auto tensors = TensorsOf(*BuildQwen3Graph(config));
  if (stored == Stored::kStacked) return tensors;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string all = "model.layers." + std::to_string(layer) + ".mlp.experts.";
    const bool dense = !tensors.contains(all + "gate_proj.weight");
    for (const char* name : {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}) {
      tensors.erase(all + name);
      if (stored == Stored::kFused || dense) continue;
      for (int64_t expert = 0; expert < config.experts; ++expert)
        tensors[all + std::to_string(expert) + "." + name] = name == std::string("down_proj.weight")
                                                                 ? std::vector<int64_t>{32, 24}
                                                                 : std::vector<int64_t>{24, 32};
    }
    if (stored == Stored::kFused && !dense) {
      tensors[all + "gate_up_proj"] = {4, 48, 32};
      tensors[all + "down_proj"] = {4, 32, 24};
    }
  }
  return tensors;
}

TEST(Qwen3Graph, ExpertsAreOneNodeALayer) {
  const Qwen3Config config = SmallMoe({{"num_hidden_layers", 1}});
  const auto graph = BuildQwen3Graph(config);
  ASSERT_TRUE(graph) << graph.error().message;
  EXPECT_THAT(
      ir::ToText(*graph),
      HasSubstr("layers.0.experts [rows, 32] f32 = experts(layers.0.mlp_norm, "
                "model.layers.0.mlp.gate.weight, model.layers.0.mlp.experts.gate_proj.weight, "
                "model.layers.0.mlp.experts.up_proj.weight, "
                "model.layers.0.mlp.experts.down_proj.weight) choices=2 normalise=1\n"
                "layers.0.mlp_add [rows, 32] f32 = add(layers.0.attn_add, layers.0.experts)\n"));
  EXPECT_EQ(graph->name, "qwen3_moe");
  EXPECT_EQ(graph->facts.at("experts"), 4);
  EXPECT_EQ(graph->facts.at("experts_per_token"), 2);
  int64_t parameters = 0;
  for (const auto& [name, shape] : TensorsOf(*graph)) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    parameters += count;
  }
  EXPECT_EQ(graph->facts.at("parameters"), parameters);
}

TEST(Qwen3Graph, DenseLayersStandAmongExpertLayers) {
  const auto graph = BuildQwen3Graph(
      SmallMoe({{"num_hidden_layers", 4}, {"mlp_only_layers", {1}}, {"norm_topk_prob", false}}));
  ASSERT_TRUE(graph) << graph.error().message;
  for (const int layer : {0, 1, 2, 3}) {
    const std::string name = "layers." + std::to_string(layer);
    EXPECT_EQ(graph->FindValue(name + ".experts") == ir::kNoValue, layer == 1) << layer;
    EXPECT_EQ(graph->FindValue(name + ".gated") == ir::kNoValue, layer != 1) << layer;
  }
  EXPECT_THAT(ir::ToText(*graph), HasSubstr("choices=2 normalise=0"));
}

TEST(Qwen3Graph, ExpertsComeFromAnyFormOfTheirTensors) {
  using ir::TensorSlice;
  const Qwen3Config config = SmallMoe({{"mlp_only_layers", {1}}});
  const std::string all = "model.layers.0.mlp.experts.";
  const auto slices = [&](Stored stored, const char* projection) {
    const ShapesOnly weights(MoeTensors(config, stored));
    const auto graph = BuildQwen3Graph(config, {}, &weights);
    EXPECT_TRUE(graph) << graph.error().message;
    return graph->value(graph->FindValue(all + projection + ".weight")).slices;
  };
  EXPECT_EQ(slices(Stored::kStacked, "gate_proj"), std::vector<TensorSlice>());
  EXPECT_EQ(slices(Stored::kSingly, "up_proj"),
            (std::vector<TensorSlice>{{all + "0.up_proj.weight", 0, 24},
                                      {all + "1.up_proj.weight", 0, 24},
                                      {all + "2.up_proj.weight", 0, 24},
                                      {all + "3.up_proj.weight", 0, 24}}));
  const std::string gate_up = all + "gate_up_proj", down = all + "down_proj";
  EXPECT_EQ(slices(Stored::kFused, "gate_proj"),
            (std::vector<TensorSlice>{
                {gate_up, 0, 24}, {gate_up, 48, 24}, {gate_up, 96, 24}, {gate_up, 144, 24}}));
  EXPECT_EQ(slices(Stored::kFused, "up_proj"),
            (std::vector<TensorSlice>{
                {gate_up, 24, 24}, {gate_up, 72, 24}, {gate_up, 120, 24}, {gate_up, 168, 24}}));
  EXPECT_EQ(
      slices(Stored::kFused, "down_proj"),
      (std::vector<TensorSlice>{{down, 0, 32}, {down, 32, 32}, {down, 64, 32}, {down, 96, 32}}));
}

TEST(Qwen3Graph, ExpertsThatDoNotFitAreNamed) {
  const Qwen3Config config = SmallMoe();
  const auto failure = [&](Stored stored, const std::string& name, std::vector<int64_t> shape,
                           DType type = DType::kBf16) {
    auto tensors = MoeTensors(config, stored);
    if (shape.empty())
      tensors.erase(name);
    else
      tensors[name] = shape;
    ShapesOnly weights(tensors);
    weights.odd_types[name] = type;
    const auto graph = BuildQwen3Graph(config, {}, &weights);
    return graph ? "" : graph.error().message;
  };
  const std::string all = "model.layers.1.mlp.experts.";
  EXPECT_THAT(failure(Stored::kSingly, all + "2.up_proj.weight", {}),
              HasSubstr("1 tensors are not as the config has them: no tensor '" + all + "2.up"));
  EXPECT_THAT(failure(Stored::kSingly, all + "2.up_proj.weight", {32, 24}),
              HasSubstr("'" + all + "2.up_proj.weight' is [32, 24], not [24, 32]"));
  EXPECT_THAT(failure(Stored::kSingly, all + "2.up_proj.weight", {24, 32}, DType::kF32),
              HasSubstr("is f32, and those of other experts are bf16"));
  EXPECT_THAT(failure(Stored::kFused, all + "gate_up_proj", {4, 32, 48}),
              HasSubstr("'" + all + "gate_up_proj' is [4, 32, 48], not [4, 48, 32]"));
  EXPECT_THAT(failure(Stored::kStacked, all + "down_proj.weight", {4, 24, 32}),
              HasSubstr("is [4, 24, 32], not [4, 32, 24]"));
  EXPECT_THAT(failure(Stored::kStacked, "model.layers.1.mlp.gate.weight", {}),
              HasSubstr("no tensor 'model.layers.1.mlp.gate.weight'"));
}

}  // namespace
}  // namespace millpower::import
