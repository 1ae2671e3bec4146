// Which sequences take part in the next step, and with how many tokens. Pure bookkeeping: no
// device, no clock, no threads.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/page_pool.h"

namespace millpower::engine {

// A request on its way. `tokens` is the prompt and then the output; the KV pages hold the first
// `computed` of them. Preemption drops the pages and sets `computed` to 0: the tokens stay, and
// computing them again gives the same bits.
struct Sequence {
  Request request;
  Sink sink;
  uint64_t seed = 0;
  int64_t order = 0;  // of arrival
  std::vector<int32_t> tokens;
  std::vector<int32_t> pages;
  int32_t prompt_size = 0;
  int32_t computed = 0;
  int32_t prompt_counted = 0;  // prompt tokens in the statistics: once, however often computed
  int32_t prompt_logprobs_done = 0;  // prompt positions whose logprobs have been collected
  Delta delta;                       // being put together in this step
  bool cancelled = false;

  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
  int32_t pending() const { return size() - computed; }
  int32_t generated() const { return size() - prompt_size; }
};

// Tokens [computed, computed + count) of a sequence, to be computed in this step.
struct Share {
  Sequence* sequence = nullptr;
  int32_t count = 0;
  int32_t picked = 0;      // how many of the last rows want logits; 0 in the middle of a prompt
  bool completes = false;  // reaches the end of `tokens`, so that a token is sampled
};

struct SchedulerLimits {
  int32_t max_sequences = 1;     // in one step
  int32_t max_batch_tokens = 1;  // in one step
  int32_t max_picked = 1;        // rows with logits in one step
  int32_t max_page_entries = 1;  // pages listed in one step
};

// Not thread-safe; used by the engine's thread.
class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, int32_t pages) : limits_(limits), pool_(pages) {}

  void Add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  // The shares of the next step; empty when nothing is left to do. First every running sequence
  // that only needs its next token, then the prompts in order of arrival, in chunks, as far as
  // the step's budget goes. When pages run out, the sequence that came last gives up its own and
  // waits; the first in line always goes on, because the pool holds at least one whole context.
  const std::vector<Share>& Plan();

  // Takes a finished sequence out and its pages back.
  std::unique_ptr<Sequence> Remove(Sequence* sequence);

  // The live sequence of a request, or null.
  Sequence* Find(const std::string& id) const;
  // All live sequences, running before waiting.
  std::vector<Sequence*> Live() const;

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preemptions() const { return preemptions_; }
  const PagePool& pool() const { return pool_; }

 private:
  void Admit();
  // Plans `count` more tokens of a running sequence; false when it had to give way.
  bool Grant(Sequence* sequence, int32_t count);
  // Makes room for `sequence` to hold `tokens` tokens, preempting those that came after it.
  bool Reserve(Sequence* sequence, int32_t tokens);
  void Preempt(Sequence* victim);

  const SchedulerLimits limits_;
  PagePool pool_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of arrival
  std::vector<Share> shares_;
  int32_t tokens_left_ = 0, picked_left_ = 0, entries_left_ = 0;  // of the step being planned
  int64_t preemptions_ = 0;
};

}  // namespace millpower::engine
