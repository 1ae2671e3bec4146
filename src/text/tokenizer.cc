#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "text/unicode.h"

namespace millpower::text {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;  // positions are int32_t in libraries and in Bpe

// The character that tokenizer.json writes for each byte: itself where it prints, else one of the
// 68 from U+0100 on in order (GPT-2's bytes_to_unicode). 0xad, the soft hyphen, does not print.
struct ByteSpelling {
  std::array<char32_t, 256> char_of;
  std::array<int16_t, 256 + 68> byte_of;  // -1: stands for no byte

  constexpr ByteSpelling() {
    byte_of.fill(-1);
    char32_t next = 256;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      char_of[byte] = prints ? byte : next++;
      byte_of[char_of[byte]] = static_cast<int16_t>(byte);
    }
  }
};
constexpr ByteSpelling kByteSpelling;

// The bytes that a token's spelling stands for; none when one of its characters stands for no byte.
std::optional<std::string> UnspellBytes(std::string_view spelling) {
  std::string bytes;
  for (size_t position = 0; position < spelling.size();) {
    const char32_t c = NextCodePoint(spelling, position);
    if (c >= kByteSpelling.byte_of.size() || kByteSpelling.byte_of[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteSpelling.byte_of[c]));
  }
  return bytes;
}

// The vocabulary with its index over what merges can spell, and then the added tokens.
Result<Vocabulary> BuildVocabulary(const TokenizerSpec& spec) {
  int32_t highest = 0;
  for (const auto& [spelling, id] : spec.vocab) highest = std::max(highest, id);
  for (const AddedToken& token : spec.added_tokens) highest = std::max(highest, token.id);
  Vocabulary vocabulary(highest + 1);
  std::unordered_map<std::string_view, int32_t> unspellable;
  for (const auto& [spelling, id] : spec.vocab) {
    if (const auto bytes = UnspellBytes(spelling)) {
      TRY(vocabulary.Add(id, *bytes));
    } else if (!unspellable.emplace(spelling, id).second) {
      return Fail(ErrorCode::kCorrupt, fmt::format("two tokens are spelt \"{}\"", spelling));
    }
  }
  TRY(vocabulary.BuildIndex());
  for (const auto& [spelling, id] : unspellable) TRY(vocabulary.Add(id, spelling));

  std::unordered_set<std::string_view> seen;
  for (const AddedToken& token : spec.added_tokens) {
    if (!seen.insert(token.content).second)
      return Fail(ErrorCode::kCorrupt, fmt::format("two added tokens are \"{}\"", token.content));
    const auto bytes = UnspellBytes(token.content);
    int32_t known = -1;  // many are vocabulary entries, marked as added
    if (bytes) {
      known = vocabulary.Find(*bytes);
    } else if (const auto found = unspellable.find(token.content); found != unspellable.end()) {
      known = found->second;
    }
    if (known == token.id) continue;
    if (known >= 0)
      return Fail(ErrorCode::kCorrupt, fmt::format("the added token \"{}\" has the ids {} and {}",
                                                   token.content, known, token.id));
    // The ByteLevel decoder takes a spelling that it does not know literally.
    TRY(vocabulary.Add(token.id, bytes.value_or(token.content)));
  }
  return vocabulary;
}

Result<Bpe> BuildBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary) {
  std::array<int32_t, 256> byte_tokens;
  for (int byte = 0; byte < 256; ++byte) {
    const char content = static_cast<char>(byte);
    byte_tokens[static_cast<size_t>(byte)] = vocabulary.Find({&content, 1});
    if (byte_tokens[static_cast<size_t>(byte)] < 0)
      return Fail(ErrorCode::kUnsupported, fmt::format("no token for the byte 0x{:02x}", byte),
                  "model.vocab");
  }
  std::vector<Bpe::Merge> merges;
  merges.reserve(spec.merges.size());
  for (const auto& [left, right] : spec.merges) {
    const std::string field = fmt::format("model.merges[{}]", merges.size());
    const auto find = [&](const std::string& spelling) {
      const auto bytes = UnspellBytes(spelling);
      return bytes ? vocabulary.Find(*bytes) : -1;
    };
    const Bpe::Merge merge{find(left), find(right), find(left + right)};
    if (merge.left < 0 || merge.right < 0 || merge.merged < 0)
      return Fail(ErrorCode::kCorrupt,
                  fmt::format("{}: \"{}\" and \"{}\" or what they make is not in the vocabulary",
                              field, left, right),
                  field);
    merges.push_back(merge);
  }
  return Bpe(byte_tokens, merges);
}

