// Byte-level BPE, token for token what the Hugging Face `tokenizers` library does with the same
// tokenizer.json: added tokens, NFC, pre-tokeniser, merges, and the way back.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/tokenizer_json.h"
#include "text/vocabulary.h"
#include "text/word_splitter.h"

namespace millpower::text {

// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  // `tokenizer_json` is not trusted; see tokenizer_json.h for what is checked there. Errors beyond
  // those: kCorrupt (two tokens with one id or one spelling, a merge of tokens that do not exist),
  // kUnsupported (a byte without a token: text could be lost).
  static Result<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json);

  // Token ids of valid UTF-8. Added tokens in the text become their ids; special ones only with
  // `parse_special`, and none that touches one of the `literal` ranges (in ascending order): what
  // a user wrote there stays text, even "<|im_end|>". (With any literal range, tokens marked
  // "normalized" are not looked for at all; no control token of a chat format is so marked.)
  // Errors: kInvalidArgument on invalid UTF-8, with the byte offset; kOutOfRange past 1 GiB;
  // kUnsupported when the split expression backtracks too much on this text.
  Result<std::vector<int32_t>> Encode(std::string_view utf8, bool parse_special = true,
                                      std::span<const TextRange> literal = {}) const;

  // Raw bytes of the token, perhaps part of a character; empty for ids without a token.
  std::string_view TokenBytes(int32_t id) const { return vocabulary_.Bytes(id); }
  bool IsSpecial(int32_t id) const {
    return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)];
  }

  // Text of `ids`; invalid UTF-8 is replaced by U+FFFD, ids without a token are passed over.
  std::string Decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // The id of an added token, or of a vocabulary entry as tokenizer.json spells it ("Ġthe").
  std::optional<int32_t> FindToken(std::string_view content) const;

  // Highest id + 1. The model's logits may be wider: vocabularies are padded.
  int32_t vocab_size() const { return vocabulary_.size(); }

 private:
  Tokenizer(TokenizerSpec&& spec, Vocabulary&& vocabulary, Bpe&& bpe, WordSplitter&& splitter);

  struct Pass;  // one Encode
  Result<void> EncodeWords(std::string_view text, std::vector<int32_t>& ids) const;

  bool nfc_;
  bool ignore_merges_;
  Vocabulary vocabulary_;
  std::vector<bool> special_;       // [vocab_size]
  AddedTokenMatcher raw_added_;     // looked for in the text as it came
  AddedTokenMatcher normal_added_;  // looked for after normalisation
  std::vector<AddedToken> added_;   // sorted by content
  WordSplitter splitter_;
  Bpe bpe_;
};

// Text of a stream of tokens, piece by piece; all pieces together are what Decode gives. One per
// stream, not thread-safe; the tokenizer must outlive it.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // What became complete: whole characters only.
  std::string Push(int32_t id);
  // What remains, an unfinished character as U+FFFD. Push may follow.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;  // the bytes of an unfinished character, at most 3
};

}  // namespace millpower::text
