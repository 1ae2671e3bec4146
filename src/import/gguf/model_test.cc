#include "import/gguf/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "import/gguf/test_file.h"
#include "import/gguf/tokenizer.h"
#include "import/gguf/weights.h"

namespace millpower::import {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufModelTest : public testing::Test {
 protected:
  Result<Model> Opened(const GgufBuilder& file) {
    folder.Write("model.gguf", file.Build());
    return OpenModel(folder.path() / "model.gguf");
  }
  std::string Failure(const GgufBuilder& file, ErrorCode code) {
    const auto opened = Opened(file);
    if (opened) return "";
    EXPECT_EQ(opened.error().code, code) << opened.error().message;
    EXPECT_THAT(opened.error().message, HasSubstr("model.gguf"));
    return opened.error().message;
  }
  template <typename T>
  std::string With(const std::string& key, T value, ErrorCode code, bool experts = false) {
    GgufBuilder file = SmallGguf(experts);
    return Failure(file.Set(key, value), code);
  }
  std::string Without(const std::string& key) {
    GgufBuilder file = SmallGguf();
    return Failure(file.Erase(key), ErrorCode::kInvalidArgument);
  }

  TestFolder folder;
};

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument, kUnsupported = ErrorCode::kUnsupported,
                    kCorrupt = ErrorCode::kCorrupt;

TEST_F(GgufModelTest, OpensWithAllItHas) {
  GgufBuilder file = SmallGguf();
  file.Set("general.sampling.temp", 0.6f).Set("general.sampling.top_k", 20u);
  file.Set("general.sampling.top_p", 0.95f).Set("general.sampling.penalty_repeat", 1.05f);
  const auto model = Opened(file);
  ASSERT_TRUE(model) << model.error().message;
  const Qwen3Config& config = model->config;
  EXPECT_EQ(config.vocab_size, 96);
  EXPECT_EQ(config.hidden_size, 32);
  EXPECT_EQ(config.intermediate_size, 48);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_positions, 640);
  EXPECT_EQ(config.rms_norm_epsilon, 1e-6);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_FALSE(config.rope.yarn);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_EQ(config.experts, 0);
  EXPECT_EQ(model->generation.temperature, 0.6);
  EXPECT_EQ(model->generation.top_k, 20);
  EXPECT_EQ(model->generation.top_p, 0.95);
  EXPECT_THAT(model->generation.eos_token_ids, ElementsAre(3));
  EXPECT_EQ(model->chat_template, "{#- millpower: qwen3 chat format -#}");
  EXPECT_THAT(model->notes, ElementsAre("repetition_penalty 1.05 is not applied"));

  const auto graph = model->BuildGraph({.max_rows = 16});
  ASSERT_TRUE(graph) << graph.error().message;
  const auto type = [&](const char* name) { return graph->value(graph->FindValue(name)).dtype; };
  EXPECT_EQ(type("model.embed_tokens.weight"), DType::kQ8_0);
  EXPECT_EQ(type("model.layers.1.mlp.down_proj.weight"), DType::kBf16);
  EXPECT_EQ(type("model.layers.1.self_attn.q_norm.weight"), DType::kF32);
}

TEST_F(GgufModelTest, TakesTheDefaultsOfLlamaCpp) {
  GgufBuilder file = SmallGguf();
  for (const char* key : {"qwen3.attention.head_count_kv", "qwen3.rope.freq_base",
                          "tokenizer.ggml.eos_token_id", "tokenizer.chat_template"})
    file.Erase(key);
  file.At("blk.0.attn_k.weight").shape[0] = file.At("blk.0.attn_v.weight").shape[0] = 64;
  file.At("blk.1.attn_k.weight").shape[0] = file.At("blk.1.attn_v.weight").shape[0] = 64;
  for (auto& [name, tensor] : file.tensors)
    if (name.ends_with("attn_k.weight") || name.ends_with("attn_v.weight")) tensor.size_bytes *= 2;
  const auto model = Opened(file);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->config.kv_heads, 4);
  EXPECT_EQ(model->config.rope.theta, 10000);
  EXPECT_EQ(model->generation.temperature, 1);
  EXPECT_THAT(model->generation.eos_token_ids, ElementsAre(3));  // by its text
  EXPECT_THAT(model->notes, ElementsAre(HasSubstr("no chat template")));
}

