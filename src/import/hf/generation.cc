#include "import/hf/generation.h"

#include "import/hf/json_fields.h"

namespace millpower::import {
namespace {

// Fields that change what is generated, with the value at which they do not.
constexpr struct {
  const char* field;
  double neutral;
} kNotApplied[] = {
    {"repetition_penalty", 1},
    {"encoder_repetition_penalty", 1},
    {"no_repeat_ngram_size", 0},
    {"typical_p", 1},
    {"epsilon_cutoff", 0},
    {"eta_cutoff", 0},
    {"num_beams", 1},
    {"penalty_alpha", 0},
    {"length_penalty", 1},
    {"min_new_tokens", 0},
    {"guidance_scale", 1},
    {"top_h", 1},
    {"exponential_decay_length_penalty", 0},
};

}  // namespace

Result<GenerationDefaults> ParseGenerationConfig(std::string_view generation_config_json,
                                                 int64_t vocab_size) {
  TRY_ASSIGN(const Json json, ParseJsonObject(generation_config_json));
  const JsonFields fields(json);
  GenerationDefaults defaults;
  TRY_ASSIGN(defaults.temperature, fields.Real("temperature", defaults.temperature));
  TRY_ASSIGN(defaults.top_p, fields.Real("top_p", defaults.top_p));
  TRY_ASSIGN(defaults.min_p, fields.Real("min_p", defaults.min_p));
  TRY_ASSIGN(defaults.top_k, fields.Integer("top_k", defaults.top_k));
  TRY_ASSIGN(defaults.eos_token_ids, TokenIds(fields, "eos_token_id", vocab_size));
  TRY(ExpectIn("temperature", defaults.temperature, 0.0, 100.0));
  TRY(ExpectIn("top_p", defaults.top_p, 1e-6, 1.0));
  TRY(ExpectIn("min_p", defaults.min_p, 0.0, 1.0));
  TRY(ExpectIn("top_k", defaults.top_k, 0, INT32_MAX));
  TRY_ASSIGN(const bool sample, fields.Bool("do_sample", true));
  if (!sample) defaults.temperature = 0;
  if (fields.Find("max_new_tokens") != nullptr) {
    TRY_ASSIGN(const int64_t max_new_tokens, fields.Integer("max_new_tokens"));
    TRY(ExpectIn("max_new_tokens", max_new_tokens, 1, INT32_MAX));
    defaults.max_new_tokens = max_new_tokens;
  }
  for (const auto& [field, neutral] : kNotApplied)
    if (const Json* value = fields.Find(field); value != nullptr && *value != neutral)
      defaults.notes.push_back(std::string(field) + " " + DumpJson(*value) + " is not applied");
  return defaults;
}

}  // namespace millpower::import
