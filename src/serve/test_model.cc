#include "serve/test_model.h"

#include "base/json.h"

namespace millpower::serve {
namespace {

// As tokenizer.json spells a byte: itself if it prints, else the next free character from U+0100.
std::string Spelling(int byte, int& next) {
  const bool prints =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad && byte <= 0xff);
  const int code = prints ? byte : next++;
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

}  // namespace

std::string TestTokenizerJson() {
  Json vocab = Json::object();
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) vocab[Spelling(byte, next)] = byte;
  Json added = Json::array();
  for (const char* content : {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
                              "<tool_call>", "</tool_call>"})
    added.push_back({{"id", 256 + added.size()},
                     {"content", content},
                     {"special", std::string_view(content).starts_with("<|")}});
  return DumpJson({{"added_tokens", added},
                   {"normalizer", nullptr},
                   {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
                   {"decoder", {{"type", "ByteLevel"}}},
                   {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}});
}

std::vector<int32_t> Say(std::string_view text) {
  std::vector<int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<uint8_t>(c));
  tokens.push_back(kImEnd);
  return tokens;
}

TestModel::TestModel(std::function<std::string(const engine::Request&)> say, int32_t max_model_len,
                     engine::Hooks* hooks)
    : tokenizer(text::Tokenizer::FromJson(TestTokenizerJson()).value()),
      engine(
          {.vocab_size = kTestVocabSize, .max_model_len = max_model_len, .max_queue = 8},
          [say = std::move(say)](const engine::Request& request) { return Say(say(request)); },
          &metrics, hooks),
      served{.name = "test",
             .created_unix_s = 1'700'000'000,
             .engine = &engine,
             .tokenizer = tokenizer.get(),
             .metrics = &metrics,
             .defaults = {.eos_token_ids = {kEndOfText, kImEnd}},
             .max_model_len = max_model_len} {}

}  // namespace millpower::serve
