// Speed of the tokenizer on one core, with the published Qwen3 vocabulary.
//
//   build/release/src/text/tokenizer_bench
//
// The texts are drawn anew from the vocabulary itself, uniformly: hardly any word comes twice, so
// no cache could help, and rare tokens are as common as frequent ones. Real text is faster.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "base/check.h"
#include "base/rng.h"
#include "text/test_data.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace millpower::text {
namespace {

constexpr size_t kTextBytes = 4 << 20;

const std::string& Qwen3Json() {
  static const std::string json = ReadTestData("qwen3_tokenizer.json.gz");
  return json;
}

const Tokenizer& Qwen3() {
  static const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::FromJson(Qwen3Json()).value();
  return *tokenizer;
}

// The tokens all of whose characters pass.
template <typename Passes>
std::vector<std::string_view> TokensOf(Passes passes) {
  std::vector<std::string_view> tokens;
  for (int32_t id = 0; id < Qwen3().vocab_size(); ++id) {
    const std::string_view bytes = Qwen3().TokenBytes(id);
    if (bytes.empty() || ValidUtf8Prefix(bytes) != bytes.size()) continue;
    bool all = true;
    for (size_t at = 0; all && at < bytes.size();) all = passes(NextCodePoint(bytes, at));
    if (all) tokens.push_back(bytes);
  }
  return tokens;
}

// Words of one to three tokens with a space before each.
std::string English() {
  const auto tokens = TokensOf([](char32_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; });
  Rng rng(1);
  std::string text;
  while (text.size() < kTextBytes) {
    for (uint64_t i = 1 + rng.Below(3); i > 0; --i) text += tokens[rng.Below(tokens.size())];
    text += rng.Below(10) == 0 ? (rng.Below(6) == 0 ? ".\n\n" : ", ") : " ";
  }
  return text;
}

// Clauses of some ten tokens: what a byte pair encoder sees as words of 30 to 90 bytes.
std::string Chinese() {
  const auto tokens = TokensOf([](char32_t c) { return c >= 0x4e00 && c <= 0x9fff; });
  Rng rng(2);
  std::string text;
  while (text.size() < kTextBytes) {
    text += tokens[rng.Below(tokens.size())];
    if (rng.Below(10) == 0) text += rng.Below(3) == 0 ? "\u3002" : "\uff0c";
  }
  return text;
}

// All tokens there are, of any script, and what lies between: punctuation, indentation, digits.
std::string Mixed() {
  const auto tokens = TokensOf([](char32_t c) { return c != '<'; });
  Rng rng(3);
  std::string text;
  while (text.size() < kTextBytes) text += tokens[rng.Below(tokens.size())];
  return text;
}

std::string Repeated(const char* unit) {
  std::string text;
  while (text.size() < (1 << 20)) text += unit;
  return text;
}

void Encode(benchmark::State& state, const std::string& text) {
  size_t tokens = 0;
  for (auto _ : state) {
    const auto ids = Qwen3().Encode(text);
    CHECK(ids) << ids.error().message;
    tokens = ids->size();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["bytes/token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}

BENCHMARK_CAPTURE(Encode, english, English())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, chinese, Chinese())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, mixed, Mixed())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, one_letter, Repeated("a"))->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, one_mark, Repeated("\u0301"))->Unit(benchmark::kMillisecond);

void Detokenize(benchmark::State& state) {
  const std::vector<int32_t> ids = Qwen3().Encode(Mixed()).value();
  for (auto _ : state) {
    Detokenizer stream(Qwen3(), true);
    size_t size_bytes = 0;
    for (const int32_t id : ids) size_bytes += stream.Push(id).size();
    benchmark::DoNotOptimize(size_bytes);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * ids.size()));
}
BENCHMARK(Detokenize)->Unit(benchmark::kMillisecond);

void Load(benchmark::State& state) {
  for (auto _ : state) CHECK(Tokenizer::FromJson(Qwen3Json()));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * Qwen3Json().size()));
}
BENCHMARK(Load)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace millpower::text
