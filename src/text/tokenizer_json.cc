#include "text/tokenizer_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "text/bpe.h"
#include "text/vocabulary.h"
#include "text/word_splitter.h"

namespace millpower::text {
namespace {

// Keys in a map: objects of millpower::Json are searched linearly, which a hostile file would use.
using Dom = nlohmann::json;

// The largest published tokenizer.json are 35 MB; a document takes some ten times that in memory.
constexpr size_t kMaxFileBytes = size_t{64} << 20;

std::unexpected<Error> BadField(const std::string& field, const std::string& what,
                                ErrorCode code = ErrorCode::kInvalidArgument) {
  return Fail(code, field + ": " + what, field);
}

std::unexpected<Error> Unsupported(const std::string& field, const std::string& what) {
  return BadField(field, what + " is not supported", ErrorCode::kUnsupported);
}

// Builds a document of everything but model.vocab and model.merges, which have hundreds of
// thousands of entries and go straight into the spec.
class Reader final : public nlohmann::json_sax<Dom> {
 public:
  explicit Reader(TokenizerSpec& spec) : spec_(spec) {}

  Dom& document() { return document_; }
  Error& error() { return error_; }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_float(number_float_t value, const string_t&) override { return Value(value); }
  bool binary(binary_t&) override { return Refuse("", "binary data"); }  // not JSON: never called
  bool number_integer(number_integer_t value) override {
    return place_ == Place::kVocab ? VocabId(value) : Value(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return place_ == Place::kVocab ? VocabId(value) : Value(value);
  }
  bool string(string_t& value) override {
    switch (place_) {
      case Place::kMerges:
        return SpacedMerge(value);
      case Place::kMergePair:
        if (pair_size_ < 2)
          (pair_size_ ? spec_.merges.back().second : spec_.merges.back().first) = std::move(value);
        ++pair_size_;
        return true;
      default:
        return Value(std::move(value));
    }
  }

  bool start_object(size_t) override {
    if (InModel("vocab")) {
      spec_.vocab.clear();
      place_ = Place::kVocab;
      return true;
    }
    return Open(Dom::object());
  }
  bool key(string_t& name) override {
    if (place_ == Place::kVocab)
      spec_.vocab.emplace_back(std::move(name), 0);
    else
      key_ = std::move(name);
    return true;
  }
  bool end_object() override {
    if (place_ == Place::kVocab)
      place_ = Place::kDocument;
    else
      open_.pop_back();
    return true;
  }

  bool start_array(size_t) override {
    if (InModel("merges")) {
      spec_.merges.clear();
      place_ = Place::kMerges;
      return true;
    }
    if (place_ == Place::kMerges) {
      spec_.merges.emplace_back();
      pair_size_ = 0;
      place_ = Place::kMergePair;
      return true;
    }
    return Open(Dom::array());
  }
  bool end_array() override {
    switch (place_) {
      case Place::kMerges:
        place_ = Place::kDocument;
        return true;
      case Place::kMergePair:
        if (pair_size_ != 2) return Refuse(MergeField(), "expected two tokens");
        place_ = Place::kMerges;
        return true;
      default:
        open_.pop_back();
        return true;
    }
  }

  bool parse_error(size_t position, const std::string&, const Dom::exception&) override {
    return Refuse("", fmt::format("malformed JSON at byte {}", position));
  }

 private:
  enum class Place { kDocument, kVocab, kMerges, kMergePair };

  bool Refuse(const std::string& field, const std::string& what) {
    error_ =
        (field.empty() ? Fail(ErrorCode::kInvalidArgument, what) : BadField(field, what)).error();
    return false;
  }

  bool InModel(std::string_view key) const {
    return place_ == Place::kDocument && open_.size() == 2 && model_ == open_.back() && key_ == key;
  }
  // The merge being read.
  std::string MergeField() const {
    return fmt::format("model.merges[{}]", spec_.merges.size() - (place_ == Place::kMergePair));
  }

  template <typename Integer>
  bool VocabId(Integer id) {
    if (std::cmp_less(id, 0) || std::cmp_greater_equal(id, kMaxVocabSize))
      return Refuse(fmt::format("model.vocab[\"{}\"]", spec_.vocab.back().first),
                    fmt::format("id {} is not in [0, {})", id, kMaxVocabSize));
    spec_.vocab.back().second = static_cast<int32_t>(id);
    return true;
  }

  bool SpacedMerge(const std::string& merge) {
    const size_t space = merge.find(' ');
    if (space == std::string::npos || merge.find(' ', space + 1) != std::string::npos)
      return Refuse(MergeField(), "expected two tokens with a space between them");
    spec_.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
    return true;
  }

  bool Value(Dom value) { return Attach(std::move(value)) != nullptr; }

  bool Open(Dom container) {
    if (open_.size() >= kJsonMaxDepth)
      return Refuse("", fmt::format("JSON nests deeper than {} levels", kJsonMaxDepth));
    Dom* attached = Attach(std::move(container));
    if (!attached) return false;
    if (open_.size() == 1 && key_ == "model") model_ = attached;
    open_.push_back(attached);
    return true;
  }

  // Where `value` now is in the document; null where the document has no place for it.
  Dom* Attach(Dom value) {
    if (place_ == Place::kVocab) return Refuse("model.vocab", "expected token ids"), nullptr;
    if (place_ != Place::kDocument) return Refuse(MergeField(), "expected two tokens"), nullptr;
    if (open_.empty()) return &(document_ = std::move(value));
    if (open_.back()->is_object()) return &((*open_.back())[key_] = std::move(value));
    return &open_.back()->emplace_back(std::move(value));
  }

  TokenizerSpec& spec_;
  Dom document_;
  std::vector<Dom*> open_;  // arrays and objects that have not ended, outermost first
  Dom* model_ = nullptr;
  std::string key_;
  Place place_ = Place::kDocument;
  int pair_size_ = 0;
  Error error_;
};

// ---- Typed fields of an object; `where` names it in errors ("added_tokens[3]").

const Dom& FieldOf(const Dom& object, const char* name) {
  static const Dom null;
  const auto found = object.find(name);
  return found == object.end() ? null : *found;
}

std::string Path(const std::string& where, const char* name) {
  return where.empty() ? name : where + "." + name;
}

Result<bool> BoolField(const Dom& object, const std::string& where, const char* name,
                       bool otherwise) {
  const Dom& value = FieldOf(object, name);
  if (value.is_null()) return otherwise;
  if (!value.is_boolean()) return BadField(Path(where, name), "expected true or false");
  return value.get<bool>();
}

Result<std::string> StringField(const Dom& object, const std::string& where, const char* name) {
  const Dom& value = FieldOf(object, name);
  if (!value.is_string()) return BadField(Path(where, name), "expected a string");
  return value.get<std::string>();
}

// The components of a field that holds nothing, one component or a "Sequence" of them.
using Components = std::vector<std::pair<std::string, const Dom*>>;  // type, object
Result<Components> ComponentsOf(const Dom& root, const char* name, const char* list_name) {
  Components components;
  const Dom& top = FieldOf(root, name);
  if (top.is_null()) return components;
  if (!top.is_object()) return BadField(name, "expected an object");
  TRY_ASSIGN(std::string type, StringField(top, name, "type"));
  if (type != "Sequence") {
    components.emplace_back(std::move(type), &top);
    return components;
  }
  const Dom& list = FieldOf(top, list_name);
  if (!list.is_array()) return BadField(Path(name, list_name), "expected an array");
  for (const Dom& part : list) {
    const std::string where = fmt::format("{}.{}[{}]", name, list_name, components.size());
    if (!part.is_object()) return BadField(where, "expected an object");
    TRY_ASSIGN(std::string part_type, StringField(part, where, "type"));
    components.emplace_back(std::move(part_type), &part);
  }
  return components;
}

Result<void> ReadNormalizer(const Dom& root, TokenizerSpec& spec) {
  TRY_ASSIGN(const Components parts, ComponentsOf(root, "normalizer", "normalizers"));
  for (const auto& [type, part] : parts) {
    if (type != "NFC") return Unsupported("normalizer", "the normaliser " + type);
    spec.nfc = true;
  }
  return {};
}

Result<std::string> SplitPattern(const Dom& split) {
  const std::string where = "pre_tokenizer.Split";
  TRY_ASSIGN(const std::string behavior, StringField(split, where, "behavior"));
  TRY_ASSIGN(const bool invert, BoolField(split, where, "invert", false));
  if (behavior != "Isolated" || invert)
    return Unsupported(where, fmt::format("behavior {} with invert {}", behavior, invert));
  const Dom& pattern = FieldOf(split, "pattern");
  if (!pattern.is_object() || !FieldOf(pattern, "Regex").is_string())
    return Unsupported(Path(where, "pattern"), "anything but a Regex");
  return FieldOf(pattern, "Regex").get<std::string>();
}

// Split by an expression and then ByteLevel without one, or ByteLevel alone with its own.
Result<void> ReadPreTokenizer(const Dom& root, TokenizerSpec& spec) {
  TRY_ASSIGN(const Components parts, ComponentsOf(root, "pre_tokenizer", "pretokenizers"));
  for (const auto& [type, part] : parts)
    if (type != "Split" && type != "ByteLevel")
      return Unsupported("pre_tokenizer", "the pre-tokeniser " + type);
  if (parts.empty() || parts.size() > 2 || parts.back().first != "ByteLevel" ||
      (parts.size() == 2 && parts[0].first != "Split"))
    return Unsupported("pre_tokenizer",
                       "anything but ByteLevel, with at most one Split before it,");
  const std::string where = "pre_tokenizer.ByteLevel";
  const Dom& byte_level = *parts.back().second;
  TRY_ASSIGN(const bool prefix_space, BoolField(byte_level, where, "add_prefix_space", true));
  if (prefix_space) return Unsupported(where, "add_prefix_space");
  TRY_ASSIGN(const bool use_regex, BoolField(byte_level, where, "use_regex", true));
  if (use_regex == (parts.size() == 2))
    return Unsupported(where, use_regex ? "use_regex after a Split" : "no expression at all");
  spec.split_pattern = kGpt2Pattern;
  if (parts.size() == 2) {
    TRY_ASSIGN(spec.split_pattern, SplitPattern(*parts[0].second));
  }
  return {};
}

// The model's fields besides vocab and merges.
Result<void> ReadModel(const Dom& root, TokenizerSpec& spec) {
  const Dom& model = FieldOf(root, "model");
  if (!model.is_object()) return BadField("model", "expected an object");
  TRY_ASSIGN(const std::string type, StringField(model, "model", "type"));
  if (type != "BPE") return Unsupported("model", "the model " + type);
  for (const char* name : {"vocab", "merges"})
    if (model.contains(name)) return BadField(Path("model", name), "is of the wrong type");
  const Dom& dropout = FieldOf(model, "dropout");
  if (!dropout.is_null() && dropout != 0) return Unsupported("model.dropout", "dropout");
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Dom& value = FieldOf(model, name);
    if (!value.is_null() && value != "") return Unsupported(Path("model", name), value.dump());
  }
  TRY_ASSIGN(const bool byte_fallback, BoolField(model, "model", "byte_fallback", false));
  if (byte_fallback) return Unsupported("model.byte_fallback", "byte_fallback");
  TRY_ASSIGN(spec.ignore_merges, BoolField(model, "model", "ignore_merges", false));
  if (spec.vocab.empty()) return BadField("model.vocab", "is missing or empty");
  if (spec.merges.size() > kMaxMerges)
    return BadField("model.merges", fmt::format("more than {}", kMaxMerges),
                    ErrorCode::kOutOfRange);
  return {};
}

Result<AddedToken> ReadAddedToken(const Dom& entry, const std::string& where) {
  if (!entry.is_object()) return BadField(where, "expected an object");
  AddedToken token;
  const Dom& id = FieldOf(entry, "id");
  if (!id.is_number_integer() || id < 0 || id >= kMaxVocabSize)
    return BadField(where + ".id", fmt::format("expected an integer in [0, {})", kMaxVocabSize));
  token.id = id.get<int32_t>();
  TRY_ASSIGN(token.content, StringField(entry, where, "content"));
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes)
    return BadField(where + ".content", fmt::format("expected 1 to {} bytes", kMaxAddedTokenBytes));
  TRY_ASSIGN(token.special, BoolField(entry, where, "special", false));
  TRY_ASSIGN(token.single_word, BoolField(entry, where, "single_word", false));
  TRY_ASSIGN(token.lstrip, BoolField(entry, where, "lstrip", false));
  TRY_ASSIGN(token.rstrip, BoolField(entry, where, "rstrip", false));
  TRY_ASSIGN(token.normalized, BoolField(entry, where, "normalized", !token.special));
  return token;
}

Result<void> ReadAddedTokens(const Dom& root, TokenizerSpec& spec) {
  const Dom& list = FieldOf(root, "added_tokens");
  if (list.is_null()) return {};
  if (!list.is_array()) return BadField("added_tokens", "expected an array");
  for (const Dom& entry : list) {
    const std::string where = fmt::format("added_tokens[{}]", spec.added_tokens.size());
    TRY_ASSIGN(AddedToken token, ReadAddedToken(entry, where));
    spec.added_tokens.push_back(std::move(token));
  }
  return {};
}

// ByteLevel at the end changes offsets, which we do not report, and never ids.
Result<void> CheckOutput(const Dom& root) {
  TRY_ASSIGN(const Components after, ComponentsOf(root, "post_processor", "processors"));
  for (const auto& [type, part] : after)
    if (type != "ByteLevel") return Unsupported("post_processor", "the post-processor " + type);
  TRY_ASSIGN(const Components decoders, ComponentsOf(root, "decoder", "decoders"));
  if (decoders.size() != 1 || decoders[0].first != "ByteLevel")
    return Unsupported("decoder", "anything but ByteLevel");
  return {};
}

}  // namespace

// "truncation" and "padding" are defaults of one caller's batches and not of the vocabulary;
// transformers resets them on every call, and we have neither.
Result<TokenizerSpec> ParseTokenizerJson(std::string_view json) {
  if (json.size() > kMaxFileBytes)
    return Fail(ErrorCode::kOutOfRange,
                fmt::format("{} bytes are more than the {} of any tokenizer we know", json.size(),
                            kMaxFileBytes));
  TokenizerSpec spec;
  Reader reader(spec);
  if (!Dom::sax_parse(json.begin(), json.end(), &reader))
    return std::unexpected(std::move(reader.error()));
  const Dom& root = reader.document();
  if (!root.is_object()) return Fail(ErrorCode::kInvalidArgument, "expected a JSON object");
  TRY(ReadNormalizer(root, spec));
  TRY(ReadPreTokenizer(root, spec));
  TRY(ReadModel(root, spec));
  TRY(ReadAddedTokens(root, spec));
  TRY(CheckOutput(root));
  return spec;
}

}  // namespace millpower::text
