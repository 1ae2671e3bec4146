// From the engine's deltas to what a client sees: whole characters, stop strings, reasoning and
// tool calls told apart, logprobs aligned with text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "serve/models.h"
#include "serve/requests.h"
#include "text/output_parser.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace millpower::serve {

struct TokenRecord {
  engine::TokenInfo info;
  int64_t text_offset = 0;  // of its first character in the choice's text, in code points
  bool of_prompt = false;   // an echo
  bool has_logprob = true;  // false for a prompt's first token
};

// What became known of one choice.
struct Piece {
  std::vector<engine::TokenInfo> prompt;  // once, with prompt_logprobs
  std::vector<text::OutputEvent> events;  // kToolCallEnd, which clients are not told, left out
  // Every token generated is in exactly one piece, in order, those without visible text included.
  std::vector<TokenRecord> tokens;
  const char* finish_reason = nullptr;  // "stop", "length" or "tool_calls", in the last piece
  bool budget_spent = false;            // "length" because no more was granted

  bool empty() const { return events.empty() && finish_reason == nullptr; }
};

// One choice. Not thread-safe; the model outlives it.
class Transcriber {
 public:
  // `parser`: how to tell reasoning and tool calls apart; nullopt: all text is content. `echo`:
  // text that goes before the output, and counts for offsets.
  Transcriber(const ServedModel& model, const GenerationRequest& request,
              std::optional<text::OutputParser> parser, std::string echo = "");

  // Takes what the engine made, up to a stop string or a finish; what can't be shown yet is held
  // for a later piece. After a finish_reason there is no more to come.
  Piece Push(const engine::Delta& delta);

 private:
  void PushPrompt(const std::vector<engine::TokenInfo>& prompt);
  void PushToken(const engine::TokenInfo& token, bool is_end);
  void PushText(std::string_view text);
  void Show(std::string_view text);
  void Append(std::vector<text::OutputEvent> events);
  void Finish(const char* reason);

  const ServedModel& model_;
  const bool skip_special_;
  const bool echo_;
  const int logprobs_, prompt_logprobs_;  // alternatives shown; -1: none
  const int32_t min_tokens_;
  text::Detokenizer detokenizer_;
  text::StopMatcher stop_;
  std::optional<text::OutputParser> parser_;
  Piece piece_;
  int64_t text_length_ = 0;  // code points detokenised, the echo included
  int64_t token_count_ = 0;
  bool stopped_ = false;  // by a stop string
  bool called_tools_ = false;
};

}  // namespace millpower::serve
