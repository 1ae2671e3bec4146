#include "text/word_splitter.h"

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "text/unicode.h"

namespace millpower::text {

const std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr uint8_t kOther = 128;  // none of kLetter, kNumber, kSpace

uint8_t KindAt(const CharTable& table, std::string_view text, size_t& position) {
  const uint8_t kind =
      table[NextCodePoint(text, position)] & (kLetter | kNumber | kSpace | kNewline);
  return kind ? kind : kOther;
}

// The end of the run of characters from `position` on that are of the `wanted` kinds.
size_t SkipRun(const CharTable& table, std::string_view text, size_t position, uint8_t wanted) {
  while (position < text.size()) {
    size_t next = position;
    if (!(KindAt(table, text, next) & wanted)) break;
    position = next;
  }
  return position;
}

// Length of a contraction ('s 't 're 've 'm 'll 'd, in any case) at the start of `text`, or 0. The
// long s (U+017F) is an s when case is ignored.
size_t ContractionBytes(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto lower = [&](size_t i) { return i < text.size() ? text[i] | 0x20 : 0; };
  switch (lower(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return lower(2) == 'e' ? 3 : 0;
    case 'l':
      return lower(2) == 'l' ? 3 : 0;
  }
  return text.substr(1).starts_with("\u017f") ? 3 : 0;
}

// The end of kQwenPattern's match at `begin` < text.size(); it matches everywhere.
size_t QwenWordEnd(std::string_view text, size_t begin) {
  const CharTable& table = CharProperties();
  size_t second = begin;
  const uint8_t first_kind = KindAt(table, text, second);
  if (first_kind & kLetter) return SkipRun(table, text, second, kLetter);
  if (first_kind & kNumber) return second;
  if (const size_t size = ContractionBytes(text.substr(begin))) return begin + size;

  size_t third = second;
  const uint8_t second_kind = second < text.size() ? KindAt(table, text, third) : 0;
  if (!(first_kind & kNewline) && second_kind & kLetter)  // [^\r\n\p{L}\p{N}]?\p{L}+
    return SkipRun(table, text, third, kLetter);
  if (first_kind & kOther || (text[begin] == ' ' && second_kind & kOther))
    return SkipRun(table, text, SkipRun(table, text, second, kOther), kNewline);

  // White space: up to its last line break; else all at the end of the text; else all but the last
  // character, which goes with the next word.
  size_t last = begin, after_newline = 0, end = begin;
  while (end < text.size()) {
    size_t next = end;
    const uint8_t kind = KindAt(table, text, next);
    if (!(kind & kSpace)) break;
    if (kind & kNewline) after_newline = next;
    last = end;
    end = next;
  }
  if (after_newline) return after_newline;
  return end == text.size() || last == begin ? end : last;
}

}  // namespace

struct WordSplitter::Expression {
  ~Expression() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
};

WordSplitter::WordSplitter(std::unique_ptr<Expression> expression)
    : expression_(std::move(expression)) {}
WordSplitter::WordSplitter(WordSplitter&&) noexcept = default;
WordSplitter& WordSplitter::operator=(WordSplitter&&) noexcept = default;
WordSplitter::~WordSplitter() = default;

Result<WordSplitter> WordSplitter::Compile(std::string_view pattern) {
  if (pattern == kQwenPattern) return WordSplitter(nullptr);
  int error = 0;
  size_t offset = 0;
  auto expression = std::make_unique<Expression>();
  expression->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (!expression->code) {
    char message[256];
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    return Fail(ErrorCode::kUnsupported,
                fmt::format("split expression: {} at byte {}", message, offset));
  }
  pcre2_jit_compile(expression->code, PCRE2_JIT_COMPLETE);  // without it, it is only slower
  return WordSplitter(std::move(expression));
}

struct WordCursor::Matcher {
  explicit Matcher(const pcre2_code* code)
      : code(code),
        data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    CHECK(data && context);
  }
  ~Matcher() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }

  // The end of the match that begins at `begin`, if there is one.
  Result<std::optional<size_t>> MatchAt(std::string_view text, size_t begin);

  const pcre2_code* code;
  pcre2_match_data* data;
  pcre2_match_context* context;
  uint64_t steps_left = 0;
  size_t pending_end = 0;  // of a match found while looking for the end of a gap; 0: none
};

namespace {

// A word of sane text takes PCRE2 far fewer steps than this.
constexpr uint64_t kFirstMatchLimit = 4096;
// What a text may cost beyond it: runs of white space are walked a few times over.
constexpr uint64_t kStepsPerByte = 64;
constexpr uint64_t kStepsFloor = 1'000'000;

}  // namespace

// PCRE2 bounds the steps of one match but does not tell how many it took. So each match starts
// with a small bound, and a raised one is paid out of what this text may cost in all.
Result<std::optional<size_t>> WordCursor::Matcher::MatchAt(std::string_view text, size_t begin) {
  for (uint64_t limit = kFirstMatchLimit;;) {
    pcre2_set_match_limit(context, static_cast<uint32_t>(limit));
    const int matched = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                    begin, PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, data, context);
    if (matched >= 0) return std::max(size_t{pcre2_get_ovector_pointer(data)[1]}, begin);
    if (matched == PCRE2_ERROR_NOMATCH) return std::nullopt;
    limit *= 8;
    if (matched != PCRE2_ERROR_MATCHLIMIT || limit > steps_left)
      return Fail(
          ErrorCode::kUnsupported,
          fmt::format("the tokenizer's split expression backtracks too much at byte {}", begin));
    steps_left -= limit;
  }
}

WordCursor::WordCursor(const WordSplitter& splitter, std::string_view text) : text_(text) {
  if (!splitter.expression_) return;
  matcher_ = std::make_unique<Matcher>(splitter.expression_->code);
  matcher_->steps_left = std::clamp<uint64_t>(kStepsPerByte * text.size(), kStepsFloor, UINT32_MAX);
}

WordCursor::~WordCursor() = default;

Result<std::string_view> WordCursor::Next() {
  const size_t begin = position_;
  if (begin == text_.size()) return std::string_view();
  if (!matcher_) {
    position_ = QwenWordEnd(text_, begin);
    return text_.substr(begin, position_ - begin);
  }
  if (matcher_->pending_end) {
    position_ = std::exchange(matcher_->pending_end, 0);
    return text_.substr(begin, position_ - begin);
  }
  size_t end = begin;  // of the gap before the next match, as far as we know it
  while (end < text_.size()) {
    TRY_ASSIGN(const std::optional<size_t> match_end, matcher_->MatchAt(text_, end));
    if (match_end && end > begin) {  // an empty match ends the gap, too
      matcher_->pending_end = *match_end > end ? *match_end : 0;
      break;
    }
    if (match_end && *match_end > end) {
      end = *match_end;
      break;
    }
    NextCodePoint(text_, end);
  }
  position_ = end;
  return text_.substr(begin, end - begin);
}

}  // namespace millpower::text