TEST_F(GgufModelTest, ReadsAHeadAndBiasesFromTheTensors) {
  GgufBuilder file = SmallGguf();
  file.Add("output.weight", kGgmlF16, {96, 32}, DType::kF16);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    file.Add(layer + "attn_q.bias", kGgmlF32, {64}, DType::kF32);
    file.Add(layer + "attn_k.bias", kGgmlF32, {32}, DType::kF32);
    file.Add(layer + "attn_v.bias", kGgmlF32, {32}, DType::kF32);
    file.Add(layer + "attn_output.bias", kGgmlF32, {32}, DType::kF32);
  }
  const auto model = Opened(file);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_FALSE(model->config.tie_word_embeddings);
  EXPECT_TRUE(model->config.attention_bias);
}

TEST_F(GgufModelTest, ReadsYarn) {
  GgufBuilder file = SmallGguf();
  const std::string scaling = "qwen3.rope.scaling.";
  file.Set(scaling + "type", "yarn").Set(scaling + "factor", 4.0f);
  file.Set(scaling + "original_context_length", 512u);
  const auto model = Opened(file);
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_TRUE(model->config.rope.yarn);
  EXPECT_EQ(model->config.rope.yarn->factor, 4);
  EXPECT_EQ(model->config.rope.yarn->original_max_positions, 512);
  EXPECT_EQ(model->config.max_positions, 2048);
  EXPECT_DOUBLE_EQ(model->config.rope.yarn->attention_factor, 1.138629436111989);

  file.Set(scaling + "attn_factor", 2.0f).Set(scaling + "yarn_beta_fast", 24.0f);
  const auto more = Opened(file);
  ASSERT_TRUE(more) << more.error().message;
  EXPECT_DOUBLE_EQ(more->config.rope.yarn->attention_factor, 2 * 1.138629436111989);
  EXPECT_EQ(more->config.rope.yarn->beta_fast, 24);
}

TEST_F(GgufModelTest, ReadsExperts) {
  const auto model = Opened(SmallGguf(true));
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->config.experts, 4);
  EXPECT_EQ(model->config.experts_per_token, 2);
  EXPECT_EQ(model->config.expert_intermediate_size, 24);
  EXPECT_TRUE(model->config.normalise_experts);
  const auto graph = model->BuildGraph();
  ASSERT_TRUE(graph) << graph.error().message;
  const ir::Value& gate =
      graph->value(graph->FindValue("model.layers.1.mlp.experts.gate_proj.weight"));
  EXPECT_EQ(gate.dtype, DType::kQ8_0);
  EXPECT_EQ(ir::ToString(gate.shape), "[4, 24, 32]");
  EXPECT_TRUE(gate.slices.empty());

  GgufBuilder file = SmallGguf(true);
  file.Erase("qwen3moe.expert_feed_forward_length");  // llama.cpp: 48 / 2
  const auto derived = Opened(file);
  ASSERT_TRUE(derived) << derived.error().message;
  EXPECT_EQ(derived->config.expert_intermediate_size, 24);
}

TEST_F(GgufModelTest, NamesWhatIsNotModelled) {
  EXPECT_THAT(With("general.architecture", "llama", kUnsupported),
              HasSubstr("general.architecture llama is not supported"));
  EXPECT_THAT(With("qwen3.attention.value_length", 8u, kUnsupported),
              HasSubstr("qwen3.attention.value_length is 8 where keys have 16"));
  EXPECT_THAT(With("qwen3.rope.dimension_count", 8u, kUnsupported),
              HasSubstr("dimension_count is"));
  EXPECT_THAT(With("qwen3.rope.scaling.factor", 2.0f, kUnsupported),
              HasSubstr("qwen3.rope.scaling.type linear is not supported"));
  EXPECT_THAT(With("qwen3.rope.scaling.type", "longrope", kUnsupported), HasSubstr("longrope"));
  EXPECT_THAT(With("qwen3moe.expert_weights_scale", 2.5f, kUnsupported, true),
              HasSubstr("qwen3moe.expert_weights_scale is 2.5"));
}

