#include "import/hf/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "import/hf/generation.h"
#include "import/hf/test_folder.h"

namespace millpower::import {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The small config with fields replaced; null removes nothing but is what Python writes for None.
Json With(const Json& changes) {
  Json config = SmallConfig();
  config.update(changes);
  return config;
}

Qwen3Config Parsed(const Json& config) {
  const auto parsed = ParseQwen3Config(DumpJson(config));
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed.value_or(Qwen3Config());
}

std::string Failure(const Json& config, ErrorCode code = ErrorCode::kInvalidArgument) {
  const auto parsed = ParseQwen3Config(DumpJson(config));
  if (parsed) return "";
  EXPECT_EQ(parsed.error().code, code) << parsed.error().message;
  return parsed.error().message;
}

TEST(Qwen3Config, ReadsWhatTransformers4Writes) {
  const Qwen3Config config = Parsed(SmallConfig());
  EXPECT_EQ(config.vocab_size, 96);
  EXPECT_EQ(config.hidden_size, 32);
  EXPECT_EQ(config.intermediate_size, 48);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_positions, 640);
  EXPECT_EQ(config.rms_norm_epsilon, 1e-6);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, DType::kBf16);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_FALSE(config.rope.yarn);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7));

  const Qwen3Config yarn = Parsed(With(Json::parse(
      R"({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}})")));
  ASSERT_TRUE(yarn.rope.yarn);
  EXPECT_EQ(yarn.rope.theta, 1e6);
  EXPECT_EQ(yarn.rope.yarn->factor, 4);
  EXPECT_EQ(yarn.max_positions, 2048);
  EXPECT_DOUBLE_EQ(yarn.rope.yarn->attention_factor, 1.138629436111989);
}

TEST(Qwen3Config, ReadsExperts) {
  Json json = SmallMoeConfig();
  const Qwen3Config config = Parsed(json);
  EXPECT_EQ(config.experts, 4);
  EXPECT_EQ(config.experts_per_token, 2);
  EXPECT_EQ(config.expert_intermediate_size, 24);
  EXPECT_TRUE(config.normalise_experts);
  EXPECT_THAT(config.dense_layers, ElementsAre());

  // As transformers 5 writes it.
  json.erase("num_experts");
  json["num_local_experts"] = 3;
  EXPECT_EQ(Parsed(json).experts, 3);

  // Transformers' defaults; a head_dim that is absent is derived, other than in dense models.
  for (const char* field : {"num_local_experts", "num_experts_per_tok", "moe_intermediate_size",
                            "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers", "head_dim"})
    json.erase(field);
  const Qwen3Config defaults = Parsed(json);
  EXPECT_EQ(defaults.experts, 128);
  EXPECT_EQ(defaults.experts_per_token, 8);
  EXPECT_EQ(defaults.expert_intermediate_size, 768);
  EXPECT_FALSE(defaults.normalise_experts);
  EXPECT_THAT(defaults.dense_layers, ElementsAre());
  EXPECT_EQ(defaults.head_dim, 8);
  EXPECT_EQ(Parsed(SmallConfig()).experts, 0);
}

