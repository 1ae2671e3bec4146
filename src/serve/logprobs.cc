#include <algorithm>

#include "serve/reply.h"

namespace millpower::serve {
namespace {

// JSON has no infinity; OpenAI's word for "never".
constexpr float kLogprobMin = -9999.0f;

float Clamped(float logprob) { return std::max(logprob, kLogprobMin); }

// May be part of a character, which DumpJson turns into U+FFFD.
std::string TokenText(const text::Tokenizer& tokenizer, int32_t id) {
  return std::string(tokenizer.TokenBytes(id));
}

Json ChatEntry(const text::Tokenizer& tokenizer, int32_t id, float logprob) {
  Json bytes = Json::array();
  for (const char c : tokenizer.TokenBytes(id)) bytes.push_back(static_cast<uint8_t>(c));
  return {{"token", TokenText(tokenizer, id)},
          {"logprob", Clamped(logprob)},
          {"bytes", std::move(bytes)}};
}

}  // namespace

Json TokenIdsJson(const std::vector<TokenRecord>& tokens) {
  Json ids = Json::array();
  for (const TokenRecord& record : tokens) ids.push_back(record.info.token);
  return ids;
}

Json ChatLogprobsJson(const text::Tokenizer& tokenizer, const std::vector<TokenRecord>& tokens) {
  Json content = Json::array();
  for (const TokenRecord& record : tokens) {
    Json entry = ChatEntry(tokenizer, record.info.token, record.info.logprob);
    Json& top = entry["top_logprobs"] = Json::array();
    for (const engine::Alternative& alternative : record.info.top)
      top.push_back(ChatEntry(tokenizer, alternative.token, alternative.logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

Json PromptLogprobsJson(const text::Tokenizer& tokenizer,
                        const std::vector<engine::TokenInfo>& prompt) {
  Json entries = Json::array();
  for (const engine::TokenInfo& token : prompt) {
    if (entries.empty()) {
      entries.push_back(nullptr);
      continue;
    }
    Json entry = Json::object();
    const auto add = [&](int32_t id, float logprob, Json rank) {
      entry.emplace(std::to_string(id), Json{{"logprob", Clamped(logprob)},
                                             {"rank", std::move(rank)},
                                             {"decoded_token", TokenText(tokenizer, id)}});
    };
    for (size_t i = 0; i < token.top.size(); ++i)
      add(token.top[i].token, token.top[i].logprob, i + 1);
    add(token.token, token.logprob, nullptr);  // unless it is there
    entries.push_back(std::move(entry));
  }
  return entries;
}

Json CompletionLogprobsJson(const text::Tokenizer& tokenizer,
                            const std::vector<TokenRecord>& tokens) {
  Json texts = Json::array(), logprobs = Json::array(), tops = Json::array(),
       offsets = Json::array();
  for (const TokenRecord& record : tokens) {
    texts.push_back(TokenText(tokenizer, record.info.token));
    offsets.push_back(record.text_offset);
    if (!record.has_logprob) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(Clamped(record.info.logprob));
    // The token itself is always among them. Of different tokens with one text the likeliest
    // counts.
    Json top = Json::object();
    for (const engine::Alternative& alternative : record.info.top)
      top.emplace(TokenText(tokenizer, alternative.token), Clamped(alternative.logprob));
    top.emplace(TokenText(tokenizer, record.info.token), Clamped(record.info.logprob));
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace millpower::serve
