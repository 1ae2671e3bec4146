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

struct TokenBias {
  int32_t token = 0;
  float bias = 0;  // added to the token's logit; -infinity forbids it
};

struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: all
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1]
  // Same seed, prompt and parameters: same tokens. Absent: the engine draws one.
  std::optional<uint64_t> seed{};
  int32_t max_tokens = 16;  // >= 0; 0 only makes sense with prompt_logprobs
  int32_t min_tokens = 0;   // until so many are generated, no end-of-text or stop id is drawn
  // On tokens generated so far: `frequency` times their count and, once, `presence` are taken off
  // their logits (OpenAI). In -2..2.
  float frequency_penalty = 0;
  float presence_penalty = 0;
  // On tokens of the prompt and generated so far: positive logits are divided by it, negative ones
  // multiplied (Keskar et al., "CTRL", 2019). In (0, 2]; 1 changes nothing.
  float repetition_penalty = 1;
  std::vector<TokenBias> logit_bias{};    // each token at most once
  bool ignore_eos = false;                // end-of-text ids do not end the output
  std::vector<int32_t> stop_token_ids{};  // end the output besides the model's end-of-text ids
  int32_t logprobs = -1;  // alternatives to report per token, 0..kMaxTopLogprobs; -1: no logprobs
  bool prompt_logprobs = false;  // logprobs (as many alternatives) of the prompt's tokens too
};

// Of two requests that could both use the next free place, the one of the higher class gets it;
// within a class callers take turns (Scheduler). Batch work runs when nothing else wants to, and
// gives way first when memory runs out.
enum class Priority : uint8_t { kInteractive = 0, kStandard = 1, kBatch = 2 };
inline constexpr int kPriorityCount = 3;

struct Request {
  std::string id;  // unique among live requests; appears in logs
  // Whom the work is for; "" is the local developer. Set by the server from the key, never by the
  // client: callers share the machine fairly, and cached prefixes are shared only within one.
  std::string caller;
  Priority priority = Priority::kStandard;
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
  kError,      // the device or the ledger failed, or the engine stops; Delta::error says how
  kBudget,     // Hooks::Extend granted nothing more
};

struct Usage {
  int64_t prompt_tokens = 0;      // as far as they got: all of them with the first token
  int64_t cached_tokens = 0;      // of the prompt, answered from the prefix cache
  int64_t completion_tokens = 0;  // every token generated, the end-of-text one included
  // Of each launch it took part in, the part that its rows are of all rows. Over all requests these
  // add up to the launches' time to the nanosecond. After a verdict the launch under way is part
  // of what Hooks::Finish is told, and of the delta after kStop, but came too late for the one
  // that brought the verdict.
  int64_t device_ns = 0;
  // Likewise of their modelled energy, in microjoules; 0 on a device without a description.
  int64_t energy_uj = 0;
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

// What a caller has leased.
struct CallerShare {
  std::string caller;
  double share = 0;  // of the device's time, in (0, 1]
};

// Called on the engine's thread, once per step in which something happened, while the device may
// already work on the next; must return quickly and never call the engine. After a delta with
// `finish` it is not called again, nor after kCancel: the delta just delivered was the last, and
// holds the usage to count. After kStop it is called once more, when the ledger has posted what was
// used: with `finish` (kStop, or kError with the error), no tokens, and the final usage. A token
// that was under way at the verdict is neither told nor counted.
using Sink = std::function<Verdict(const Delta&)>;

struct EngineLimits {
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;  // prompt and output of one request, in tokens
  int32_t max_queue = 0;      // requests waiting; one more is refused
};

// Who decides what a request may use, and is told what it did use: the ledger. Functions may be
// called from any thread of the engine's callers (Admit) or on the engine's thread (the others),
// and must return at once there; they answer through the callbacks, once, later and on any thread;
// an answer to Extend may come when the request or the engine is gone. Until `posted` is called a
// request is live: Drain and the engine's destructor wait for it.
class Hooks {
 public:
  virtual ~Hooks() = default;

