#include "import/gguf/model.h"

#include "base/json.h"
#include "import/gguf/config.h"
#include "import/gguf/tokenizer.h"
#include "import/gguf/weights.h"

namespace millpower::import {
namespace {

// How the makers want the model sampled: general.sampling.*, if it is there.
Result<GenerationDefaults> ParseSampling(const GgufFields& metadata, int64_t vocab_size) {
  Json json = Json::object();
  constexpr struct {
    const char* key;
    const char* field;  // of a generation_config.json
  } kReals[] = {{"temp", "temperature"},
                {"top_p", "top_p"},
                {"min_p", "min_p"},
                {"penalty_repeat", "repetition_penalty"}};
  const std::string prefix = "general.sampling.";
  for (const auto& [key, field] : kReals) {
    if (!metadata.Has(prefix + key)) continue;
    TRY_ASSIGN(const double value, metadata.Real(prefix + key));
    json[field] = value;
  }
  if (metadata.Has(prefix + "top_k")) {
    TRY_ASSIGN(const int64_t top_k, metadata.Integer(prefix + "top_k"));
    json["top_k"] = std::max<int64_t>(top_k, 0);  // llama.cpp: 0 and below are all tokens
  }
  TRY_ASSIGN(json["eos_token_id"], EndTokens(metadata, vocab_size));
  return ParseGenerationConfig(DumpJson(json), vocab_size);
}

}  // namespace

Result<Model> OpenGguf(const std::filesystem::path& path) {
  auto weights = GgufWeights::Open(path);  // its errors name the file, or another part
  if (!weights) return std::unexpected(std::move(weights).error());
  const GgufFields metadata((*weights)->metadata());
  Model model;
  const auto read = [&]() -> Result<void> {
    TRY_ASSIGN(model.config, ParseGgufConfig(metadata, **weights));
    TRY_ASSIGN(model.generation, ParseSampling(metadata, model.config.vocab_size));
    TRY_ASSIGN(model.tokenizer_json, TokenizerJson(metadata));
    TRY_ASSIGN(const auto chat_template, metadata.String("tokenizer.chat_template", ""));
    model.chat_template = chat_template;
    TRY(BuildQwen3Graph(model.config, {}, weights->get()));
    return {};
  };
  if (auto done = read(); !done) return FailAt(path.string(), std::move(done).error());
  model.config.eos_token_ids = model.generation.eos_token_ids;
  model.weights = *std::move(weights);
  model.notes = model.generation.notes;
  if (model.chat_template.empty()) model.notes.push_back("no chat template in " + path.string());
  if (model.generation.eos_token_ids.empty())
    model.notes.push_back("no eos_token_id: nothing but a length ends a generation");
  return model;
}

}  // namespace millpower::import
