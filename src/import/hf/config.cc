#include "import/hf/config.h"

#include <set>
#include <string>

#include "import/hf/json_fields.h"

namespace millpower::import {
namespace {

std::unexpected<Error> Unsupported(std::string message, const char* field) {
  return Fail(ErrorCode::kUnsupported, std::move(message), field);
}

// Whether it is qwen3_moe; otherwise it is qwen3.
Result<bool> HasExperts(const JsonFields& fields) {
  const Json dense = Json::array({"Qwen3ForCausalLM"});
  const Json moe = Json::array({"Qwen3MoeForCausalLM"});
  const Json* architectures = fields.Find("architectures");
  if (architectures != nullptr && *architectures != dense && *architectures != moe) {
    const bool named = architectures->is_array() && architectures->size() == 1;
    const Json& name = named ? (*architectures)[0] : *architectures;
    return Unsupported("architecture " +
                           (name.is_string() ? name.get<std::string>() : DumpJson(name)) +
                           " is not supported; supported: Qwen3ForCausalLM, Qwen3MoeForCausalLM",
                       "architectures");
  }
  TRY_ASSIGN(const std::string type, fields.String("model_type"));
  if (type != "qwen3" && type != "qwen3_moe")
    return Unsupported("model_type " + type + " is not supported; supported: qwen3, qwen3_moe",
                       "model_type");
  const bool experts = type == "qwen3_moe";
  if (architectures != nullptr && (*architectures == moe) != experts)
    return Fail(
        ErrorCode::kInvalidArgument,
        "model_type is " + type + ", which is not the architecture " + DumpJson(*architectures),
        "model_type");
  return experts;
}

// What changes the mathematics and is not modelled.
Result<void> CheckNothingElse(const JsonFields& fields) {
  if (const Json* quantization = fields.Find("quantization_config")) {
    const bool named = quantization->is_object() && quantization->contains("quant_method");
    return Unsupported("quantization_config (" +
                           DumpJson(named ? quantization->at("quant_method") : *quantization) +
                           ") is not supported; take the model that is not quantised",
                       "quantization_config");
  }
  TRY_ASSIGN(const bool sliding, fields.Bool("use_sliding_window", false));
  if (sliding) return Unsupported("use_sliding_window is not supported", "use_sliding_window");
  if (const Json* types = fields.Find("layer_types"))
    for (const Json& type : *types)
      if (type != "full_attention")
        return Unsupported(
            "layer type " + DumpJson(type) + " is not supported; supported: full_attention",
            "layer_types");
  TRY_ASSIGN(const std::string activation, fields.String("hidden_act", "silu"));
  if (activation == "silu") return {};
  return Unsupported("hidden_act " + activation + " is not supported; supported: silu",
                     "hidden_act");
}

Result<DType> ParseDType(const JsonFields& fields) {
  TRY_ASSIGN(const std::string old_name, fields.String("torch_dtype", "float32"));
  TRY_ASSIGN(const std::string name, fields.String("dtype", old_name));
  if (name == "bfloat16") return DType::kBf16;
  if (name == "float16") return DType::kF16;
  if (name == "float32") return DType::kF32;
  return Unsupported("dtype " + name + " is not supported; supported: bfloat16, float16, float32",
                     "dtype");
}

Result<Yarn> ParseYarn(const JsonFields& fields, int64_t max_position_embeddings) {
  Yarn yarn;
  TRY_ASSIGN(yarn.factor, fields.Real("factor"));
  TRY_ASSIGN(yarn.original_max_positions,
             fields.Integer("original_max_position_embeddings", max_position_embeddings));
  TRY_ASSIGN(yarn.beta_fast, fields.Real("beta_fast", yarn.beta_fast));
  TRY_ASSIGN(yarn.beta_slow, fields.Real("beta_slow", yarn.beta_slow));
  TRY_ASSIGN(yarn.truncate, fields.Bool("truncate", true));
  TRY_ASSIGN(const double mscale, fields.Real("mscale", 0));
  TRY_ASSIGN(const double mscale_all_dim, fields.Real("mscale_all_dim", 0));
  yarn.attention_factor = DefaultYarnAttentionFactor(yarn.factor);
  if (mscale != 0 && mscale_all_dim != 0)
    yarn.attention_factor = DefaultYarnAttentionFactor(yarn.factor, mscale) /
                            DefaultYarnAttentionFactor(yarn.factor, mscale_all_dim);
  TRY_ASSIGN(yarn.attention_factor, fields.Real("attention_factor", yarn.attention_factor));
  return yarn;
}

Result<RopeConfig> ParseRope(const JsonFields& config, int64_t max_position_embeddings) {
  RopeConfig rope;
  TRY_ASSIGN(rope.theta, config.Real("rope_theta", rope.theta));
  const char* field =
      config.Find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const Json* parameters = config.Find(field);
  if (parameters == nullptr) return rope;
  if (!parameters->is_object())
    return Fail(ErrorCode::kInvalidArgument, std::string(field) + " is not an object", field);
  const JsonFields fields(*parameters);
  TRY_ASSIGN(rope.theta, fields.Real("rope_theta", rope.theta));
  TRY_ASSIGN(const double rotated, fields.Real("partial_rotary_factor", 1));
  if (rotated != 1) return Unsupported("partial_rotary_factor is not supported", field);
  TRY_ASSIGN(const std::string old_type, fields.String("type", "default"));
  TRY_ASSIGN(const std::string type, fields.String("rope_type", old_type));
  if (type == "default") return rope;
  if (type != "yarn")
    return Unsupported("rope type " + type + " is not supported; supported: default, yarn", field);
  auto yarn = ParseYarn(fields, max_position_embeddings);
  if (!yarn) return FailAt(field, std::move(yarn).error());
  rope.yarn = *yarn;
  return rope;
}

// Layers of transformers' Qwen3MoeDecoderLayer that have a plain MLP: those listed, and of the
// others all but every decoder_sparse_step-th.
Result<std::vector<int64_t>> DenseLayers(const JsonFields& fields, int64_t layers) {
  TRY_ASSIGN(const int64_t step, fields.Integer("decoder_sparse_step", 1));
  TRY(ExpectIn("decoder_sparse_step", step, 1, 1 << 10));
  TRY(ExpectIn("num_hidden_layers", layers, 1, 1 << 10));
  std::set<int64_t> dense;
  if (const Json* listed = fields.Find("mlp_only_layers")) {
    if (!listed->is_array())
      return Fail(ErrorCode::kInvalidArgument, "mlp_only_layers is not a list", "mlp_only_layers");
    for (const Json& layer : *listed) {
      if (!layer.is_number_integer())
        return Fail(ErrorCode::kInvalidArgument,
                    "mlp_only_layers has " + DumpJson(layer) + ", which is no layer",
                    "mlp_only_layers");
      // Python compares for equality only: a layer that is not there changes nothing.
      if (layer >= 0 && layer < layers) dense.insert(layer.get<int64_t>());
    }
  }
  for (int64_t layer = 0; layer < layers; ++layer)
    if ((layer + 1) % step != 0) dense.insert(layer);
  return std::vector<int64_t>(dense.begin(), dense.end());
}

// Defaults are those of transformers' Qwen3MoeConfig.
Result<void> ParseExperts(const JsonFields& fields, Qwen3Config& config) {
  // transformers 5 writes num_local_experts, and takes either.
  TRY_ASSIGN(const int64_t experts, fields.Integer("num_experts", 128));
  TRY_ASSIGN(config.experts, fields.Integer("num_local_experts", experts));
  TRY_ASSIGN(config.experts_per_token, fields.Integer("num_experts_per_tok", 8));
  TRY_ASSIGN(config.expert_intermediate_size, fields.Integer("moe_intermediate_size", 768));
  TRY_ASSIGN(config.normalise_experts, fields.Bool("norm_topk_prob", false));
  TRY_ASSIGN(config.dense_layers, DenseLayers(fields, config.layers));
  return {};
}

}  // namespace

Result<Qwen3Config> ParseQwen3Config(std::string_view config_json) {
  TRY_ASSIGN(const Json json, ParseJsonObject(config_json));
  const JsonFields fields(json);
  TRY_ASSIGN(const bool has_experts, HasExperts(fields));
  TRY(CheckNothingElse(fields));
  Qwen3Config config;
  TRY_ASSIGN(config.vocab_size, fields.Integer("vocab_size"));
  TRY_ASSIGN(config.hidden_size, fields.Integer("hidden_size"));
  TRY_ASSIGN(config.intermediate_size, fields.Integer("intermediate_size"));
  TRY_ASSIGN(config.layers, fields.Integer("num_hidden_layers"));
  TRY_ASSIGN(config.heads, fields.Integer("num_attention_heads"));
  TRY_ASSIGN(config.kv_heads, fields.Integer("num_key_value_heads", config.heads));
  TRY_ASSIGN(config.max_positions, fields.Integer("max_position_embeddings"));
  TRY_ASSIGN(config.rms_norm_epsilon, fields.Real("rms_norm_eps", config.rms_norm_epsilon));
  TRY_ASSIGN(config.attention_bias, fields.Bool("attention_bias", false));
  TRY_ASSIGN(config.tie_word_embeddings, fields.Bool("tie_word_embeddings", false));
  TRY_ASSIGN(config.dtype, ParseDType(fields));
  TRY_ASSIGN(config.rope, ParseRope(fields, config.max_positions));
  // An absent head_dim is 128, the default of transformers' Qwen3Config; a null one is derived, and
  // so is an absent one by Qwen3MoeConfig, which has no default.
  const int64_t derived = config.heads > 0 ? config.hidden_size / config.heads : 0;
  TRY_ASSIGN(config.head_dim,
             fields.Integer("head_dim", has_experts || json.contains("head_dim") ? derived : 128));
  if (has_experts) TRY(ParseExperts(fields, config));
  TRY_ASSIGN(config.eos_token_ids, TokenIds(fields, "eos_token_id", config.vocab_size));
  TRY(ExtendContext(config));
  TRY(Validate(config));
  return config;
}

}  // namespace millpower::import
