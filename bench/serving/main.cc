// serving: measures an OpenAI server over HTTP, ours or another, with the same requests.
//
//   serving --url http://127.0.0.1:8080 --model qwen3-0.6b --concurrency 16 --requests 16
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>

#include "bench/serving/load.h"

namespace millpower::bench {
namespace {

void PrintSpread(const char* what, const Json& spread, double unit, const char* name) {
  if (spread["median"].is_null()) return;
  auto number = [&](const char* key) { return spread[key].get<double>() * unit; };
  fmt::print("{:<10} median {:.2f}, 90% {:.2f}, 99% {:.2f}, longest {:.2f} {}\n", what,
             number("median"), number("p90"), number("p99"), number("max"), name);
}

void Print(const Json& result) {
  auto rate = [&](const char* key) {
    return result[key].is_null() ? std::string("-")
                                 : fmt::format("{:.1f}", result[key].get<double>());
  };
  fmt::print("requests   {} in {:.2f} s, {} failed ({} refused: 429)\n",
             result["requests"].get<int64_t>(), result["seconds"].get<double>(),
             result["failed"].get<int64_t>(), result["refused"].get<int64_t>());
  fmt::print("tokens     {} in ({} cached), {} out\n", result["prompt_tokens"].get<int64_t>(),
             result["cached_tokens"].get<int64_t>(), result["output_tokens"].get<int64_t>());
  fmt::print("rate       {} output tok/s, {} tok/s in all, {} requests/s\n", rate("output_tok_s"),
             rate("total_tok_s"), rate("request_s"));
  PrintSpread("TTFT", result["ttft_s"], 1, "s");
  PrintSpread("TPOT", result["tpot_s"], 1e3, "ms");
  PrintSpread("gap", result["gap_s"], 1e3, "ms");
  PrintSpread("latency", result["latency_s"], 1, "s");
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Measures an OpenAI server on this machine over HTTP, by streamed requests of fixed "
      "token ids.",
      "serving");
  LoadOptions options;
  std::string url = "http://127.0.0.1:8080";
  double timeout_s = 600;
  bool json = false;
  const std::map<std::string, Api> apis = {{"completions", Api::kCompletions},
                                           {"chat", Api::kChat}};
  constexpr int kMost = 1 << 20;
  app.add_option("--url", url, "The server; loopback addresses only")->capture_default_str();
  app.add_option("--model", options.model, "The model's name there")->required();
  app.add_option("--api", options.api,
                 "completions (prompts of exact token ids) or chat (as many short words)")
      ->transform(CLI::CheckedTransformer(apis))
      ->default_str("completions");
  app.add_option("--key", options.key, "Bearer token, for a server that wants one");
  app.add_option("--requests", options.requests, "How many are measured")
      ->check(CLI::Range(1, kMost))
      ->capture_default_str();
  CLI::Option* concurrency =
      app.add_option("--concurrency", options.concurrency, "At one time, each after another")
          ->check(CLI::Range(1, 1 << 14))
          ->capture_default_str();
  app.add_option("--rate", options.rate,
                 "Instead: so many arrive a second on average, at random (Poisson), whatever is "
                 "still running")
      ->check(CLI::Range(1e-3, 1e6))
      ->excludes(concurrency);
  app.add_option("--input", options.input_tokens, "Tokens of a prompt")
      ->check(CLI::Range(1, kMost))
      ->capture_default_str();
  app.add_option("--output", options.output_tokens,
                 "Tokens generated for each, end-of-text ignored")
      ->check(CLI::Range(1, kMost))
      ->capture_default_str();
  app.add_option("--shared-prefix", options.shared_prefix,
                 "The first so many tokens are the same in all prompts")
      ->check(CLI::Range(0, kMost))
      ->capture_default_str();
  app.add_option("--vocab", options.vocab, "Token ids are drawn below this")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of prompts and arrivals")->capture_default_str();
  app.add_option("--warmup", options.warmup, "Requests sent before, and not counted")
      ->check(CLI::Range(0, kMost))
      ->capture_default_str();
  app.add_option("--timeout", timeout_s, "Seconds for everything; what runs then has failed")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
  app.add_flag("--json", json, "One JSON object instead of a table");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1e3));
  auto target = ParseUrl(url);
  if (target && options.shared_prefix > options.input_tokens)
    target =
        Fail(ErrorCode::kInvalidArgument, fmt::format("--shared-prefix {} is more than --input {}",
                                                      options.shared_prefix, options.input_tokens));
  if (!target) {
    fmt::print(stderr, "serving: error: {}\n", target.error().message);
    return 2;
  }
  options.target = *target;
  Json result = Summarise(RunLoad(options));
  if (json) {
    Json described = {{"url", url},
                      {"model", options.model},
                      {"api", options.api == Api::kChat ? "chat" : "completions"},
                      {"concurrency", options.rate > 0 ? Json() : Json(options.concurrency)},
                      {"rate", options.rate > 0 ? Json(options.rate) : Json()},
                      {"input", options.input_tokens},
                      {"output", options.output_tokens},
                      {"shared_prefix", options.shared_prefix},
                      {"seed", options.seed}};
    described.update(result);
    fmt::print("{}\n", DumpJson(described));
  } else {
    Print(result);
  }
  if (result["failed"].get<int64_t>() == 0) return 0;
  fmt::print(stderr, "serving: error: {} of {} requests failed; the first: {}\n",
             result["failed"].get<int64_t>(), result["requests"].get<int64_t>(),
             result["first_error"].get<std::string>());
  return 1;
}

}  // namespace
}  // namespace millpower::bench

int main(int argc, char** argv) {
  try {
    return millpower::bench::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "serving: error: %s\n", error.what());
    return 1;
  }
}