TEST(Qwen3Config, LayersWithoutExpertsAreThoseOfTransformers) {
  const auto dense = [](int step, const Json& listed) {
    Json json = SmallMoeConfig();
    json.update({{"num_hidden_layers", 6}, {"decoder_sparse_step", step}});
    json["mlp_only_layers"] = listed;
    return Parsed(json).dense_layers;
  };
  EXPECT_THAT(dense(1, {4, 0, 4, 99, -1}), ElementsAre(0, 4));
  EXPECT_THAT(dense(1, nullptr), ElementsAre());
  EXPECT_THAT(dense(2, Json::array()), ElementsAre(0, 2, 4));
  EXPECT_THAT(dense(2, {1}), ElementsAre(0, 1, 2, 4));
  EXPECT_THAT(dense(7, Json::array()), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Qwen3Config, ExpertsThatDoNotFitAreNamed) {
  const auto failure = [](const char* field, const Json& value) {
    Json json = SmallMoeConfig();
    json[field] = value;
    return Failure(json);
  };
  EXPECT_THAT(failure("num_experts", -1), HasSubstr("num_experts is -1"));
  EXPECT_THAT(failure("num_experts", 1025), HasSubstr("num_experts is 1025"));
  EXPECT_THAT(failure("num_experts_per_tok", 5), HasSubstr("num_experts_per_tok is 5"));
  EXPECT_THAT(failure("num_experts_per_tok", 0), HasSubstr("num_experts_per_tok is 0"));
  EXPECT_THAT(failure("moe_intermediate_size", 0), HasSubstr("moe_intermediate_size is 0"));
  EXPECT_THAT(failure("decoder_sparse_step", 0), HasSubstr("decoder_sparse_step is 0"));
  EXPECT_THAT(failure("num_hidden_layers", INT64_MAX), HasSubstr("num_hidden_layers is 9"));
  EXPECT_THAT(failure("mlp_only_layers", 1), HasSubstr("mlp_only_layers is not a list"));
  EXPECT_THAT(failure("mlp_only_layers", {1, "2"}), HasSubstr("mlp_only_layers has \"2\""));
  EXPECT_THAT(failure("norm_topk_prob", "yes"), HasSubstr("norm_topk_prob is not true or false"));
}

TEST(Qwen3Config, ReadsWhatTransformers5Writes) {
  Json json = With(Json::parse(R"({"dtype": "float16", "eos_token_id": [7, 9],
      "layer_types": ["full_attention", "full_attention"],
      "rope_parameters": {"rope_theta": 5000000.0, "rope_type": "default"}})"));
  for (const char* old : {"rope_theta", "rope_scaling", "torch_dtype"}) json.erase(old);
  const Qwen3Config config = Parsed(json);
  EXPECT_EQ(config.dtype, DType::kF16);
  EXPECT_EQ(config.rope.theta, 5e6);
  EXPECT_FALSE(config.rope.yarn);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7, 9));

  json["rope_parameters"] = Json::parse(R"({"rope_theta": 1000000.0, "rope_type": "yarn",
      "factor": 2.5, "attention_factor": 1.5, "beta_fast": 24, "beta_slow": null, "truncate": false})");
  const Qwen3Config yarn = Parsed(json);
  ASSERT_TRUE(yarn.rope.yarn);
  EXPECT_EQ(yarn.rope.yarn->original_max_positions, 640);
  EXPECT_EQ(yarn.rope.yarn->attention_factor, 1.5);
  EXPECT_EQ(yarn.rope.yarn->beta_fast, 24);
  EXPECT_EQ(yarn.rope.yarn->beta_slow, 1);
  EXPECT_FALSE(yarn.rope.yarn->truncate);
  EXPECT_EQ(yarn.max_positions, 1600);
}

TEST(Qwen3Config, FillsWhatMayBeAbsent) {
  Json json = SmallConfig();
  for (const char* optional :
       {"num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "torch_dtype",
        "attention_bias", "tie_word_embeddings", "rms_norm_eps", "eos_token_id", "architectures"})
    json.erase(optional);
  const Qwen3Config config = Parsed(json);
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.rope.theta, 10000);
  EXPECT_EQ(config.dtype, DType::kF32);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_EQ(Parsed(With({{"head_dim", nullptr}})).head_dim, 8);
}

TEST(Qwen3Config, RefusesByNameWhatIsNotModelled) {
  const auto unsupported = [](const char* changes) {
    return Failure(With(Json::parse(changes)), ErrorCode::kUnsupported);
  };
  EXPECT_EQ(unsupported(R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})"),
            "architecture Qwen2ForCausalLM is not supported; supported: Qwen3ForCausalLM, "
            "Qwen3MoeForCausalLM");
  EXPECT_EQ(unsupported(R"({"architectures": null, "model_type": "llama"})"),
            "model_type llama is not supported; supported: qwen3, qwen3_moe");
  EXPECT_THAT(Failure(With({{"architectures", {"Qwen3MoeForCausalLM"}}})),
              HasSubstr("model_type is qwen3, which is not the architecture"));
  EXPECT_THAT(unsupported(R"({"architectures": []})"), HasSubstr("architecture [] is not"));
  EXPECT_THAT(unsupported(R"({"quantization_config": {"quant_method": "fp8"}})"),
              HasSubstr("quantization_config (\"fp8\") is not supported"));
  EXPECT_THAT(unsupported(R"({"use_sliding_window": true})"), HasSubstr("use_sliding_window"));
  EXPECT_THAT(unsupported(R"({"layer_types": ["full_attention", "sliding_attention"]})"),
              HasSubstr("layer type \"sliding_attention\""));
  EXPECT_THAT(unsupported(R"({"hidden_act": "gelu"})"), HasSubstr("hidden_act gelu"));
  EXPECT_THAT(unsupported(R"({"torch_dtype": "float8"})"), HasSubstr("dtype float8"));
  EXPECT_THAT(unsupported(R"({"rope_scaling": {"rope_type": "linear", "factor": 2}})"),
              HasSubstr("rope type linear is not supported; supported: default, yarn"));
  EXPECT_THAT(unsupported(R"({"rope_parameters": {"partial_rotary_factor": 0.5}})"),
              HasSubstr("partial_rotary_factor"));
}

