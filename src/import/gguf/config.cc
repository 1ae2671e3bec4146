#include "import/gguf/config.h"

#include <string>

#include "import/ranges.h"

namespace millpower::import {
namespace {

std::unexpected<Error> Unsupported(const std::string& key, const std::string& message) {
  return Fail(ErrorCode::kUnsupported, key + " " + message, key);
}

// Some conversions say what is the only case that we model, and some leave it out.
Result<void> CheckReal(const GgufFields& metadata, const std::string& key, double expected) {
  TRY_ASSIGN(const double value, metadata.Real(key, expected));
  if (value == expected) return {};
  return Unsupported(key, "is " + std::to_string(value) + ", which is not supported");
}

Result<RopeConfig> ParseRope(const GgufFields& metadata, const std::string& arch,
                             int64_t context_length) {
  const std::string rope = arch + ".rope.", scaling = rope + "scaling.";
  RopeConfig config;
  TRY_ASSIGN(config.theta, metadata.Real(rope + "freq_base", 10000));
  TRY_ASSIGN(const double factor, metadata.Real(scaling + "factor", 1));
  TRY_ASSIGN(const auto type, metadata.String(scaling + "type", factor == 1 ? "none" : "linear"));
  if (type == "none" || (type == "linear" && factor == 1)) return config;
  if (type != "yarn")
    return Unsupported(scaling + "type",
                       std::string(type) + " is not supported; supported: none, yarn");
  TRY(CheckReal(metadata, scaling + "yarn_ext_factor", 1));
  TRY(CheckReal(metadata, scaling + "yarn_log_multiplier", 0));
  Yarn yarn;
  yarn.factor = factor;
  TRY_ASSIGN(yarn.original_max_positions,
             metadata.Integer(scaling + "original_context_length", context_length));
  TRY_ASSIGN(yarn.beta_fast, metadata.Real(scaling + "yarn_beta_fast", yarn.beta_fast));
  TRY_ASSIGN(yarn.beta_slow, metadata.Real(scaling + "yarn_beta_slow", yarn.beta_slow));
  // What the converter writes of a config.json's attention_factor; llama.cpp's own multiplies.
  TRY_ASSIGN(yarn.attention_factor,
             metadata.Real(scaling + "yarn_attn_factor", DefaultYarnAttentionFactor(yarn.factor)));
  TRY_ASSIGN(const double more, metadata.Real(scaling + "attn_factor", 1));
  yarn.attention_factor *= more;
  config.yarn = yarn;
  return config;
}

Result<void> ParseExperts(const GgufFields& metadata, const std::string& arch,
                          Qwen3Config& config) {
  TRY_ASSIGN(config.experts, metadata.Integer(arch + ".expert_count"));
  TRY(ExpectIn("expert_count", config.experts, 1, 1 << 10));
  TRY_ASSIGN(config.experts_per_token, metadata.Integer(arch + ".expert_used_count"));
  TRY(ExpectIn("expert_used_count", config.experts_per_token, 1, config.experts));
  TRY_ASSIGN(config.expert_intermediate_size,
             metadata.Integer(arch + ".expert_feed_forward_length",
                              config.intermediate_size / config.experts_per_token));
  TRY(ExpectIn("expert_feed_forward_length", config.expert_intermediate_size, 1, 1 << 20));
  TRY_ASSIGN(config.normalise_experts, metadata.Bool(arch + ".expert_weights_norm", true));
  return CheckReal(metadata, arch + ".expert_weights_scale", 1);
}

}  // namespace

Result<Qwen3Config> ParseGgufConfig(const GgufFields& metadata, const ir::WeightSource& weights) {
  TRY_ASSIGN(const auto architecture, metadata.String("general.architecture"));
  if (architecture != "qwen3" && architecture != "qwen3moe")
    return Unsupported("general.architecture",
                       std::string(architecture) + " is not supported; supported: qwen3, qwen3moe");
  const std::string arch(architecture), attention = arch + ".attention.";
  TRY_ASSIGN(const ir::TensorView embedding, weights.Find("model.embed_tokens.weight"));
  Qwen3Config config;
  config.vocab_size = embedding.shape.front();
  TRY_ASSIGN(config.hidden_size, metadata.Integer(arch + ".embedding_length"));
  TRY_ASSIGN(config.layers, metadata.Integer(arch + ".block_count"));
  TRY_ASSIGN(config.heads, metadata.Integer(attention + "head_count"));
  TRY_ASSIGN(config.kv_heads, metadata.Integer(attention + "head_count_kv", config.heads));
  TRY_ASSIGN(config.max_positions, metadata.Integer(arch + ".context_length"));
  TRY_ASSIGN(config.rms_norm_epsilon, metadata.Real(attention + "layer_norm_rms_epsilon"));
  const int64_t derived = config.heads > 0 ? config.hidden_size / config.heads : 0;
  TRY_ASSIGN(config.head_dim, metadata.Integer(attention + "key_length", derived));
  for (const std::string& key : {attention + "value_length", arch + ".rope.dimension_count"}) {
    TRY_ASSIGN(const int64_t length, metadata.Integer(key, config.head_dim));
    if (length != config.head_dim)
      return Unsupported(key, "is " + std::to_string(length) + " where keys have " +
                                  std::to_string(config.head_dim) + ", which is not supported");
  }
  if (arch == "qwen3") {
    TRY_ASSIGN(config.intermediate_size, metadata.Integer(arch + ".feed_forward_length"));
  } else {
    // No layer is dense, so that nothing has this size; some files leave it out, or write 0.
    TRY_ASSIGN(config.intermediate_size, metadata.Integer(arch + ".feed_forward_length", 0));
    TRY(ParseExperts(metadata, arch, config));
    if (config.intermediate_size == 0)
      config.intermediate_size = config.experts_per_token * config.expert_intermediate_size;
  }
  config.tie_word_embeddings = !weights.Find("lm_head.weight").has_value();
  config.attention_bias = weights.Find("model.layers.0.self_attn.q_proj.bias").has_value();
  TRY_ASSIGN(config.rope, ParseRope(metadata, arch, config.max_positions));
  TRY(ExtendContext(config));
  TRY(Validate(config));
  return config;
}

}  // namespace millpower::import