TEST_F(GgufModelTest, NamesWhatIsWrong) {
  EXPECT_THAT(Without("general.architecture"), HasSubstr("general.architecture is missing"));
  for (const char* key :
       {"qwen3.block_count", "qwen3.context_length", "qwen3.embedding_length",
        "qwen3.feed_forward_length", "qwen3.attention.head_count",
        "qwen3.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model", "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type", "tokenizer.ggml.merges"})
    EXPECT_THAT(Without(key), HasSubstr(std::string(key) + " is missing"));
  EXPECT_THAT(With("qwen3.block_count", "2", kInvalid),
              HasSubstr("qwen3.block_count is not a whole number"));
  EXPECT_THAT(With("qwen3.block_count", 0u, kInvalid), HasSubstr("num_hidden_layers is 0"));
  EXPECT_THAT(With("qwen3.attention.head_count", 4000000000u, kInvalid),
              HasSubstr("num_attention_heads is 4000000000"));
  EXPECT_THAT(With("qwen3.block_count", 3u, kCorrupt),
              HasSubstr("no tensor 'blk.2.attn_norm.weight' in"));
  EXPECT_THAT(With("qwen3.embedding_length", 64u, kCorrupt),
              HasSubstr("is [96, 32], not [96, 64]"));
  EXPECT_THAT(With("qwen3moe.expert_used_count", 5u, kInvalid, true),
              HasSubstr("expert_used_count is 5"));
  EXPECT_THAT(With("qwen3moe.expert_count", 0u, kInvalid, true), HasSubstr("expert_count is 0"));
  EXPECT_THAT(With("qwen3moe.expert_feed_forward_length", 4000000000u, kInvalid, true),
              HasSubstr("expert_feed_forward_length is 4000000000"));
  EXPECT_THAT(With("general.sampling.temp", -1.0f, kInvalid), HasSubstr("temperature is -1"));
  EXPECT_THAT(With("tokenizer.ggml.eos_token_id", 96u, kInvalid),
              HasSubstr("tokenizer.ggml.eos_token_id is 96"));
  GgufBuilder headless = SmallGguf();
  headless.tensors.erase(headless.tensors.begin());
  EXPECT_THAT(Failure(headless, ErrorCode::kNotFound), HasSubstr("no tensor 'token_embd.weight'"));
}

TEST_F(GgufModelTest, ListsEveryTypeThatIsNotRead) {
  GgufBuilder file = SmallGguf();
  file.At("blk.0.attn_q.weight").type = kGgmlQ5_K;
  file.At("blk.1.attn_q.weight").type = kGgmlQ5_K;
  file.At("blk.1.ffn_up.weight").type = 23;
  file.At("blk.1.ffn_down.weight").type = 1000;
  EXPECT_THAT(Failure(file, kUnsupported),
              HasSubstr("tensors of types that are not read: IQ4_XS (1 tensors), Q5_K (2 tensors), "
                        "type 1000 (1 tensors); read are F32,"));
}

TEST_F(GgufModelTest, ListsTensorsThatQwen3DoesNotHave) {
  GgufBuilder file = SmallGguf();
  for (const char* name : {"blk.0.attn_qkv.weight", "blk.x.attn_q.weight", "blk.0.attn_q.scale",
                           "cls.output.weight", "blk.12345.attn_q.weight", "output"})
    file.Add(name, kGgmlF32, {8}, DType::kF32);
  EXPECT_THAT(Failure(file, kUnsupported),
              HasSubstr("tensors that Qwen3 does not have: 'blk.0.attn_q.scale', "
                        "'blk.0.attn_qkv.weight', 'blk.12345.attn_q.weight', "
                        "'blk.x.attn_q.weight', 'cls.output.weight', 'output'"));
}

