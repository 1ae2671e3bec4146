#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <ctime>
#include <functional>

#include "base/json.h"
#include "base/rng.h"
#include "text/test_data.h"
#include "text/unicode.h"

namespace millpower::text {
namespace {

using Ids = std::vector<int32_t>;

const Tokenizer& Qwen3() {
  static const std::unique_ptr<Tokenizer> tokenizer =
      Tokenizer::FromJson(ReadTestData("qwen3_tokenizer.json.gz")).value();
  return *tokenizer;
}

uint32_t Crc(const Ids& ids) {
  return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(ids.data()),
                                     static_cast<uInt>(ids.size() * sizeof(int32_t))));
}

// A byte-complete tokenizer.json with two merges, for the tests to alter.
Json SmallJson() {
  Json vocab = Json::object();
  std::string spelling;
  for (int32_t id = 0; id < 256; ++id) {
    // Which byte has which id does not matter here, only that all are there: the 188 that stand
    // for themselves and the 68 from U+0100 on.
    const bool prints = (id >= 0x21 && id <= 0x7e) || (id >= 0xa1 && id != 0xad);
    static char32_t next = 0x100;
    if (id == 0) next = 0x100;
    spelling.clear();
    AppendUtf8(prints ? static_cast<char32_t>(id) : next++, spelling);
    vocab[spelling] = id;
  }
  vocab["th"] = 256;
  vocab["the"] = 257;
  return {{"added_tokens", Json::array({{{"id", 258}, {"content", "<s>"}, {"special", true}}})},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"t h", "th e"}}}}};
}

TEST(Tokenizer, GivesTheIdsOfTheGoldens) {
  int count = 0;
  for (const std::string& line : ReadTestLines("tokenizer_golden.jsonl.gz")) {
    const Json golden = ParseJson(line).value();
    const auto text = golden["text"].get<std::string>();
    ASSERT_EQ(Qwen3().Encode(text).value(), golden["ids"].get<Ids>()) << text;
    ++count;
  }
  EXPECT_EQ(count, 4000);
}

TEST(Tokenizer, GivesTheIdsOfAMegabyteOfMixedText) {
  size_t size_bytes = 0;
  for (const std::string& line : ReadTestLines("tokenizer_mixed.jsonl.gz")) {
    const Json golden = ParseJson(line).value();
    const auto text = golden["text"].get<std::string>();
    const Ids ids = Qwen3().Encode(text).value();
    ASSERT_EQ(ids.size(), golden["count"]) << text;
    ASSERT_EQ(Crc(ids), golden["crc"]) << text;
    EXPECT_EQ(Qwen3().Decode(ids), ToNfc(text));
    size_bytes += text.size();
  }
  EXPECT_GT(size_bytes, 1'000'000u);
}

// Every code point beside letters, digits and marks: the classes of the expression and NFC are
// those of the library's Unicode versions, not of ours.
TEST(Tokenizer, AgreesOnEveryCodePoint) {
  const Json golden = ParseJson(ReadTestLines("tokenizer_code_points.json.gz").at(0)).value();
  char32_t c = 0;
  for (const Json& crc : golden["crc"]) {
    std::string text;
    for (const char32_t end = c + 4096; c < end; ++c) {
      if (c >= 0xd800 && c < 0xe000) continue;
      std::string s;
      AppendUtf8(c, s);
      text += "a" + s + "b q" + s + "\u0323\u0301 1" + s + "2 " + s;
    }
    ASSERT_EQ(Crc(Qwen3().Encode(text).value()), crc)
        << "block before " << static_cast<uint32_t>(c);
  }
  EXPECT_EQ(static_cast<uint32_t>(c), 0x40000u);
}

TEST(Tokenizer, DecodesAsTheGoldens) {
  for (const std::string& line : ReadTestLines("tokenizer_decode.jsonl.gz")) {
    const Json golden = ParseJson(line).value();
    const Ids ids = golden["ids"].get<Ids>();
    ASSERT_EQ(Qwen3().Decode(ids), golden["text"]);
    ASSERT_EQ(Qwen3().Decode(ids, true), golden["text_without_special"]);
  }
}

// Small tokenizers with every flag of added tokens, ignore_merges, merges as strings and as pairs,
// GPT-2's and Llama's expressions, and one that leaves gaps.
TEST(Tokenizer, HeedsFlagsAsTheGoldens) {
  size_t cases = 0;
  for (const std::string& line : ReadTestLines("tokenizer_flags.jsonl.gz")) {
    const Json golden = ParseJson(line).value();
    const auto tokenizer = Tokenizer::FromJson(golden["tokenizer"].dump());
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    for (const Json& test : golden["cases"]) {
      const auto text = test["text"].get<std::string>();
      EXPECT_EQ((*tokenizer)->Encode(text).value(), test["ids"].get<Ids>()) << text;
      EXPECT_EQ((*tokenizer)->Encode(text, false).value(), test["ids_without_special"].get<Ids>())
          << text;
      ++cases;
    }
  }
  EXPECT_EQ(cases, 1600u);
}

