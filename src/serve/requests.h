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
inline constexpr int kChoicesMax = 16;   // of one prompt
inline constexpr int kAnswersMax = 128;  // prompts by choices of each

// What chat and completion requests have in common.
struct GenerationRequest {
  bool stream = false;
  bool include_usage = false;
  bool return_token_ids = false;
  bool skip_special_tokens = true;
  bool echo = false;         // completions
  int choice_count = 1;      // `n`: of each prompt
  int logprobs = -1;         // alternatives shown per token, of an echo's too; -1: no logprobs
  int prompt_logprobs = -1;  // likewise, of the prompt's tokens and apart from them
  std::optional<int32_t> max_tokens;
  std::vector<std::string> stop;
  std::string service_tier;  // what was granted, as the answer says it; "": nothing was asked
  engine::Priority priority = engine::Priority::kStandard;
  // Complete but for what MakeEngineRequest settles: max_tokens and min_tokens, which depend on the
  // prompt's length, and the choice's own seed. Asks for as many alternatives as the larger of
  // `logprobs` and `prompt_logprobs`.
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
  std::vector<Prompt> prompts;  // `choice_count` choices each
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

// What the engine gets for choice `choice` of a prompt. With a seed s, choice i draws as a request
// of its own with seed s + i (modulo 2^64) would. Errors: kInvalidArgument (an empty prompt, fewer
// tokens allowed than wanted), kOutOfRange (a prompt that leaves no room for a token of output).
Result<engine::Request> MakeEngineRequest(const GenerationRequest& request, std::string id,
                                          std::vector<int32_t> prompt, int32_t max_tokens_default,
                                          int choice, const ServedModel& model);

}  // namespace millpower::serve
