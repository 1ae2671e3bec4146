#include "import/qwen3/config.h"

#include <algorithm>

#include "import/ranges.h"

namespace millpower::import {

Result<void> Validate(const Yarn& yarn) {
  TRY(ExpectIn("factor", yarn.factor, 1.0, 1e6));
  TRY(ExpectIn("original_max_position_embeddings", yarn.original_max_positions, 1, 1 << 24));
  TRY(ExpectIn("attention_factor", yarn.attention_factor, 0.0, 1e3));
  TRY(ExpectIn("beta_fast", yarn.beta_fast, 1e-6, 1e6));
  return ExpectIn("beta_slow", yarn.beta_slow, 1e-6, 1e6);
}

Result<void> ValidateExperts(const Qwen3Config& config) {
  TRY(ExpectIn("num_experts", config.experts, 0, 1 << 10));
  if (config.experts == 0) return {};
  const int64_t most = std::min<int64_t>(config.experts, 32);
  TRY(ExpectIn("num_experts_per_tok", config.experts_per_token, 1, most));
  TRY(ExpectIn("moe_intermediate_size", config.expert_intermediate_size, 1, 1 << 20));
  for (size_t i = 0; i < config.dense_layers.size(); ++i) {
    const int64_t above = i == 0 ? 0 : config.dense_layers[i - 1] + 1;
    TRY(ExpectIn("mlp_only_layers", config.dense_layers[i], above, config.layers - 1));
  }
  return {};
}

Result<void> ExtendContext(Qwen3Config& config) {
  if (!config.rope.yarn) return {};
  TRY(Validate(*config.rope.yarn));
  config.max_positions = static_cast<int64_t>(
      static_cast<double>(config.rope.yarn->original_max_positions) * config.rope.yarn->factor);
  return {};
}

Result<void> Validate(const Qwen3Config& config) {
  // Far above any published model, and low enough that products of three stay below 2^63. Positions
  // up to 2^24 are exact as float32, in which angles are computed.
  TRY(ExpectIn("vocab_size", config.vocab_size, 1, 1 << 24));
  TRY(ExpectIn("hidden_size", config.hidden_size, 1, 1 << 18));
  TRY(ExpectIn("intermediate_size", config.intermediate_size, 1, 1 << 20));
  TRY(ExpectIn("num_hidden_layers", config.layers, 1, 1 << 10));
  TRY(ExpectIn("num_attention_heads", config.heads, 1, 1 << 10));
  TRY(ExpectIn("num_key_value_heads", config.kv_heads, 1, config.heads));
  TRY(ExpectIn("head_dim", config.head_dim, 1, 512));
  TRY(ExpectIn("max_position_embeddings", config.max_positions, 1, 1 << 24));
  TRY(ExpectIn("rms_norm_eps", config.rms_norm_epsilon, 0.0, 0.1));
  TRY(ExpectIn("rope_theta", config.rope.theta, 1.001, 1e12));
  if (config.rope.yarn) TRY(Validate(*config.rope.yarn));
  TRY(ValidateExperts(config));
  if (config.head_dim % 2 != 0)
    return Fail(ErrorCode::kInvalidArgument, "head_dim is odd", "head_dim");
  if (config.heads % config.kv_heads != 0)
    return Fail(ErrorCode::kInvalidArgument,
                "num_key_value_heads does not divide num_attention_heads", "num_key_value_heads");
  return {};
}

}  // namespace millpower::import