TEST(GgufNames, GoBothWays) {
  for (const auto& [gguf, hugging_face] : std::map<std::string, std::string>{
           {"token_embd.weight", "model.embed_tokens.weight"},
           {"output.weight", "lm_head.weight"},
           {"blk.93.attn_output.weight", "model.layers.93.self_attn.o_proj.weight"},
           {"blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"},
           {"blk.7.ffn_gate_inp.weight", "model.layers.7.mlp.gate.weight"},
           {"blk.7.ffn_down_exps.weight", "model.layers.7.mlp.experts.down_proj.weight"}}) {
    EXPECT_EQ(HuggingFaceName(gguf), hugging_face);
    EXPECT_EQ(GgufName(hugging_face), gguf);
  }
  EXPECT_EQ(GgufName("model.layers.0.mlp.experts.3.down_proj.weight"), std::nullopt);
}

// ---- Split files

class SplitTest : public GgufModelTest {
 protected:
  // Three parts: the first with all metadata and no tensor but one, as llama.cpp's tool writes.
  SplitTest() {
    const GgufBuilder whole = SmallGguf();
    parts[0] = whole;
    for (GgufBuilder& part : parts) part.tensors.clear();
    for (size_t i = 0; i < whole.tensors.size(); ++i)
      parts[i == 0 ? 0 : 1 + i % 2].tensors.push_back(whole.tensors[i]);
    for (uint16_t i = 0; i < 3; ++i) {
      parts[i].Put("split.no", BytesOf(uint32_t{2}) + BytesOf(i));
      parts[i].Put("split.count", BytesOf(uint32_t{2}) + BytesOf(uint16_t{3}));
      parts[i].Put("split.tensors.count",
                   BytesOf(uint32_t{5}) + BytesOf(static_cast<int32_t>(whole.tensors.size())));
    }
  }
  static std::string NameOf(int part) {
    return "small-0000" + std::to_string(part + 1) + "-of-00003.gguf";
  }
  Result<Model> Open(int part = 0) {
    for (int i = 0; i < 3; ++i) folder.Write(NameOf(i), parts[i].Build());
    return OpenModel(folder.path() / NameOf(part));
  }
  std::string Failure(int part = 0, ErrorCode code = kCorrupt) {
    const auto opened = Open(part);
    if (opened) return "";
    EXPECT_EQ(opened.error().code, code) << opened.error().message;
    return opened.error().message;
  }

  GgufBuilder parts[3];
};

TEST_F(SplitTest, AnyPartOpensAll) {
  for (int part = 0; part < 3; ++part) {
    const auto model = Open(part);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(model->config.layers, 2);
    EXPECT_TRUE(model->BuildGraph());
  }
  EXPECT_EQ(WithoutPartNumber("small-00002-of-00003"), "small");
  EXPECT_EQ(WithoutPartNumber("small-0002-of-00003"), "small-0002-of-00003");
  EXPECT_EQ(WithoutPartNumber("-00002-of-00003"), "-00002-of-00003");
}

TEST_F(SplitTest, NamesThePartThatIsMissing) {
  ASSERT_TRUE(Open());
  folder.Remove(NameOf(1));
  const auto opened = OpenModel(folder.path() / NameOf(2));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(opened.error().message, HasSubstr("small-00002-of-00003.gguf"));
}

TEST_F(SplitTest, RefusesPartsThatDoNotBelongTogether) {
  const auto parts_before = std::to_array(parts);
  const auto restore = [&] { std::ranges::copy(parts_before, parts); };
  parts[1].Put("split.no", BytesOf(uint32_t{2}) + BytesOf(uint16_t{2}));
  EXPECT_THAT(Failure(),
              HasSubstr("small-00002-of-00003.gguf: does not say that it is part 2 of 3"));
  EXPECT_THAT(Failure(1), HasSubstr("is part 3 of 3 and is not named so; expected a name that ends "
                                    "in -00003-of-00003.gguf"));
  restore();
  parts[2].Put("split.count", BytesOf(uint32_t{2}) + BytesOf(uint16_t{4}));
  EXPECT_THAT(Failure(), HasSubstr("does not say that it is part 3 of 3"));
  restore();
  parts[2].tensors.pop_back();
  EXPECT_THAT(Failure(), HasSubstr("all parts have 23 tensors, not 24"));
  restore();
  parts[2].tensors.push_back(parts[0].tensors[0]);
  EXPECT_THAT(Failure(), HasSubstr("tensor 'token_embd.weight' is in two parts"));
  restore();
  parts[0].Set("split.count", 1u << 30);
  EXPECT_THAT(Failure(), HasSubstr("split.count is 1073741824"));
  restore();
  parts[1].Erase("split.no");
  EXPECT_THAT(Failure(1, kInvalid), HasSubstr("split.no is missing"));
}