  // In Submit, before the request is queued: holds what it may cost at first. The result is how
  // many tokens it may generate before Extend; an error is Submit's. For every request that was
  // admitted Finish is called once, also when it is cancelled or refused afterwards.
  virtual Result<int64_t> Admit(const Request& request) = 0;

  // The request is about to have generated all it may: how many more? Called before the last
  // granted token is made, so that a quick answer costs no step; without an answer the request
  // waits. 0 or kQuotaExceeded ends it with kBudget, another error with kError.
  virtual void Extend(const std::string& id, const Usage& so_far,
                      std::function<void(Result<int64_t>)> answer) = 0;

  // The request is over and has used this. Its last delta is given to the sink only once `posted`
  // is called; with an error, the sink gets kError instead.
  virtual void Finish(const std::string& id, const Usage& usage, FinishReason reason,
                      std::function<void(Result<void>)> posted) = 0;
};

// How long Drain and the engine's destructor wait for the ledger, of real time, once nothing else
// is left to wait for. A write to a slow disk takes a second; who stops a server waits ten at most.
inline constexpr int64_t kLedgerGraceNs = 5'000'000'000;

// What happens, as it happens, for metrics. Called on the engine's thread; must return quickly.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnQueued(int64_t /*waited_ns*/) {}  // a request was given its first step
  virtual void OnFirstToken(int64_t /*since_submit_ns*/) {}
  virtual void OnNextToken(int64_t /*since_last_ns*/) {}
  // sequences and rows (tokens) of a launch; device and whole time of the step.
  virtual void OnStep(int64_t /*sequences*/, int64_t /*rows*/, int64_t /*device_ns*/,
                      int64_t /*step_ns*/) {}
};

// A snapshot of counters (monotonic) and gauges.
struct EngineStats {
  int64_t requests_running = 0;
  int64_t requests_waiting = 0;  // accepted, and not yet given a place in a step
  int64_t kv_pages_total = 0;
  int64_t kv_pages_used = 0;    // held by running requests
  int64_t kv_pages_cached = 0;  // hold prefixes that nobody uses now; given up when needed
  int64_t steps = 0;
  int64_t prompt_tokens = 0;         // of requests that got that far, cached ones included
  int64_t cached_prompt_tokens = 0;  // of them, not computed but found in the prefix cache
  int64_t generated_tokens = 0;
  int64_t requests_finished = 0;  // for whatever reason
  int64_t requests_cancelled = 0;
  int64_t preemptions = 0;
  int64_t device_busy_ns = 0;
};

// All functions are thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineLimits& limits() const = 0;

  // Queues a request; its sink is called until it finishes.
  // Errors: kInvalidArgument (a parameter out of range, named in Error::param; an empty prompt);
  // kOutOfRange (the prompt does not fit max_model_len, or could never fit the KV memory; more
  // tokens to adjust than a launch takes, Error::param naming what asks for them);
  // kNoCapacity (the queue is full, or the caller has half of it); kUnavailable (stopping).
  virtual Result<void> Submit(Request request, Sink sink) = 0;

  // Ends a request at the next step boundary; its sink gets a last delta with kCancelled. Unknown
  // or finished ids are ignored.
  virtual void Cancel(const std::string& id) = 0;

  virtual EngineStats Stats() const = 0;

  // Replaces what is leased to whom; at most 1 in all. While others want the device too, a caller
  // named here that has work waiting gets its share of the time, and those not named share the rest
  // equally; what nobody asks for is everybody's.
  virtual void SetShares(std::vector<CallerShare> shares) = 0;

  // Refuses new requests and waits until the live ones are done or `timeout_ns` of real time has
  // passed; then ends what is left with kError, and gives the ledger kLedgerGraceNs to post it. A
  // request that is not posted even then ends with kError: so Drain returns, and the destructor,
  // which does not wait for live requests at all, whatever the ledger does. Its answer may still
  // come, and changes nothing. Idempotent.
  virtual void Drain(int64_t timeout_ns) = 0;
};

}  // namespace millpower::engine
