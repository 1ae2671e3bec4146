// The JSON of generations: whole answers, and the events of streams.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"
#include "serve/transcriber.h"

namespace millpower::serve {

// What the answers to one request have in common.
struct ReplyHead {
  std::string id;
  int64_t created_unix_s = 0;
  std::string model;
  const text::Tokenizer* tokenizer = nullptr;
  std::string service_tier = {};  // "": not said
  int choices_per_prompt = 1;     // of prompt p: p * choices_per_prompt and those that follow
  bool logprobs = false;
  bool prompt_logprobs = false;
  bool return_token_ids = false;
  bool include_usage = false;                      // streams: "usage" in every event
  std::vector<std::vector<int32_t>> prompts = {};  // with return_token_ids
};

// The answer to one request. Either Events per piece, or Add per piece and then Whole. Not
// thread-safe.
class Reply {
 public:
  explicit Reply(ReplyHead head) : head_(std::move(head)) {}
  virtual ~Reply() = default;

  virtual std::vector<Json> Events(int choice, Piece piece) = 0;
  Json UsageEvent(const engine::Usage& usage) const;

  virtual void Add(int choice, Piece piece) = 0;
  // Takes what was added apart; call once.
  virtual Json Whole(const engine::Usage& usage) = 0;

 protected:
  // {"id", "object", "created", "model", "service_tier"?, "choices"}
  Json Envelope(Json choices) const;
  Json Event(Json choice) const;

  const ReplyHead head_;

 private:
  virtual const char* object() const = 0;
  virtual const char* event_object() const = 0;
};

std::unique_ptr<Reply> MakeChatReply(ReplyHead head, int choice_count);
std::unique_ptr<Reply> MakeCompletionReply(ReplyHead head, int choice_count);

Json UsageJson(const engine::Usage& usage);
// Of tokens without logprobs only their ids count.
Json TokenIdsJson(const std::vector<TokenRecord>& tokens);
// {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}
Json ChatLogprobsJson(const text::Tokenizer& tokenizer, const std::vector<TokenRecord>& tokens);
// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
Json CompletionLogprobsJson(const text::Tokenizer& tokenizer,
                            const std::vector<TokenRecord>& tokens);
// As vLLM has it: of each token of the prompt {"ID": {"logprob", "rank", "decoded_token"}} of
// itself and the likeliest, null of the first. `rank` is null where the token is not among the
// likeliest that were asked for.
Json PromptLogprobsJson(const text::Tokenizer& tokenizer,
                        const std::vector<engine::TokenInfo>& prompt);

}  // namespace millpower::serve
