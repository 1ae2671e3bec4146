// The tokenizer that comes out of a GGUF file is the one of the tokenizer.json that went into it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "import/gguf/test_file.h"
#include "import/gguf/tokenizer.h"
#include "text/test_data.h"
#include "text/tokenizer.h"

namespace millpower {
namespace {

// Qwen3's vocabulary, stored as llama.cpp's converter does (get_vocab_base): added tokens that are
// special, or look so, are control tokens; other added ones are user-defined; ids up to the model's
// vocabulary are filled up.
std::string Qwen3Gguf() {
  const auto json = nlohmann::json::parse(text::ReadTestData("qwen3_tokenizer.json.gz"));
  constexpr size_t kVocab = 151936;
  std::vector<std::string> tokens(kVocab), merges;
  std::vector<int32_t> types(kVocab, 5);
  for (size_t i = 0; i < kVocab; ++i) tokens[i] = "[PAD" + std::to_string(i) + "]";
  for (const auto& [token, id] : json["model"]["vocab"].items()) {
    tokens[id.get<size_t>()] = token;
    types[id.get<size_t>()] = 1;
  }
  for (const auto& added : json["added_tokens"]) {
    const auto content = added["content"].get<std::string>();
    const bool looks_special = content.starts_with("<|") && content.ends_with("|>");
    tokens[added["id"].get<size_t>()] = content;
    types[added["id"].get<size_t>()] = added["special"].get<bool>() || looks_special ? 3 : 4;
  }
  for (const auto& merge : json["model"]["merges"])
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  import::GgufBuilder file;
  file.Set("tokenizer.ggml.model", "gpt2").Set("tokenizer.ggml.pre", "qwen2");
  file.Set("tokenizer.ggml.tokens", tokens).Set("tokenizer.ggml.token_type", types);
  file.Set("tokenizer.ggml.merges", merges).Set("tokenizer.ggml.eos_token_id", 151645u);
  file.Set("tokenizer.ggml.add_bos_token", false);
  return file.Build();
}

TEST(GgufTokenizer, IsThatOfTheTokenizerJson) {
  const std::string bytes = Qwen3Gguf();
  const auto file = import::ParseGguf(std::as_bytes(std::span(bytes)));
  ASSERT_TRUE(file) << file.error().message;
  const import::GgufFields metadata(file->metadata);
  const auto json = import::TokenizerJson(metadata);
  ASSERT_TRUE(json) << json.error().message;
  const auto made = text::Tokenizer::FromJson(*json);
  ASSERT_TRUE(made) << made.error().message;
  const auto original = text::Tokenizer::FromJson(text::ReadTestData("qwen3_tokenizer.json.gz"));
  ASSERT_TRUE(original) << original.error().message;

  ASSERT_EQ((*made)->vocab_size(), (*original)->vocab_size());
  for (int32_t id = 0; id < (*original)->vocab_size(); ++id) {
    ASSERT_EQ((*made)->TokenBytes(id), (*original)->TokenBytes(id)) << id;
    // What the conversion loses: the six of <|fim_prefix|> to <|file_sep|> look special.
    const bool lost = id >= 151659 && id <= 151664;
    ASSERT_EQ((*made)->IsSpecial(id), lost || (*original)->IsSpecial(id)) << id;
  }
  int count = 0;
  for (const std::string& line : text::ReadTestLines("tokenizer_golden.jsonl.gz")) {
    const Json golden = ParseJson(line).value();
    const auto text = golden["text"].get<std::string>();
    ASSERT_EQ((*made)->Encode(text).value(), golden["ids"].get<std::vector<int32_t>>()) << text;
    ++count;
  }
  EXPECT_EQ(count, 4000);
  EXPECT_EQ(import::EndTokens(metadata, 151936), (std::vector<int32_t>{151643, 151645}));
}

}  // namespace
}  // namespace millpower