TEST(Tokenizer, KnowsItsTokens) {
  EXPECT_EQ(Qwen3().vocab_size(), 151669);
  EXPECT_EQ(Qwen3().FindToken("<|im_end|>"), 151645);
  EXPECT_EQ(Qwen3().FindToken("Ġthe"), 279);
  EXPECT_EQ(Qwen3().FindToken("no such token"), std::nullopt);
  EXPECT_EQ(Qwen3().FindToken("\xff"), std::nullopt);
  EXPECT_EQ(Qwen3().TokenBytes(279), " the");
  EXPECT_EQ(Qwen3().TokenBytes(151645), "<|im_end|>");
  for (const int32_t id : {-1, 151669, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(Qwen3().TokenBytes(id), "");
    EXPECT_FALSE(Qwen3().IsSpecial(id));
    EXPECT_EQ(Qwen3().Decode(Ids{id}), "");
  }
  EXPECT_TRUE(Qwen3().IsSpecial(151645));
  EXPECT_FALSE(Qwen3().IsSpecial(151667));  // <think>: added, yet not special
}

TEST(Tokenizer, SaysWhereUtf8IsInvalid) {
  const auto ids = Qwen3().Encode("twelve bytes\xc3(");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ids.error().message, "invalid UTF-8 at byte 12");
  EXPECT_FALSE(Qwen3().Encode("\xed\xa0\x80"));  // a surrogate
  EXPECT_EQ(Qwen3().Encode("").value(), Ids{});
}

TEST(Tokenizer, LeavesLiteralRangesText) {
  const std::string text = "<|im_start|>user\n<|im_end|><think><|im_end|>";
  const TextRange user{17, 34};  // "<|im_end|><think>"
  const Ids ids = Qwen3().Encode(text, true, std::span(&user, 1)).value();
  EXPECT_EQ(std::ranges::count(ids, 151644), 1);
  EXPECT_EQ(std::ranges::count(ids, 151645), 1);
  EXPECT_EQ(ids.back(), 151645);
  EXPECT_EQ(std::ranges::count(ids, 151667), 0);
  EXPECT_EQ(Qwen3().Decode(ids), text);
  // Text on both sides of a range's border is still one word.
  const TextRange half{0, 2};
  EXPECT_EQ(Qwen3().Encode("hello", true, std::span(&half, 1)).value(),
            Qwen3().Encode("hello").value());
}

// Quadratic merging would take hours here.
TEST(Tokenizer, EncodesAMegabyteOfOneLetterInTime) {
  for (const char* letter : {"a", " ", "\u4e2d", "\u0301", "=", "\n"}) {
    std::string text;
    while (text.size() < 1'000'000) text += letter;
    const std::clock_t start = std::clock();
    const Ids ids = Qwen3().Encode(text).value();
    EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 20) << letter;
    EXPECT_EQ(Qwen3().Decode(ids), text);
  }
}

// Long words go through a heap and short ones through a scan; both must give the same.
TEST(Bpe, LongAndShortWordsAgree) {
  const std::vector<Bpe::Merge> merges = {
      {'a', 'b', 300}, {'b', 'a', 301}, {300, 300, 302}, {'a', 'a', 303}, {302, 'a', 304},
      {303, 303, 305}, {301, 301, 306}, {304, 'b', 307}, {305, 'b', 308}, {'b', 302, 309}};
  std::array<int32_t, 256> bytes;
  for (size_t b = 0; b < 256; ++b) bytes[b] = static_cast<int32_t>(b);
  const Bpe bpe(bytes, merges);
  // The reference: the definition, one merge at a time.
  const auto reference = [&](std::string_view word) {
    Ids ids(word.begin(), word.end());
    for (size_t rank = 0; rank < merges.size();) {
      const auto& merge = merges[rank++];
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        if (ids[i] != merge.left || ids[i + 1] != merge.right) continue;
        ids[i] = merge.merged;
        ids.erase(ids.begin() + static_cast<ptrdiff_t>(i) + 1);
        rank = 0;  // a new pair may come before
        break;
      }
    }
    return ids;
  };
  Rng rng(5);
  for (int round = 0; round < 300; ++round) {
    std::string word;
    for (uint64_t size = 1 + rng.Below(300); word.size() < size;)
      word.push_back(static_cast<char>('a' + (rng.Below(3) == 0)));
    Ids ids;
    bpe.Encode(word, ids);
    ASSERT_EQ(ids, reference(word)) << word;
  }
}