// ---- The tokenizer

TEST_F(GgufModelTest, MakesATokenizerJson) {
  const auto model = Opened(SmallGguf());
  ASSERT_TRUE(model) << model.error().message;
  const Json json = Json::parse(model->tokenizer_json);
  EXPECT_EQ(json["model"]["vocab"], Json::parse(R"({"a": 0, "ab": 2, "b": 1})"));
  EXPECT_EQ(json["model"]["merges"], Json::parse(R"([["a", "b"]])"));
  ASSERT_EQ(json["added_tokens"].size(), 2u);
  EXPECT_EQ(json["added_tokens"][0]["content"], "<|im_end|>");
  EXPECT_EQ(json["added_tokens"][0]["id"], 3);
  EXPECT_EQ(json["added_tokens"][0]["special"], true);
  EXPECT_EQ(json["added_tokens"][1]["content"], "<think>");
  EXPECT_EQ(json["added_tokens"][1]["special"], false);
}

TEST_F(GgufModelTest, RefusesOtherTokenizers) {
  EXPECT_THAT(With("tokenizer.ggml.model", "llama", kUnsupported),
              HasSubstr("the tokenizer llama with the pre-tokeniser qwen2 is not supported"));
  EXPECT_THAT(With("tokenizer.ggml.pre", "llama-bpe", kUnsupported), HasSubstr("llama-bpe"));
  EXPECT_THAT(With("tokenizer.ggml.add_bos_token", true, kUnsupported),
              HasSubstr("tokenizer.ggml.add_bos_token is not supported"));
  EXPECT_THAT(With("tokenizer.ggml.add_eos_token", true, kUnsupported), HasSubstr("add_eos_token"));
  EXPECT_THAT(With("tokenizer.ggml.tokens", std::vector<std::string>{"a"}, kInvalid),
              HasSubstr("token_type has 96 items, and there are 1 tokens"));
  EXPECT_THAT(With("tokenizer.ggml.tokens", std::vector<std::string>(96, "a"), kCorrupt),
              HasSubstr("token 1 is spelled as an earlier one: 'a'"));
  EXPECT_THAT(With("tokenizer.ggml.tokens", std::vector<std::string>(96, "\xff"), kCorrupt),
              HasSubstr("token 1 is spelled"));
  EXPECT_THAT(With("tokenizer.ggml.token_type", std::vector<int32_t>(96, 6), kUnsupported),
              HasSubstr("token 0 is of type 6"));
  for (const char* merge : {"ab", "", " ", "a "})
    EXPECT_THAT(With("tokenizer.ggml.merges", std::vector<std::string>{"a b", merge}, kCorrupt),
                HasSubstr("merge 1 is not two tokens"));
  EXPECT_THAT(With("tokenizer.ggml.merges", std::vector<std::string>{"a \xc3"}, kCorrupt),
              HasSubstr("is not UTF-8"));
}

TEST(OpenModel, RefusesOtherFiles) {
  const TestFolder folder;
  folder.Write("model.bin", "PK\x03\x04");
  const auto opened = OpenModel(folder.path() / "model.bin");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, kUnsupported);
  EXPECT_THAT(opened.error().message, HasSubstr("is neither a model folder nor a GGUF file"));
  EXPECT_EQ(OpenModel(folder.path() / "gone").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace millpower::import
