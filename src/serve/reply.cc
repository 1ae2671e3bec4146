#include "serve/reply.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "serve/ids.h"

namespace millpower::serve {
namespace {

using text::OutputEvent;

struct ToolCall {
  std::string id, name, arguments;
};

Json ToolCallJson(const ToolCall& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

class ChatReply final : public Reply {
 public:
  using Reply::Reply;

  std::vector<Json> Events(int choice, Piece piece) override;
  void Add(int choice, Piece piece) override;
  Json Whole(const engine::Usage& usage) override;

 private:
  const char* object() const override { return "chat.completion"; }
  const char* event_object() const override { return "chat.completion.chunk"; }
  Json Delta(const OutputEvent& event) const;

  bool begun_ = false;
  std::string content_, reasoning_;
  std::vector<ToolCall> calls_;
  std::vector<TokenRecord> tokens_;
  const char* finish_reason_ = nullptr;
};

Json ChatReply::Delta(const OutputEvent& event) const {
  switch (event.kind) {
    case OutputEvent::kContent:
      return {{"content", event.text}};
    case OutputEvent::kReasoning:
      return {{"reasoning_content", event.text}};
    case OutputEvent::kToolCallBegin: {
      Json call = {{"index", event.index}};
      call.update(ToolCallJson({NewId("call_"), event.text, ""}));
      return {{"tool_calls", Json::array({std::move(call)})}};
    }
    case OutputEvent::kToolCallArguments: {
      Json call = {{"index", event.index}, {"function", {{"arguments", event.text}}}};
      return {{"tool_calls", Json::array({std::move(call)})}};
    }
    case OutputEvent::kToolCallEnd:
      break;
  }
  return Json::object();
}

std::vector<Json> ChatReply::Events(int, Piece piece) {
  std::vector<Json> deltas;
  if (!begun_) deltas.push_back({{"role", "assistant"}, {"content", ""}});
  for (const OutputEvent& event : piece.events) deltas.push_back(Delta(event));
  if (piece.finish_reason) deltas.push_back(Json::object());

  // The piece's tokens go with the first event that shows something of them.
  const size_t tokens_at = std::min(deltas.size() - 1, size_t{begun_ ? 0u : 1u});
  std::vector<Json> events;
  for (size_t i = 0; i < deltas.size(); ++i) {
    Json choice = {{"index", 0}, {"delta", std::move(deltas[i])}, {"logprobs", nullptr}};
    if (i == tokens_at && head_.logprobs)
      choice["logprobs"] = ChatLogprobsJson(*head_.tokenizer, piece.tokens);
    const bool last = piece.finish_reason && i + 1 == deltas.size();
    choice["finish_reason"] = last ? Json(piece.finish_reason) : Json();
    if (i == tokens_at && head_.return_token_ids) choice["token_ids"] = TokenIdsJson(piece.tokens);
    events.push_back(Event(std::move(choice)));
  }
  if (!begun_ && head_.return_token_ids) events[0]["prompt_token_ids"] = head_.prompts.at(0);
  begun_ = true;
  return events;
}

void ChatReply::Add(int, Piece piece) {
  for (OutputEvent& event : piece.events) switch (event.kind) {
      case OutputEvent::kContent:
        content_ += event.text;
        break;
      case OutputEvent::kReasoning:
        reasoning_ += event.text;
        break;
      case OutputEvent::kToolCallBegin:
        calls_.push_back({NewId("call_"), std::move(event.text), ""});
        break;
      case OutputEvent::kToolCallArguments:
        calls_.back().arguments += event.text;
        break;
      case OutputEvent::kToolCallEnd:
        break;
    }
  if (head_.logprobs || head_.return_token_ids)
    std::ranges::move(piece.tokens, std::back_inserter(tokens_));
  if (piece.finish_reason) finish_reason_ = piece.finish_reason;
}

Json ChatReply::Whole(const engine::Usage& usage) {
  Json message = {{"role", "assistant"}};
  message["content"] = content_.empty() && !calls_.empty() ? Json() : Json(std::move(content_));
  if (!reasoning_.empty()) message["reasoning_content"] = std::move(reasoning_);
  if (!calls_.empty()) {
    Json& calls = message["tool_calls"] = Json::array();
    for (const ToolCall& call : calls_) calls.push_back(ToolCallJson(call));
  }
  Json choice = {{"index", 0}, {"message", std::move(message)}};
  choice["logprobs"] = head_.logprobs ? ChatLogprobsJson(*head_.tokenizer, tokens_) : Json();
  choice["finish_reason"] = finish_reason_;
  if (head_.return_token_ids) choice["token_ids"] = TokenIdsJson(tokens_);
  Json whole = Envelope(Json::array({std::move(choice)}));
  whole["usage"] = UsageJson(usage);
  if (head_.return_token_ids) whole["prompt_token_ids"] = head_.prompts.at(0);
  return whole;
}

class CompletionReply final : public Reply {
 public:
  CompletionReply(ReplyHead head, int choice_count)
      : Reply(std::move(head)), choices_(static_cast<size_t>(choice_count)) {}

  std::vector<Json> Events(int choice, Piece piece) override;
  void Add(int choice, Piece piece) override;
  Json Whole(const engine::Usage& usage) override;

 private:
  struct Choice {
    bool begun = false;
    std::string text;
    std::vector<TokenRecord> tokens;
    const char* finish_reason = nullptr;
  };

  const char* object() const override { return "text_completion"; }
  const char* event_object() const override { return "text_completion"; }
  Json ChoiceJson(int index, std::string text, const std::vector<TokenRecord>& tokens,
                  const char* finish_reason, bool first) const;

  std::vector<Choice> choices_;
};

std::string JoinText(const std::vector<OutputEvent>& events) {
  std::string text;
  for (const OutputEvent& event : events) text += event.text;
  return text;
}

Json CompletionReply::ChoiceJson(int index, std::string text,
                                 const std::vector<TokenRecord>& tokens, const char* finish_reason,
                                 bool first) const {
  Json choice = {{"index", index}, {"text", std::move(text)}};
  choice["logprobs"] = head_.logprobs ? CompletionLogprobsJson(*head_.tokenizer, tokens) : Json();
  choice["finish_reason"] = finish_reason ? Json(finish_reason) : Json();
  if (head_.return_token_ids) {
    if (first) choice["prompt_token_ids"] = head_.prompts.at(static_cast<size_t>(index));
    Json& ids = choice["token_ids"] = Json::array();
    for (const TokenRecord& record : tokens)
      if (!record.of_prompt) ids.push_back(record.info.token);
  }
  return choice;
}

std::vector<Json> CompletionReply::Events(int index, Piece piece) {
  const bool first = !std::exchange(choices_.at(static_cast<size_t>(index)).begun, true);
  return {
      Event(ChoiceJson(index, JoinText(piece.events), piece.tokens, piece.finish_reason, first))};
}

void CompletionReply::Add(int index, Piece piece) {
  Choice& choice = choices_.at(static_cast<size_t>(index));
  choice.text += JoinText(piece.events);
  if (head_.logprobs || head_.return_token_ids)
    std::ranges::move(piece.tokens, std::back_inserter(choice.tokens));
  if (piece.finish_reason) choice.finish_reason = piece.finish_reason;
}

Json CompletionReply::Whole(const engine::Usage& usage) {
  Json choices = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i)
    choices.push_back(ChoiceJson(static_cast<int>(i), std::move(choices_[i].text),
                                 choices_[i].tokens, choices_[i].finish_reason, true));
  Json whole = Envelope(std::move(choices));
  whole["usage"] = UsageJson(usage);
  return whole;
}

}  // namespace

Json UsageJson(const engine::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

Json Reply::Envelope(Json choices) const {
  return {{"id", head_.id},
          {"object", object()},
          {"created", head_.created_unix_s},
          {"model", head_.model},
          {"choices", std::move(choices)}};
}

Json Reply::Event(Json choice) const {
  Json event = Envelope(Json::array({std::move(choice)}));
  event["object"] = event_object();
  if (head_.include_usage) event["usage"] = nullptr;
  return event;
}

Json Reply::UsageEvent(const engine::Usage& usage) const {
  Json event = Envelope(Json::array());
  event["object"] = event_object();
  event["usage"] = UsageJson(usage);
  return event;
}

std::unique_ptr<Reply> MakeChatReply(ReplyHead head) {
  return std::make_unique<ChatReply>(std::move(head));
}

std::unique_ptr<Reply> MakeCompletionReply(ReplyHead head, int choice_count) {
  return std::make_unique<CompletionReply>(std::move(head), choice_count);
}

}  // namespace millpower::serve