TEST(Qwen3Config, ChecksEveryNumber) {
  const auto invalid = [](const char* changes) { return Failure(With(Json::parse(changes))); };
  for (const char* field :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const Json& value : {Json(0), Json(-1), Json(INT64_MAX), Json(UINT64_MAX), Json(2.5),
                              Json("4"), Json::array({4})})
      EXPECT_THAT(Failure(With({{field, value}, {"eos_token_id", nullptr}})), HasSubstr(field))
          << value;
  }
  Json missing = SmallConfig();
  missing.erase("hidden_size");
  EXPECT_EQ(Failure(missing), "hidden_size is missing");
  EXPECT_THAT(invalid(R"({"num_key_value_heads": 3})"), HasSubstr("does not divide"));
  EXPECT_THAT(invalid(R"({"head_dim": 15})"), HasSubstr("head_dim is odd"));
  EXPECT_THAT(invalid(R"({"head_dim": 514})"), HasSubstr("head_dim is 514, not in 1 to 512"));
  EXPECT_THAT(invalid(R"({"rms_norm_eps": -1})"), HasSubstr("rms_norm_eps is -1.0"));
  EXPECT_THAT(invalid(R"({"rope_theta": 1})"), HasSubstr("rope_theta"));
  EXPECT_THAT(invalid(R"({"eos_token_id": 96})"), HasSubstr("no token id below 96"));
  EXPECT_THAT(invalid(R"({"eos_token_id": [1, -2]})"), HasSubstr("has -2"));
  EXPECT_THAT(invalid(R"({"rope_scaling": {"type": "yarn"}})"), HasSubstr("factor is missing"));
  EXPECT_THAT(invalid(R"({"rope_scaling": {"type": "yarn", "factor": 0.5}})"),
              HasSubstr("factor is 0.5"));
  EXPECT_THAT(invalid(R"({"rope_scaling": {"type": "yarn", "factor": 1e300}})"),
              HasSubstr("factor is 1e+300"));
  EXPECT_THAT(invalid(R"({"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 0}})"),
              HasSubstr("beta_fast"));
  EXPECT_THAT(invalid(R"({"rope_scaling": []})"), HasSubstr("rope_scaling is not an object"));
  EXPECT_EQ(Failure(Json::array()), "JSON is not an object");
}

TEST(GenerationConfig, ReadsDefaults) {
  const auto qwen = ParseGenerationConfig(
      R"({"bos_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643],
          "pad_token_id": 151643, "temperature": 0.6, "top_k": 20, "top_p": 0.95,
          "transformers_version": "4.51.0"})",
      151936);
  ASSERT_TRUE(qwen) << qwen.error().message;
  EXPECT_EQ(qwen->temperature, 0.6);
  EXPECT_EQ(qwen->top_k, 20);
  EXPECT_EQ(qwen->top_p, 0.95);
  EXPECT_EQ(qwen->min_p, 0);
  EXPECT_THAT(qwen->eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_TRUE(qwen->notes.empty());

  const auto greedy = ParseGenerationConfig(
      R"({"do_sample": false, "temperature": 0.7, "repetition_penalty": 1.05, "num_beams": 1,
          "max_new_tokens": 2048, "min_p": 0.1})",
      96);
  ASSERT_TRUE(greedy) << greedy.error().message;
  EXPECT_EQ(greedy->temperature, 0);
  EXPECT_EQ(greedy->max_new_tokens, 2048);
  EXPECT_THAT(greedy->notes, ElementsAre("repetition_penalty 1.05 is not applied"));
}

TEST(GenerationConfig, ChecksEveryField) {
  for (const char* text :
       {R"({"temperature": -1})", R"({"temperature": "hot"})", R"({"top_p": 0})",
        R"({"top_p": 1.5})", R"({"min_p": 2})", R"({"top_k": -1})", R"({"max_new_tokens": 0})",
        R"({"eos_token_id": 96})", R"({"eos_token_id": "x"})", R"({"do_sample": 1})", "[]", ""}) {
    const auto parsed = ParseGenerationConfig(text, 96);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace millpower::import
