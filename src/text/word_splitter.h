// The pre-tokeniser: cuts a text into the words within which byte pairs are merged.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millpower::text {

// The expression of every Qwen2, Qwen2.5 and Qwen3 tokenizer.json.
extern const std::string_view kQwenPattern;
// What ByteLevel does by itself ("use_regex": true), as in GPT-2.
extern const std::string_view kGpt2Pattern;

// Immutable, thread-safe.
class WordSplitter {
 public:
  // kQwenPattern runs in a scanner of ours, exact to the last code point of Unicode 16. Any other
  // expression is compiled by PCRE2, whose character classes are of its own Unicode version
  // (14 in 10.42) and whose \s also takes U+180E.
  // Errors: kUnsupported for an expression that PCRE2 does not compile.
  static Result<WordSplitter> Compile(std::string_view pattern);

  WordSplitter(WordSplitter&&) noexcept;
  WordSplitter& operator=(WordSplitter&&) noexcept;
  ~WordSplitter();

 private:
  friend class WordCursor;
  struct Expression;  // PCRE2's
  explicit WordSplitter(std::unique_ptr<Expression> expression);
  std::unique_ptr<Expression> expression_;  // null: kQwenPattern
};

// Walks the words of one text; what the expression does not match is a word, too. The splitter and
// the text, which is valid UTF-8, must outlive it.
class WordCursor {
 public:
  WordCursor(const WordSplitter& splitter, std::string_view text);
  ~WordCursor();

  // The next word, empty at the end of the text. Errors: kUnsupported when the expression
  // backtracks out of proportion to the text.
  Result<std::string_view> Next();

 private:
  struct Matcher;  // PCRE2's state for one text
  size_t position_ = 0;
  std::string_view text_;
  std::unique_ptr<Matcher> matcher_;  // null: kQwenPattern
};

}  // namespace millpower::text