// The tokens to look for before normalisation, or those to look for after it.
AddedTokenMatcher MatcherOf(std::vector<AddedToken> tokens, bool normalized, bool nfc) {
  std::erase_if(tokens, [&](const AddedToken& token) { return token.normalized != normalized; });
  if (normalized && nfc)
    for (AddedToken& token : tokens) token.content = ToNfc(token.content);
  return AddedTokenMatcher(std::move(tokens));
}

bool WordCharBefore(std::string_view text, size_t position) {
  if (position == 0) return false;
  size_t begin = position - 1;
  while ((text[begin] & 0xc0) == 0x80) --begin;
  return IsWordChar(NextCodePoint(text, begin));
}

bool WordCharAt(std::string_view text, size_t position) {
  return position < text.size() && IsWordChar(NextCodePoint(text, position));
}

size_t SpaceBegin(std::string_view text, size_t position) {
  while (position > 0) {
    size_t begin = position - 1;
    while ((text[begin] & 0xc0) == 0x80) --begin;
    size_t after = begin;
    if (!(CharProperties()[NextCodePoint(text, after)] & kSpace)) break;
    position = begin;
  }
  return position;
}

size_t SpaceEnd(std::string_view text, size_t position) {
  while (position < text.size()) {
    size_t next = position;
    if (!(CharProperties()[NextCodePoint(text, next)] & kSpace)) break;
    position = next;
  }
  return position;
}

bool Touches(std::span<const TextRange> ranges, size_t begin, size_t end) {
  const auto first = std::ranges::upper_bound(ranges, begin, {}, &TextRange::end);
  return first != ranges.end() && first->begin < end;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json) {
  TRY_ASSIGN(TokenizerSpec spec, ParseTokenizerJson(tokenizer_json));
  TRY_ASSIGN(Vocabulary vocabulary, BuildVocabulary(spec));
  TRY_ASSIGN(Bpe bpe, BuildBpe(spec, vocabulary));
  TRY_ASSIGN(WordSplitter splitter, WordSplitter::Compile(spec.split_pattern));
  return std::unique_ptr<Tokenizer>(
      new Tokenizer(std::move(spec), std::move(vocabulary), std::move(bpe), std::move(splitter)));
}

Tokenizer::Tokenizer(TokenizerSpec&& spec, Vocabulary&& vocabulary, Bpe&& bpe,
                     WordSplitter&& splitter)
    : nfc_(spec.nfc),
      ignore_merges_(spec.ignore_merges),
      vocabulary_(std::move(vocabulary)),
      special_(static_cast<size_t>(vocabulary_.size())),
      raw_added_(MatcherOf(spec.added_tokens, false, nfc_)),
      normal_added_(MatcherOf(spec.added_tokens, true, nfc_)),
      added_(std::move(spec.added_tokens)),
      splitter_(std::move(splitter)),
      bpe_(std::move(bpe)) {
  for (const AddedToken& token : added_) special_[static_cast<size_t>(token.id)] = token.special;
  std::ranges::sort(added_, {}, &AddedToken::content);
}

// Calls on_text(begin, end) for what lies between the added tokens of `text`, and appends their
// ids.
struct Tokenizer::Pass {
  bool parse_special;
  std::span<const TextRange> literal;
  std::vector<int32_t> ids;

