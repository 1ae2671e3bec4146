// A request on its way through the engine.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "engine/adjustments.h"
#include "engine/engine.h"

namespace millpower::engine {

struct Caller;  // scheduler.h

// `tokens` is the prompt and then the output; the KV pages hold the first `computed` of them.
// Preemption lets go of the pages and sets `computed` to 0: the tokens stay, and computing them
// again, or finding them in the prefix cache, gives the same bits.
struct Sequence {
  // Fixed when it is submitted.
  Request request;
  Sink sink;
  uint64_t seed = 0;
  int64_t order = 0;  // of arrival; names the sequence, as ids may come again
  int32_t prompt_size = 0;
  int64_t submitted_ns = 0;

  // How far it is.
  std::vector<int32_t> tokens;
  int32_t computed = 0;
  int32_t prompt_logprobs_done = 0;  // prompt positions whose logprobs have been collected
  Adjustments adjustments;           // for drawing the next token
  int64_t granted = std::numeric_limits<int64_t>::max();  // tokens it may generate (Hooks)

  // The Scheduler's.
  Caller* caller = nullptr;
  std::vector<int32_t> pages;  // for all tokens, while it runs
  int32_t published = 0;       // pages that are findable
  bool started = false;        // had a share
  int64_t last_step = 0;       // in which it had a share
  int32_t quota = 0;           // of the step being planned
  int64_t rows = 0;            // given so far
  // What the last lookup in the prefix cache found, and the version of the pages it was made in.
  int32_t found_pages = 0;
  int64_t found_version = -1;
  // While sequence `leader` runs and has not computed `leader_until` tokens, this one waits to find
  // them in the prefix cache.
  int64_t leader = -1;
  int32_t leader_until = 0;

  // The engine's.
  Delta delta;  // what its sink has not been told yet
  Usage usage;
  int64_t last_token_ns = 0;
  bool asked = false;                   // Hooks::Extend, and no answer yet
  bool grants_ended = false;            // by Hooks::Extend
  bool cancelled = false;               // before it arrived
  std::optional<FinishReason> verdict;  // its sink wants no more

  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
  int32_t pending() const { return size() - computed; }
  int32_t generated() const { return size() - prompt_size; }
  // Waits for Hooks::Extend.
  bool blocked() const { return request.sampling.max_tokens > 0 && generated() >= granted; }
};

// Tokens [computed, computed + count) of a sequence, to be computed in this step.
struct Share {
  Sequence* sequence = nullptr;
  int32_t count = 0;
  int32_t picked = 0;      // how many of the last rows want logits; 0 in the middle of a prompt
  bool completes = false;  // reaches the end of `tokens`, so that a token is sampled
  bool first = false;      // of its sequence
};

}  // namespace millpower::engine
