// The bodies of API requests, read and checked before any work starts. A field that would change
// the answer and that we do not support is refused by name; unknown fields are ignored, as OpenAI's
// clients expect.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/engine.h"
#include "serve/models.h"
#include "text/chat.h"

namespace millpower::serve {

inline constexpr int kStopStringsMax = 16;
inline constexpr int kPromptsMax = 64;

// What chat and completion requests have in common.
struct GenerationRequest {
  bool stream = false;
  bool include_usage = false;
  bool return_token_ids = false;
  bool skip_special_tokens = true;
  std::optional<int32_t> max_tokens;
  std::vector<std::string> stop;
  // Complete but for max_tokens, which depends on the prompt's length.
  engine::SamplingParams sampling;
};

struct ChatRequest : GenerationRequest {
  Json messages;
  Json tools;  // null: none offered
  text::ChatOptions options;
};

// Text, or token ids.
using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest : GenerationRequest {
  std::vector<Prompt> prompts;  // one choice each
  bool echo = false;
};

struct TokenizeRequest {
  std::variant<std::string, ChatRequest>
      text;  // of a chat, only what the prompt depends on is read
};

// The name in `model`. Errors: kInvalidArgument.
Result<std::string> ReadModelName(const Json& body);

// Errors: kInvalidArgument, kUnsupported; message and param name the field. What is in `messages`
// is checked when they are rendered (PromptIds).
Result<ChatRequest> ReadChatRequest(const Json& body, const ServedModel& model);
Result<CompletionRequest> ReadCompletionRequest(const Json& body, const ServedModel& model);
Result<TokenizeRequest> ReadTokenizeRequest(const Json& body, const ServedModel& model);
// The `tokens` of a /detokenize request.
Result<std::vector<int32_t>> ReadDetokenizeRequest(const Json& body, const ServedModel& model);

// The token ids of a prompt. Control tokens in what a user wrote in a chat stay text; in a plain
// prompt they are control tokens. Can take long for long prompts.
// Errors: those of text::RenderChat and Tokenizer::Encode.
Result<std::vector<int32_t>> PromptIds(const ChatRequest& request, const ServedModel& model);
Result<std::vector<int32_t>> PromptIds(const Prompt& prompt, const ServedModel& model);

// A prompt as the text that `echo` repeats.
std::string PromptText(const Prompt& prompt, const ServedModel& model);

// What the engine gets. Errors: kInvalidArgument (an empty prompt), kOutOfRange (a prompt that
// leaves no room for a token of output).
Result<engine::Request> MakeEngineRequest(const GenerationRequest& request, std::string id,
                                          std::vector<int32_t> prompt, int32_t max_tokens_default,
                                          const ServedModel& model);

}  // namespace millpower::serve
