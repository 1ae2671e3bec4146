#include "import/hf/config.h"

#include <string>

#include "import/hf/json_fields.h"

namespace millpower::import {
namespace {

std::unexpected<Error> Unsupported(std::string message, const char* field) {
  return Fail(ErrorCode::kUnsupported, std::move(message), field);
}

Result<void> CheckArchitecture(const JsonFields& fields) {
  const Json* architectures = fields.Find("architectures");
  if (architectures != nullptr && *architectures != Json::array({"Qwen3ForCausalLM"})) {
    const bool named = architectures->is_array() && architectures->size() == 1;
    const Json& name = named ? (*architectures)[0] : *architectures;
    return Unsupported("architecture " +
                           (name.is_string() ? name.get<std::string>() : DumpJson(name)) +
                           " is not supported; supported: Qwen3ForCausalLM",
                       "architectures");
  }
  TRY_ASSIGN(const std::string type, fields.String("model_type"));
  if (type == "qwen3") return {};
  return Unsupported("model_type " + type + " is not supported; supported: qwen3", "model_type");
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

}  // namespace

Result<Qwen3Config> ParseQwen3Config(std::string_view config_json) {
  TRY_ASSIGN(const Json json, ParseJsonObject(config_json));
  const JsonFields fields(json);
  TRY(CheckArchitecture(fields));
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
  // An absent head_dim is 128, the default of transformers' Qwen3Config; a null one is derived.
  const int64_t derived = config.heads > 0 ? config.hidden_size / config.heads : 0;
  TRY_ASSIGN(config.head_dim,
             fields.Integer("head_dim", json.contains("head_dim") ? derived : 128));
  TRY_ASSIGN(config.eos_token_ids, TokenIds(fields, "eos_token_id", config.vocab_size));
  if (config.rope.yarn) {
    TRY(Validate(*config.rope.yarn));
    config.max_positions = static_cast<int64_t>(
        static_cast<double>(config.rope.yarn->original_max_positions) * config.rope.yarn->factor);
  }
  TRY(Validate(config));
  return config;
}

}  // namespace millpower::import
