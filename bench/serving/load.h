// Load on an OpenAI server: requests of fixed token ids, streamed, in a closed loop or arriving at
// random. Talks to this machine only.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "bench/serving/statistics.h"

namespace millpower::bench {

struct Target {
  std::string address;  // numeric, a loopback one
  uint16_t port = 80;
  std::string host;    // as the URL has it, for the Host header
  std::string prefix;  // of paths, without the last "/": "" or "/v1"
};

// "http://127.0.0.1:8080", "http://localhost:8080/v1", "http://[::1]:8080". A path of "/v1", as
// OpenAI clients want it, is the same as none. Errors: kInvalidArgument for what is no such URL,
// and for every host but this machine's loopback addresses: load is not sent to others' servers.
Result<Target> ParseUrl(std::string_view url);

enum class Api { kCompletions, kChat };

struct LoadOptions {
  Target target;
  Api api = Api::kCompletions;
  std::string model;
  std::string key;             // a bearer token, or none
  int requests = 16;           // >= 1
  int concurrency = 16;        // >= 1; requests at a time, without a rate
  double rate = 0;             // > 0: arrivals a second, at exponentially distributed intervals
  int warmup = 0;              // requests sent before, at `concurrency`, and not counted
  int64_t input_tokens = 128;  // >= 1
  int64_t output_tokens = 64;  // >= 1
  int64_t shared_prefix = 0;   // the first so many tokens are the same in all; <= input_tokens
  int64_t vocab = 2048;        // token ids are below it
  uint64_t seed = 1;
  std::chrono::milliseconds timeout{600'000};  // for everything; what runs then has failed
};

// The body of request `index`; warm-ups have negative ones, so that no prompt comes twice. Prompts
// depend on seed and index only. Completions get token ids; chat, which takes none, as many short
// words.
Json RequestBody(const LoadOptions& options, int index);

// When requests are sent, in seconds from the start; of `rate` > 0. Depends on the seed only.
std::vector<double> Arrivals(const LoadOptions& options);

// Sends all of it, from one thread, and returns an outcome for each counted request, in order.
std::vector<Outcome> RunLoad(const LoadOptions& options);

}  // namespace millpower::bench
