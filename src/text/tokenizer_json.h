// Reads a Hugging Face tokenizer.json. The file is not trusted: every field is checked, and what we
// do not implement is refused by name rather than ignored.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/added_tokens.h"

namespace millpower::text {

// What a byte-level BPE tokenizer.json says. Token contents are as the file spells them, each byte
// one printable character ("Ġthe"). `vocab` and `added_tokens` have ids in [0, kMaxVocabSize).
struct TokenizerSpec {
  bool nfc = false;
  std::string split_pattern;
  bool ignore_merges = false;  // a word that is a token needs no merging
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // first to last
  std::vector<AddedToken> added_tokens;
};

// Errors: kInvalidArgument (not JSON, or not of a tokenizer.json's form), kUnsupported (a kind of
// normaliser, pre-tokeniser, model, post-processor or decoder that we do not implement),
// kOutOfRange (too large); `param` is the field, e.g. "model.merges[7]".
Result<TokenizerSpec> ParseTokenizerJson(std::string_view json);

}  // namespace millpower::text