TEST(Detokenizer, PiecesAreWholeCharactersAndSumUpToDecode) {
  for (const std::string& line : ReadTestLines("tokenizer_decode.jsonl.gz")) {
    const Json golden = ParseJson(line).value();
    for (const bool skip_special : {false, true}) {
      Detokenizer stream(Qwen3(), skip_special);
      std::string text;
      for (const int32_t id : golden["ids"].get<Ids>()) {
        const std::string piece = stream.Push(id);
        ASSERT_EQ(ValidUtf8Prefix(piece), piece.size());
        text += piece;
      }
      text += stream.Flush();
      ASSERT_EQ(text, golden[skip_special ? "text_without_special" : "text"]);
    }
  }
}

TEST(Detokenizer, HoldsAnUnfinishedCharacterBack) {
  const Ids ids = Qwen3().Encode("\U00013080").value();  // several tokens make one character
  ASSERT_GT(ids.size(), 1u);
  Detokenizer stream(Qwen3(), false);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(stream.Push(ids[i]), "");
  EXPECT_EQ(stream.Push(ids.back()), "\U00013080");
  EXPECT_EQ(stream.Push(ids.front()), "");
  EXPECT_EQ(stream.Flush(), "\ufffd");
  EXPECT_EQ(stream.Flush(), "");
}

// ---- Hostile files

struct BadFile {
  const char* what;
  std::function<void(Json&)> alter;
  ErrorCode code;
  const char* message;  // a part of it
};

TEST(TokenizerJson, SmallFileIsFine) {
  const auto tokenizer = Tokenizer::FromJson(SmallJson().dump());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->Encode("the<s>").value(), (Ids{257, 258}));
}

