// The tokenizer inside a GGUF file: tokenizer.ggml.*, as llama.cpp's converter writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "import/gguf/fields.h"

namespace millpower::import {

// The tokenizer.json that the file was converted from: byte-level BPE with Qwen2's pre-tokeniser
// and NFC. Tokens of type "control" and "user defined" become added tokens, the former special;
// "unused" ones, which fill the vocabulary up, are left out. One thing is lost in the conversion:
// all added tokens that look like <|this|> are control tokens in GGUF, so Qwen's <|fim_prefix|> and
// the like are special here, and not in its tokenizer.json. Errors: kUnsupported: another
// tokenizer.ggml.model than gpt2, another tokenizer.ggml.pre than qwen2, tokens added at the
// beginning or end of every text, tokens of type "unknown" or "byte". kInvalidArgument, naming the
// key: lists that are missing or differ in length. kCorrupt: two tokens with one spelling, a merge
// that is not two tokens, text that is not UTF-8.
Result<std::string> TokenizerJson(const GgufFields& metadata);

// Tokens that end a generation, ascending: tokenizer.ggml.{eos,eot,eom}_token_id, and <|im_end|>
// and
// <|endoftext|>, which llama.cpp takes for the end by their text (llama-vocab.cpp).
// Errors: kInvalidArgument, naming the key.
Result<std::vector<int32_t>> EndTokens(const GgufFields& metadata, int64_t vocab_size);

}  // namespace millpower::import
