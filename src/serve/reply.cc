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

// Why generation ended, beyond what OpenAI's words say.
void AddNote(Json& choice, bool budget_spent) {
  if (budget_spent)
    choice["millpower"] = {
        {"stopped_by", "budget"},
        {"message", "a spending cap or the credit ended the output; GET /v1/account says which"}};
}

class ChatReply final : public Reply {
 public:
  ChatReply(ReplyHead head, int choice_count)
      : Reply(std::move(head)), choices_(static_cast<size_t>(choice_count)) {}

  std::vector<Json> Events(int index, Piece piece) override;
  void Add(int index, Piece piece) override;
  Json Whole(const engine::Usage& usage) override;

 private:
  struct Choice {
    bool begun = false;
    std::string content, reasoning;
    std::vector<ToolCall> calls;
    std::vector<TokenRecord> tokens;
    const char* finish_reason = nullptr;
    bool budget_spent = false;
  };

  const char* object() const override { return "chat.completion"; }
  const char* event_object() const override { return "chat.completion.chunk"; }
  Json Delta(const OutputEvent& event) const;
  Json ChoiceJson(int index, Choice choice) const;

  std::vector<Choice> choices_;
  std::vector<engine::TokenInfo> prompt_;  // all choices have the same
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

std::vector<Json> ChatReply::Events(int index, Piece piece) {
  const bool first = !std::exchange(choices_.at(static_cast<size_t>(index)).begun, true);
  std::vector<Json> deltas;
  if (first) deltas.push_back({{"role", "assistant"}, {"content", ""}});
  for (const OutputEvent& event : piece.events) deltas.push_back(Delta(event));
  if (piece.finish_reason) deltas.push_back(Json::object());

  // The piece's tokens go with the first event that shows something of them.
  const size_t tokens_at = std::min(deltas.size() - 1, size_t{first ? 1u : 0u});
  std::vector<Json> events;
  for (size_t i = 0; i < deltas.size(); ++i) {
    Json choice = {{"index", index}, {"delta", std::move(deltas[i])}, {"logprobs", nullptr}};
    if (i == tokens_at && head_.logprobs)
      choice["logprobs"] = ChatLogprobsJson(*head_.tokenizer, piece.tokens);
    const bool last = piece.finish_reason && i + 1 == deltas.size();
    choice["finish_reason"] = last ? Json(piece.finish_reason) : Json();
    if (i == tokens_at && head_.return_token_ids) choice["token_ids"] = TokenIdsJson(piece.tokens);
    if (last) AddNote(choice, piece.budget_spent);
    events.push_back(Event(std::move(choice)));
  }
  if (first && head_.return_token_ids) events[0]["prompt_token_ids"] = head_.prompts.at(0);
  return events;
}

void ChatReply::Add(int index, Piece piece) {
  Choice& choice = choices_.at(static_cast<size_t>(index));
  for (OutputEvent& event : piece.events) switch (event.kind) {
      case OutputEvent::kContent:
        choice.content += event.text;
        break;
      case OutputEvent::kReasoning:
        choice.reasoning += event.text;
        break;
      case OutputEvent::kToolCallBegin:
        choice.calls.push_back({NewId("call_"), std::move(event.text), ""});
        break;
      case OutputEvent::kToolCallArguments:
        choice.calls.back().arguments += event.text;
        break;
      case OutputEvent::kToolCallEnd:
        break;
    }
  if (!piece.prompt.empty()) prompt_ = std::move(piece.prompt);
  if (head_.logprobs || head_.return_token_ids)
    std::ranges::move(piece.tokens, std::back_inserter(choice.tokens));
  if (piece.finish_reason) choice.finish_reason = piece.finish_reason;
  choice.budget_spent = piece.budget_spent;
}

Json ChatReply::ChoiceJson(int index, Choice made) const {
  Json message = {{"role", "assistant"}};
  message["content"] =
      made.content.empty() && !made.calls.empty() ? Json() : Json(std::move(made.content));
  if (!made.reasoning.empty()) message["reasoning_content"] = std::move(made.reasoning);
  if (!made.calls.empty()) {
    Json& calls = message["tool_calls"] = Json::array();
    for (const ToolCall& call : made.calls) calls.push_back(ToolCallJson(call));
  }
  Json choice = {{"index", index}, {"message", std::move(message)}};
  choice["logprobs"] = head_.logprobs ? ChatLogprobsJson(*head_.tokenizer, made.tokens) : Json();
  choice["finish_reason"] = made.finish_reason;
  if (head_.return_token_ids) choice["token_ids"] = TokenIdsJson(made.tokens);
  AddNote(choice, made.budget_spent);
  return choice;
}

Json ChatReply::Whole(const engine::Usage& usage) {
  Json choices = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i)
    choices.push_back(ChoiceJson(static_cast<int>(i), std::move(choices_[i])));
  Json whole = Envelope(std::move(choices));
  whole["usage"] = UsageJson(usage);
  if (head_.prompt_logprobs)
    whole["prompt_logprobs"] = PromptLogprobsJson(*head_.tokenizer, prompt_);
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
    std::vector<engine::TokenInfo> prompt;
    std::vector<TokenRecord> tokens;
    const char* finish_reason = nullptr;
    bool budget_spent = false;
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
    if (first)
      choice["prompt_token_ids"] =
          head_.prompts.at(static_cast<size_t>(index / head_.choices_per_prompt));
    Json& ids = choice["token_ids"] = Json::array();
    for (const TokenRecord& record : tokens)
      if (!record.of_prompt) ids.push_back(record.info.token);
  }
  return choice;
}

std::vector<Json> CompletionReply::Events(int index, Piece piece) {
  const bool first = !std::exchange(choices_.at(static_cast<size_t>(index)).begun, true);
  Json choice = ChoiceJson(index, JoinText(piece.events), piece.tokens, piece.finish_reason, first);
  AddNote(choice, piece.budget_spent);
  return {Event(std::move(choice))};
}

void CompletionReply::Add(int index, Piece piece) {
  Choice& choice = choices_.at(static_cast<size_t>(index));
  choice.text += JoinText(piece.events);
  if (!piece.prompt.empty()) choice.prompt = std::move(piece.prompt);
  if (head_.logprobs || head_.return_token_ids)
    std::ranges::move(piece.tokens, std::back_inserter(choice.tokens));
  if (piece.finish_reason) choice.finish_reason = piece.finish_reason;
  choice.budget_spent = piece.budget_spent;
}

Json CompletionReply::Whole(const engine::Usage& usage) {
  Json choices = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& made = choices_[i];
    Json choice = ChoiceJson(static_cast<int>(i), std::move(made.text), made.tokens,
                             made.finish_reason, true);
    if (head_.prompt_logprobs)
      choice["prompt_logprobs"] = PromptLogprobsJson(*head_.tokenizer, made.prompt);
    AddNote(choice, made.budget_spent);
    choices.push_back(std::move(choice));
  }
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
  Json envelope = {{"id", head_.id},
                   {"object", object()},
                   {"created", head_.created_unix_s},
                   {"model", head_.model}};
  if (!head_.service_tier.empty()) envelope["service_tier"] = head_.service_tier;
  envelope["choices"] = std::move(choices);
  return envelope;
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

std::unique_ptr<Reply> MakeChatReply(ReplyHead head, int choice_count) {
  return std::make_unique<ChatReply>(std::move(head), choice_count);
}

std::unique_ptr<Reply> MakeCompletionReply(ReplyHead head, int choice_count) {
  return std::make_unique<CompletionReply>(std::move(head), choice_count);
}

}  // namespace millpower::serve