TEST(TokenizerJson, RefusesByName) {
  const BadFile bad_files[] = {
      {"huge id", [](Json& j) { j["model"]["vocab"]["x!"] = 1ll << 31; },
       ErrorCode::kInvalidArgument, "id 2147483648 is not in [0, 2097152)"},
      {"larger than int64", [](Json& j) { j["model"]["vocab"]["x!"] = UINT64_MAX; },
       ErrorCode::kInvalidArgument, "model.vocab[\"x!\"]: id 18446744073709551615"},
      {"negative id", [](Json& j) { j["model"]["vocab"]["x!"] = -1; }, ErrorCode::kInvalidArgument,
       "id -1"},
      {"fractional id", [](Json& j) { j["model"]["vocab"]["x!"] = 1.5; },
       ErrorCode::kInvalidArgument, "model.vocab: expected token ids"},
      {"two tokens, one id", [](Json& j) { j["model"]["vocab"]["x!"] = 257; }, ErrorCode::kCorrupt,
       "two tokens have the id 257"},
      {"byte missing", [](Json& j) { j["model"]["vocab"].erase("z"); }, ErrorCode::kUnsupported,
       "no token for the byte 0x7a"},
      {"vocab is a list", [](Json& j) { j["model"]["vocab"] = Json::array({1}); },
       ErrorCode::kInvalidArgument, "model.vocab: is of the wrong type"},
      {"no vocab", [](Json& j) { j["model"].erase("vocab"); }, ErrorCode::kInvalidArgument,
       "model.vocab: is missing"},
      {"no model", [](Json& j) { j.erase("model"); }, ErrorCode::kInvalidArgument,
       "model: expected an object"},
      {"merge of unknown tokens", [](Json& j) { j["model"]["merges"].push_back("q x"); },
       ErrorCode::kCorrupt, "model.merges[2]: \"q\" and \"x\""},
      {"merge of three", [](Json& j) { j["model"]["merges"].push_back("t h e"); },
       ErrorCode::kInvalidArgument, "model.merges[2]: expected two tokens"},
      {"merge triple", [](Json& j) { j["model"]["merges"].push_back({"t", "h", "e"}); },
       ErrorCode::kInvalidArgument, "model.merges[2]: expected two tokens"},
      {"merge of numbers", [](Json& j) { j["model"]["merges"].push_back({1, 2}); },
       ErrorCode::kInvalidArgument, "model.merges[2]: expected two tokens"},
      {"merges is a number", [](Json& j) { j["model"]["merges"] = 3; }, ErrorCode::kInvalidArgument,
       "model.merges: is of the wrong type"},
      {"WordPiece", [](Json& j) { j["model"]["type"] = "WordPiece"; }, ErrorCode::kUnsupported,
       "the model WordPiece is not supported"},
      {"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, ErrorCode::kUnsupported,
       "model.dropout"},
      {"byte_fallback", [](Json& j) { j["model"]["byte_fallback"] = true; },
       ErrorCode::kUnsupported, "byte_fallback"},
      {"word prefix", [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
       ErrorCode::kUnsupported, "continuing_subword_prefix"},
      {"normaliser", [](Json& j) { j["normalizer"] = {{"type", "NFKC"}}; }, ErrorCode::kUnsupported,
       "the normaliser NFKC"},
      {"nested normaliser",
       [](Json& j) {
         j["normalizer"] = {{"type", "Sequence"},
                            {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}};
       },
       ErrorCode::kUnsupported, "the normaliser Lowercase"},
      {"pre-tokeniser", [](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; },
       ErrorCode::kUnsupported, "the pre-tokeniser Metaspace"},
      {"no pre-tokeniser", [](Json& j) { j["pre_tokenizer"] = nullptr; }, ErrorCode::kUnsupported,
       "pre_tokenizer"},
      {"prefix space", [](Json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; },
       ErrorCode::kUnsupported, "add_prefix_space"},
      {"post-processor", [](Json& j) { j["post_processor"] = {{"type", "TemplateProcessing"}}; },
       ErrorCode::kUnsupported, "the post-processor TemplateProcessing"},
      {"decoder", [](Json& j) { j["decoder"] = {{"type", "Fuse"}}; }, ErrorCode::kUnsupported,
       "decoder"},
      {"added id", [](Json& j) { j["added_tokens"][0]["id"] = 1ll << 40; },
       ErrorCode::kInvalidArgument, "added_tokens[0].id"},
      {"added id is a string", [](Json& j) { j["added_tokens"][0]["id"] = "258"; },
       ErrorCode::kInvalidArgument, "added_tokens[0].id"},
      {"added id taken", [](Json& j) { j["added_tokens"][0]["id"] = 5; }, ErrorCode::kCorrupt,
       "two tokens have the id 5"},
      {"added token with another id", [](Json& j) { j["added_tokens"][0]["content"] = "the"; },
       ErrorCode::kCorrupt, "the added token \"the\" has the ids 257 and 258"},
      {"added twice", [](Json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); },
       ErrorCode::kCorrupt, "two added tokens are \"<s>\""},
      {"empty added token", [](Json& j) { j["added_tokens"][0]["content"] = ""; },
       ErrorCode::kInvalidArgument, "added_tokens[0].content"},
      {"long added token",
       [](Json& j) { j["added_tokens"][0]["content"] = std::string(1025, 'a'); },
       ErrorCode::kInvalidArgument, "added_tokens[0].content"},
      {"flag is a number", [](Json& j) { j["added_tokens"][0]["lstrip"] = 1; },
       ErrorCode::kInvalidArgument, "added_tokens[0].lstrip"},
      {"added_tokens is an object", [](Json& j) { j["added_tokens"] = Json::object(); },
       ErrorCode::kInvalidArgument, "added_tokens: expected an array"},
  };
  for (const BadFile& bad : bad_files) {
    Json json = SmallJson();
    bad.alter(json);
    const auto tokenizer = Tokenizer::FromJson(json.dump());
    ASSERT_FALSE(tokenizer) << bad.what;
    EXPECT_EQ(tokenizer.error().code, bad.code) << bad.what;
    EXPECT_NE(tokenizer.error().message.find(bad.message), std::string::npos)
        << bad.what << ": " << tokenizer.error().message;
  }
}

TEST(TokenizerJson, RefusesWhatIsNotADocument) {
  for (const std::string& text : {std::string(), std::string("[]"), std::string("{\"model\""),
                                  std::string("{}"), std::string("\xff"), std::string(100'000, '['),
                                  std::string("{\"model\": {\"vocab\": {\"a\": {")})
    EXPECT_FALSE(Tokenizer::FromJson(text)) << text.substr(0, 20);
}

// A million keys in one object, or tokens with one prefix, must not cost their square.
TEST(TokenizerJson, SurvivesGiganticLists) {
  std::string keys = SmallJson().dump();
  keys.pop_back();
  for (int i = 0; i < 300'000; ++i) keys += ",\"k" + std::to_string(i) + "\":0";
  EXPECT_TRUE(Tokenizer::FromJson(keys + "}"));

  Json json = SmallJson();
  for (int i = 0; i < 20'000; ++i)
    json["added_tokens"].push_back(
        {{"id", 1000 + i}, {"content", std::string(300, 'a') + std::to_string(i)}});
  const auto tokenizer = Tokenizer::FromJson(json.dump());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->Encode(std::string(50'000, 'a')).value().size(), 50'000u);
  EXPECT_EQ((*tokenizer)->Encode(std::string(301, 'a') + "77").value(), (Ids{'a', 1077}));
}

}  // namespace
}  // namespace millpower::text