  template <typename OnText>
  Result<void> Split(const AddedTokenMatcher& matcher, std::string_view text, OnText on_text) {
    size_t done = 0;
    for (size_t from = 0;;) {
      const auto match = matcher.Find(text, from);
      if (!match) break;
      if (Touches(literal, match->begin, match->end)) {
        from = match->begin + 1;
        continue;
      }
      from = match->end;
      const AddedToken& token = *match->token;
      if (token.special && !parse_special) continue;
      if (token.single_word && (WordCharBefore(text, match->begin) || WordCharAt(text, match->end)))
        continue;
      const size_t begin =
          token.lstrip ? std::max(SpaceBegin(text, match->begin), done) : match->begin;
      if (done < begin) TRY(on_text(text.substr(done, begin - done)));
      ids.push_back(token.id);
      done = token.rstrip ? SpaceEnd(text, match->end) : match->end;
    }
    if (done < text.size()) TRY(on_text(text.substr(done)));
    return {};
  }
};

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view utf8, bool parse_special,
                                               std::span<const TextRange> literal) const {
  if (utf8.size() > kMaxTextBytes)
    return Fail(ErrorCode::kOutOfRange, fmt::format("a text of {} bytes", utf8.size()));
  if (const size_t valid = ValidUtf8Prefix(utf8); valid != utf8.size())
    return Fail(ErrorCode::kInvalidArgument, fmt::format("invalid UTF-8 at byte {}", valid));
  Pass pass{parse_special, literal, {}};
  pass.ids.reserve(utf8.size() / 4);
  TRY(pass.Split(raw_added_, utf8, [&](std::string_view piece) -> Result<void> {
    std::string normal;
    if (nfc_ && !IsPlainlyNfc(piece)) piece = normal = ToNfc(piece);
    // A byte of normalised text has no known place in `literal`, so this errs on the safe side.
    if (normal_added_.empty() || !literal.empty()) return EncodeWords(piece, pass.ids);
    return pass.Split(normal_added_, piece,
                      [&](std::string_view between) { return EncodeWords(between, pass.ids); });
  }));
  return std::move(pass.ids);
}

Result<void> Tokenizer::EncodeWords(std::string_view text, std::vector<int32_t>& ids) const {
  WordCursor words(splitter_, text);
  while (true) {
    TRY_ASSIGN(const std::string_view word, words.Next());
    if (word.empty()) return {};
    if (ignore_merges_) {
      if (const int32_t id = vocabulary_.Find(word); id >= 0) {
        ids.push_back(id);
        continue;
      }
    }
    bpe_.Encode(word, ids);
  }
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids)
    if (!skip_special || !IsSpecial(id)) bytes.append(TokenBytes(id));
  std::string text;
  AppendLossy(bytes, text);
  return text;
}

std::optional<int32_t> Tokenizer::FindToken(std::string_view content) const {
  const auto added = std::ranges::lower_bound(added_, content, {}, &AddedToken::content);
  if (added != added_.end() && added->content == content) return added->id;
  if (ValidUtf8Prefix(content) != content.size()) return std::nullopt;
  const auto bytes = UnspellBytes(content);
  const int32_t id = bytes ? vocabulary_.Find(*bytes) : -1;
  return id < 0 ? std::nullopt : std::optional(id);
}

std::string Detokenizer::Push(int32_t id) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return {};
  pending_.append(tokenizer_->TokenBytes(id));
  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(done);
    const Utf8Unit unit = FirstUtf8Unit(rest);
    if (unit.kind == Utf8Unit::kIncomplete) break;
    AppendLossy(rest.substr(0, unit.size_bytes), text);
    done += unit.size_bytes;
  }
  pending_.erase(0, done);
  return text;
}

std::string Detokenizer::Flush() {
  std::string text;
  AppendLossy(pending_, text);
  pending_.clear();
  return text;
}

}  // namespace millpower::text
