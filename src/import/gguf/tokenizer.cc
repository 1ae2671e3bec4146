#include "import/gguf/tokenizer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "import/ranges.h"

namespace millpower::import {
namespace {

using SortedJson = nlohmann::json;  // keys in a map: a vocabulary has hundreds of thousands

// tokenizer.ggml.token_type (llama.h, enum llama_token_type).
enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

// tokenizer.json of every Qwen2 and Qwen3 release, but for the vocabulary.
constexpr const char* kQwen2 = R"json({
  "version": "1.0", "truncation": null, "padding": null,
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
  "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
    "use_regex": false},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
    "use_regex": true},
  "added_tokens": [],
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
    "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
    "vocab": {}, "merges": []}})json";

Result<void> CheckKind(const GgufFields& metadata) {
  TRY_ASSIGN(const auto model, metadata.String("tokenizer.ggml.model"));
  TRY_ASSIGN(const auto pre, metadata.String("tokenizer.ggml.pre", "default"));
  if (model != "gpt2" || pre != "qwen2")
    return Fail(ErrorCode::kUnsupported,
                fmt::format("the tokenizer {} with the pre-tokeniser {} is not supported; "
                            "supported: gpt2 with qwen2",
                            model, pre),
                "tokenizer.ggml.pre");
  for (const char* key : {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"}) {
    TRY_ASSIGN(const bool adds, metadata.Bool(key, false));
    if (adds) return Fail(ErrorCode::kUnsupported, std::string(key) + " is not supported", key);
  }
  return {};
}

Result<void> AddTokens(const std::vector<std::string_view>& tokens,
                       const std::vector<int64_t>& types, SortedJson& json) {
  SortedJson& vocab = json["model"]["vocab"];
  SortedJson& added = json["added_tokens"];
  std::set<std::string_view> seen;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (types[id] == kUnused) continue;
    if (!seen.insert(tokens[id]).second)
      return Fail(ErrorCode::kCorrupt,
                  fmt::format("token {} is spelled as an earlier one: '{}'", id, tokens[id]));
    if (types[id] == kNormal) {
      vocab.emplace(tokens[id], id);
    } else if (types[id] == kControl || types[id] == kUserDefined) {
      added.push_back({{"id", id},
                       {"content", tokens[id]},
                       {"special", types[id] == kControl},
                       {"normalized", false},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false}});
    } else {
      return Fail(ErrorCode::kUnsupported,
                  fmt::format("token {} is of type {}, which is not supported", id, types[id]),
                  "tokenizer.ggml.token_type");
    }
  }
  return {};
}

// "a b"; llama.cpp looks for the space after the first character.
Result<void> AddMerges(const std::vector<std::string_view>& merges, SortedJson& json) {
  SortedJson& list = json["model"]["merges"];
  for (const std::string_view merge : merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size())
      return Fail(ErrorCode::kCorrupt,
                  fmt::format("merge {} is not two tokens: '{}'", list.size(), merge));
    list.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  return {};
}

}  // namespace

Result<std::string> TokenizerJson(const GgufFields& metadata) {
  TRY(CheckKind(metadata));
  TRY_ASSIGN(const auto tokens, metadata.Strings("tokenizer.ggml.tokens"));
  TRY_ASSIGN(const auto types, metadata.Integers("tokenizer.ggml.token_type"));
  if (tokens.size() != types.size())
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("tokenizer.ggml.token_type has {} items, and there are {} tokens",
                            types.size(), tokens.size()),
                "tokenizer.ggml.token_type");
  TRY_ASSIGN(const auto merges, metadata.Strings("tokenizer.ggml.merges"));
  SortedJson json = SortedJson::parse(kQwen2);
  TRY(AddTokens(tokens, types, json));
  TRY(AddMerges(merges, json));
  try {
    return json.dump();
  } catch (const SortedJson::exception&) {  // of strings only
    return Fail(ErrorCode::kCorrupt, "a token or a merge is not UTF-8");
  }
}

Result<std::vector<int32_t>> EndTokens(const GgufFields& metadata, int64_t vocab_size) {
  std::set<int32_t> ends;
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    const std::string key = std::string("tokenizer.ggml.") + name;
    if (!metadata.Has(key)) continue;
    TRY_ASSIGN(const int64_t id, metadata.Integer(key));
    TRY(ExpectIn(key.c_str(), id, 0, vocab_size - 1));
    ends.insert(static_cast<int32_t>(id));
  }
  TRY_ASSIGN(const auto tokens, metadata.Strings("tokenizer.ggml.tokens"));
  for (size_t id = 0; id < tokens.size() && std::cmp_less(id, vocab_size); ++id)
    if (tokens[id] == "<|im_end|>" || tokens[id] == "<|endoftext|>")
      ends.insert(static_cast<int32_t>(id));
  return std::vector<int32_t>(ends.begin(), ends.end());
}

}  // namespace millpower::import
