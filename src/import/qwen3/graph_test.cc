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
layers.0.attn [rows, 64] f32 = attention(layers.0.q_rope, layers.0.k_rope, layers.0.v, sequences, pages) head_dim=16 heads=4 kv_heads=2 layer=0 scale=0.25
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
sampled [picked, 44] i32 = sample(logits, sampling) record_words=44
output logits
output sampled
)");
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

}  // namespace
}  // namespace millpower::import
