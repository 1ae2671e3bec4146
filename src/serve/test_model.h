// A model for tests: a token per byte, the markers of Qwen3's chat format, and an engine that says
// what the test tells it to.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/fake_engine.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "text/tokenizer.h"

namespace millpower::serve {

inline constexpr int32_t kEndOfText = 256, kImStart = 257, kImEnd = 258;  // below: bytes
inline constexpr int32_t kTestVocabSize = 263;

// tokenizer.json of that vocabulary.
std::string TestTokenizerJson();

// The tokens of a text, and the end of the turn.
std::vector<int32_t> Say(std::string_view text);

struct TestModel {
  // `say`: the answer to a request.
  explicit TestModel(std::function<std::string(const engine::Request&)> say,
                     int32_t max_model_len = 1000, engine::Hooks* hooks = nullptr);

  std::unique_ptr<text::Tokenizer> tokenizer;
  ModelMetrics metrics;
  FakeEngine engine;
  ServedModel served;  // named "test"
};

}  // namespace millpower::serve
