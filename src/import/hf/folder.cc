#include "import/hf/folder.h"

#include "base/mapped_file.h"
#include "import/hf/config.h"
#include "import/hf/large_json.h"
#include "import/hf/weights.h"

namespace millpower::import {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxConfigBytes = 256 << 10;  // a few kilobytes in practice
constexpr size_t kMaxTextBytes = 16 << 20;
constexpr size_t kMaxTokenizerBytes = 64 << 20;

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The text of a file that a folder need not have; empty when it has not.
Result<std::string> ReadOptional(const fs::path& path, size_t limit_bytes) {
  if (!Exists(path)) return std::string();
  return ReadFile(path, limit_bytes);
}

Result<Qwen3Config> ReadConfig(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  if (!Exists(path)) return Fail(ErrorCode::kNotFound, "no config.json in " + folder.string());
  TRY_ASSIGN(const std::string text, ReadFile(path, kMaxConfigBytes));
  auto config = ParseQwen3Config(text);
  if (!config) return FailAt(path.string(), std::move(config).error());
  return config;
}

Result<GenerationDefaults> ReadGeneration(const fs::path& folder, const Qwen3Config& config) {
  const fs::path path = folder / "generation_config.json";
  GenerationDefaults defaults;
  if (Exists(path)) {
    TRY_ASSIGN(const std::string text, ReadFile(path, kMaxConfigBytes));
    auto parsed = ParseGenerationConfig(text, config.vocab_size);
    if (!parsed) return FailAt(path.string(), std::move(parsed).error());
    defaults = *std::move(parsed);
  }
  if (defaults.eos_token_ids.empty()) defaults.eos_token_ids = config.eos_token_ids;
  return defaults;
}

// "chat_template" of tokenizer_config.json: a string, or a list of named ones, of which "default"
// is meant.
Result<std::string> TemplateOf(std::string_view tokenizer_config) {
  TRY_ASSIGN(const SortedJson json, ParseLargeObject(tokenizer_config));
  const SortedJson found = json.value("chat_template", SortedJson());
  if (found.is_null()) return std::string();
  if (found.is_string()) return found.get<std::string>();
  if (found.is_array())
    for (const SortedJson& named : found)
      if (named.is_object() && named.value("name", SortedJson()) == "default" &&
          named.value("template", SortedJson()).is_string())
        return named.at("template").get<std::string>();
  return Fail(ErrorCode::kInvalidArgument,
              "chat_template is neither a string nor a list with a template named default",
              "chat_template");
}

// A chat_template.jinja file goes before tokenizer_config.json, as in transformers.
Result<std::string> ReadChatTemplate(const fs::path& folder) {
  if (const fs::path path = folder / "chat_template.jinja"; Exists(path))
    return ReadFile(path, kMaxTextBytes);
  const fs::path path = folder / "tokenizer_config.json";
  TRY_ASSIGN(const std::string text, ReadOptional(path, kMaxTextBytes));
  if (text.empty()) return text;
  auto chat_template = TemplateOf(text);
  if (!chat_template) return FailAt(path.string(), std::move(chat_template).error());
  return chat_template;
}

}  // namespace

Result<Model> OpenHfFolder(const fs::path& path) {
  std::error_code ignored;
  if (!Exists(path)) return Fail(ErrorCode::kNotFound, path.string() + " does not exist");
  if (!fs::is_directory(path, ignored))
    return Fail(ErrorCode::kInvalidArgument, path.string() + " is not a folder");
  Model model;
  TRY_ASSIGN(model.config, ReadConfig(path));
  TRY_ASSIGN(model.generation, ReadGeneration(path, model.config));
  TRY_ASSIGN(model.weights, HfWeights::Open(path));
  if (const auto graph = model.BuildGraph(); !graph) return FailAt(path.string(), graph.error());
  TRY_ASSIGN(model.tokenizer_json, ReadOptional(path / "tokenizer.json", kMaxTokenizerBytes));
  TRY_ASSIGN(model.chat_template, ReadChatTemplate(path));

  model.notes = model.generation.notes;
  if (model.tokenizer_json.empty())
    model.notes.push_back("no tokenizer.json in " + path.string() + ": token ids only, no text");
  if (model.chat_template.empty()) model.notes.push_back("no chat template in " + path.string());
  if (model.generation.eos_token_ids.empty())
    model.notes.push_back("no eos_token_id: nothing but a length ends a generation");
  return model;
}

}  // namespace millpower::import
