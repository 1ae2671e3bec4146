// The language-model serving loop as its callers see it: requests of token ids go in, token ids
// come out. Text (tokenising, chat format, stop strings) belongs to the caller.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace millpower::engine {

inline constexpr int kMaxTopLogprobs = 20;

struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: all
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1]
  // Same seed, prompt and parameters: same tokens. Absent: the engine draws one.
  std::optional<uint64_t> seed{};
  int32_t max_tokens = 16;                // >= 0; 0 only makes sense with prompt_logprobs
  bool ignore_eos = false;                // end-of-text ids do not end the output
  std::vector<int32_t> stop_token_ids{};  // end the output besides the model's end-of-text ids
  int32_t logprobs = -1;  // alternatives to report per token, 0..kMaxTopLogprobs; -1: no logprobs
  bool prompt_logprobs = false;  // logprobs (as many alternatives) of the prompt's tokens too
};

struct Request {
  std::string id;               // unique among live requests; appears in logs
  std::string caller;           // whom the work is for; "" is the local developer
  std::vector<int32_t> prompt;  // not empty, ids below vocab_size
  SamplingParams sampling;
};

struct Alternative {
  int32_t token = 0;
  float logprob = 0;
};

// One token and, when asked for, its logprob under the model's own distribution (temperature 1,
// nothing filtered).
struct TokenInfo {
  int32_t token = 0;
  float logprob = 0;
  std::vector<Alternative> top;  // most likely first
};

enum class FinishReason {
  kStop,       // an end-of-text or stop id (the last token of the output), or the sink said so
  kLength,     // max_tokens or the context's end
  kCancelled,  // Cancel() or the sink
  kError,      // the device failed; Delta::error says how
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;      // of the prompt, answered from the prefix cache
  int64_t completion_tokens = 0;  // every token generated, the end-of-text one included
};

// What happened to one request in one step.
struct Delta {
  std::vector<TokenInfo> prompt;  // once, before the first token, with prompt_logprobs: one per
                                  // prompt token; the first has no logprob (0)
  std::vector<TokenInfo> tokens;
  std::optional<FinishReason> finish;  // set on the last delta of a request, and only there
  Usage usage;                         // so far; final with `finish`
  std::optional<Error> error;          // with kError
};

enum class Verdict {
  kContinue,
  kStop,    // the caller has what it wants (a stop string): finish, reason kStop
  kCancel,  // the caller is gone: finish, reason kCancelled
};

// Called on the engine's thread, once per step in which something happened; must return quickly
// and never call the engine. After a verdict other than kContinue, or a delta with `finish`, it is
// not called again: on kStop and kCancel the delta just delivered was the last, and holds the
// usage to count.
using Sink = std::function<Verdict(const Delta&)>;

struct EngineLimits {
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;  // prompt and output of one request, in tokens
  int32_t max_queue = 0;      // requests waiting; one more is refused
};

// A snapshot of counters (monotonic) and gauges.
struct EngineStats {
  int64_t requests_running = 0;
  int64_t requests_waiting = 0;
  int64_t kv_pages_total = 0;
  int64_t kv_pages_used = 0;
  int64_t steps = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t requests_finished = 0;  // for whatever reason
  int64_t requests_cancelled = 0;
  int64_t device_busy_ns = 0;
};

// All functions are thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineLimits& limits() const = 0;

  // Queues a request; its sink is called until it finishes.
  // Errors: kInvalidArgument (a parameter out of range, named in Error::param; an empty prompt);
  // kOutOfRange (the prompt does not fit max_model_len, or could never fit the KV memory);
  // kNoCapacity (queue full); kUnavailable (stopping).
  virtual Result<void> Submit(Request request, Sink sink) = 0;

  // Ends a request at the next step boundary; its sink gets a last delta with kCancelled. Unknown
  // or finished ids are ignored.
  virtual void Cancel(const std::string& id) = 0;

  virtual EngineStats Stats() const = 0;

  // Refuses new requests and waits until the live ones are done or `timeout_ns` has passed; then
  // cancels what is left. Idempotent.
  virtual void Drain(int64_t timeout_ns) = 0;
};

}  // namespace millpower::engine
