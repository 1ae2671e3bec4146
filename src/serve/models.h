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

class ModelMetrics;

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

// Immutable. What it points to outlives every request that uses it.
struct ServedModel {
  std::string name;
  int64_t created_unix_s = 0;
  engine::Engine* engine = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  ModelMetrics* metrics = nullptr;
  text::ChatFormat chat_format = text::ChatFormat::kQwen3;
  GenerationDefaults defaults;
  int32_t max_model_len = 0;   // prompt and output of one request, in tokens
  bool priority_tier = false;  // clients may ask for service_tier "priority"
  int64_t weights_bytes = 0;   // for those who ask what it takes
  int64_t kv_bytes = 0;
  std::shared_ptr<void> owner = nullptr;  // of what it points to, if nobody else keeps that
};

// Thread-safe. A request keeps the model it found even if that is removed meanwhile.
class ModelRegistry {
 public:
  // A model of that name will come: requests for it are told to wait. `at_start`: the server is not
  // ready before.
  void Announce(const std::string& name, bool at_start);
  // Replaces a model of the same name.
  void Add(ServedModel model);
  void Add(std::shared_ptr<const ServedModel> model);
  // A model, or what was announced.
  void Remove(const std::string& name);

  // Errors, with "model" as param: kNotFound; kUnavailable for one that is announced.
  Result<std::shared_ptr<const ServedModel>> Find(const std::string& name) const;
  // kNotFound as Find says it.
  static std::unexpected<Error> NoSuchModel(const std::string& name);
  // In the order in which they were added.
  std::vector<std::shared_ptr<const ServedModel>> All() const;
  // Whether a model that was announced at the start has still to come.
  bool IsAwaited() const;
  // Whether there is a model, and all that were announced at the start have come or are removed.
  bool IsReady() const;

 private:
  struct Announced {
    std::string name;
    bool at_start = false;
  };

  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const ServedModel>> models_;
  std::vector<Announced> announced_;
};

}  // namespace millpower::serve
