// A tokenizer.json made of the input, and then text through what it describes: no input may crash,
// hang or give ids out of range.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

using millpower::text::Tokenizer;

namespace {

// A byte-complete vocabulary, into which the input is spliced: random bytes alone would hardly ever
// get past the JSON parser.
std::string Document(std::string_view pattern, std::string_view tail) {
  std::string vocab;
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    vocab += byte == 0 ? "\"" : ",\"";
    if (byte == '"' || byte == '\\') vocab += '\\';
    millpower::text::AppendUtf8(prints ? byte : next++, vocab);
    vocab += "\":" + std::to_string(static_cast<uint32_t>(byte));
  }
  vocab += ",\"ab\":256,\"abc\":257,\"aa\":258,\"aaaa\":259";
  std::string escaped;
  for (const char c : pattern) {
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return "{\"normalizer\":{\"type\":\"NFC\"},\"decoder\":{\"type\":\"ByteLevel\"},"
         "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
         "\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"" +
         escaped +
         "\"}},{\"type\":\"ByteLevel\","
         "\"add_prefix_space\":false,\"use_regex\":false}]},\"model\":{\"type\":\"BPE\",\"vocab\":"
         "{" +
         vocab + "},\"merges\":[\"a b\",\"ab c\",[\"a\",\"a\"],\"aa aa\"]},\"added_tokens\":[" +
         std::string(tail) + "]}";
}

void Exercise(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.Encode(text);
  if (!ids) return;
  for (const int32_t id : *ids) CHECK(id >= 0 && id < tokenizer.vocab_size()) << id;
  const std::string whole = tokenizer.Decode(*ids);
  millpower::text::Detokenizer stream(tokenizer, false);
  std::string pieces;
  for (const int32_t id : *ids) pieces += stream.Push(id);
  pieces += stream.Flush();
  CHECK(pieces == whole);
}

}  // namespace

// The input is up to three parts with zero bytes between: an expression, added tokens, and text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto tokenizer = Tokenizer::FromJson(input)) Exercise(**tokenizer, "some text");
  const size_t first = input.find('\0');
  if (first == std::string_view::npos) return 0;
  const size_t second = std::min(input.find('\0', first + 1), size);
  const std::string_view text = input.substr(std::min(second + 1, size));
  const std::string_view added = input.substr(first + 1, second - first - 1);
  if (const auto tokenizer = Tokenizer::FromJson(Document(input.substr(0, first), added)))
    Exercise(**tokenizer, text);
  static const auto qwen = Tokenizer::FromJson(
      Document(millpower::text::kQwenPattern, R"({"id":300,"content":"<s>","special":true})"));
  CHECK(qwen) << qwen.error().message;
  Exercise(**qwen, text);
  return 0;
}
