// The models that are served under this roof.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace millpower::serve {

// What a request gets that does not say. Already merged: a flag of the operator's over the model's
// own generation_config.json.
struct GenerationDefaults {
  float temperature = 1.0f;
  int32_t top_k = 0;  // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  // Tokens of a chat answer at most; absent: the rest of the context.
  std::optional<int32_t> max_tokens{};
  // The model's end-of-text ids, whose text is never shown. (The engine, which stops at them, has
  // its own copy.)
  std::vector<int32_t> eos_token_ids;
};

// Immutable. The engine and the tokenizer outlive every request that uses them.
struct ServedModel {
  std::string name;
  int64_t created_unix_s = 0;
  engine::Engine* engine = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  text::ChatFormat chat_format = text::ChatFormat::kQwen3;
  GenerationDefaults defaults;
  int32_t max_model_len = 0;  // prompt and output of one request, in tokens
};

// Thread-safe. A request keeps the model it found even if that is removed meanwhile.
class ModelRegistry {
 public:
  // Replaces a model of the same name.
  void Add(ServedModel model);
  void Remove(const std::string& name);

  // Errors: kNotFound, with "model" as param.
  Result<std::shared_ptr<const ServedModel>> Find(const std::string& name) const;
  // In the order in which they were added.
  std::vector<std::shared_ptr<const ServedModel>> All() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const ServedModel>> models_;
};

}  // namespace millpower::serve
