#include "serve/transcriber.h"

#include <algorithm>
#include <utility>

namespace millpower::serve {

using text::OutputEvent;

namespace {

int64_t CodePointCount(std::string_view utf8) {
  return std::ranges::count_if(utf8, [](char c) { return (c & 0xc0) != 0x80; });
}

// The engine tells as many alternatives of all tokens as any of them needs.
engine::TokenInfo WithTop(engine::TokenInfo token, int count) {
  token.top.resize(std::min(token.top.size(), static_cast<size_t>(std::max(count, 0))));
  return token;
}

bool IsIn(const std::vector<int32_t>& ids, int32_t id) {
  return std::ranges::find(ids, id) != ids.end();
}

}  // namespace

Transcriber::Transcriber(const ServedModel& model, const GenerationRequest& request,
                         std::optional<text::OutputParser> parser, std::string echo)
    : model_(model),
      skip_special_(request.skip_special_tokens),
      echo_(request.echo),
      logprobs_(request.logprobs),
      prompt_logprobs_(request.prompt_logprobs),
      min_tokens_(request.sampling.min_tokens),
      detokenizer_(*model.tokenizer, skip_special_),
      stop_(request.stop),
      parser_(std::move(parser)),
      text_length_(CodePointCount(echo)) {
  if (!echo.empty()) piece_.events.push_back({OutputEvent::kContent, 0, std::move(echo)});
}

Piece Transcriber::Push(const engine::Delta& delta) {
  PushPrompt(delta.prompt);
  for (size_t i = 0; i < delta.tokens.size(); ++i) {
    const bool is_last = i + 1 == delta.tokens.size();
    const bool is_end = is_last && delta.finish == engine::FinishReason::kStop &&
                        IsIn(model_.defaults.eos_token_ids, delta.tokens[i].token);
    PushToken(delta.tokens[i], is_end);
  }
  if (stopped_)
    Finish("stop");
  else if (delta.finish)
    Finish(delta.finish == engine::FinishReason::kStop ? "stop" : "length");
  piece_.budget_spent = !stopped_ && delta.finish == engine::FinishReason::kBudget;
  if (piece_.events.empty() && piece_.finish_reason == nullptr) return {};
  return std::exchange(piece_, {});
}

void Transcriber::PushPrompt(const std::vector<engine::TokenInfo>& prompt) {
  if (prompt_logprobs_ >= 0)
    for (const engine::TokenInfo& token : prompt)
      piece_.prompt.push_back(WithTop(token, prompt_logprobs_));
  if (!echo_ || logprobs_ < 0) return;
  text::Detokenizer detokenizer(*model_.tokenizer, false);
  int64_t offset = 0;
  for (const engine::TokenInfo& token : prompt) {
    piece_.tokens.push_back({.info = WithTop(token, logprobs_),
                             .text_offset = offset,
                             .of_prompt = true,
                             .has_logprob = &token != &prompt.front()});
    offset += CodePointCount(detokenizer.Push(token.token));
  }
}

void Transcriber::PushToken(const engine::TokenInfo& token, bool is_end) {
  piece_.tokens.push_back({.info = WithTop(token, logprobs_), .text_offset = text_length_});
  ++token_count_;
  if (is_end && skip_special_) return;
  const std::string text = detokenizer_.Push(token.token);
  text_length_ += CodePointCount(text);
  // Stop strings are looked for in what comes after min_tokens.
  if (token_count_ <= min_tokens_)
    Show(text);
  else
    PushText(text);
}

void Transcriber::PushText(std::string_view text) {
  if (stopped_) return;
  const auto [safe, stopped] = stop_.Push(text);
  stopped_ = stopped;
  Show(safe);
}

void Transcriber::Show(std::string_view text) {
  if (text.empty()) return;
  if (parser_)
    Append(parser_->Push(text));
  else
    piece_.events.push_back({OutputEvent::kContent, 0, std::string(text)});
}

void Transcriber::Append(std::vector<OutputEvent> events) {
  for (OutputEvent& event : events) {
    called_tools_ |= event.kind == OutputEvent::kToolCallEnd;
    if (event.kind != OutputEvent::kToolCallEnd) piece_.events.push_back(std::move(event));
  }
}

void Transcriber::Finish(const char* reason) {
  if (!stopped_) {
    PushText(detokenizer_.Flush());
    Show(stop_.Flush());
  }
  if (parser_) Append(parser_->Finish());
  const bool stop = reason == std::string_view("stop");
  piece_.finish_reason = stop && called_tools_ ? "tool_calls" : reason;
}

}  // namespace millpower::serve
