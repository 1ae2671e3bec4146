// The Scheduler with a model that computes what it plans: for its tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/scheduler.h"

namespace millpower::engine {

using Planned = std::vector<std::array<int64_t, 3>>;

struct Asked {
  int32_t prompt = 1;  // tokens; unlike those of all others, unless `same` says whose they are
  int32_t max_tokens = 1;
  std::string caller{};
  Priority priority = Priority::kStandard;
  bool prompt_logprobs = false;
  int64_t same = -1;
  int32_t adjustments = 0;
};

// A Scheduler, and a model that takes part in every step it plans.
class Steps {
 public:
  explicit Steps(const SchedulerLimits& limits) : scheduler(limits) {}

  Sequence* Add(const Asked& asked) {
    auto sequence = std::make_unique<Sequence>();
    Request& request = sequence->request;
    request.id = std::to_string(next_order_);
    request.caller = asked.caller;
    request.priority = asked.priority;
    request.sampling.max_tokens = asked.max_tokens;
    request.sampling.prompt_logprobs = asked.prompt_logprobs;
    for (int32_t token = 0; token < asked.adjustments; ++token)
      request.sampling.logit_bias.push_back({token, 1});
    sequence->adjustments = Adjustments(request, {}, 1 << 20);
    const int64_t kind = asked.same < 0 ? next_order_ : asked.same;
    sequence->tokens.assign(static_cast<size_t>(asked.prompt), static_cast<int32_t>(10 + kind));
    sequence->prompt_size = asked.prompt;
    sequence->order = next_order_++;
    Sequence* const added = sequence.get();
    scheduler.Add(std::move(sequence));
    return added;
  }

  // Plans a step and computes it. What was planned: order of arrival, tokens and picked rows.
  Planned Run() { return Compute(scheduler.Plan()); }

  Planned Compute(const std::vector<Share> shares) {
    Planned planned;
    int64_t rows = 0;
    for (const Share& share : shares) rows += share.count;
    const double row_ns = 1000 * (1 + step_cost_rows / static_cast<double>(rows));
    for (const Share& share : shares) {
      Sequence& sequence = *share.sequence;
      planned.push_back({sequence.order, share.count, share.picked});
      scheduler.Computed(share, std::llround(share.count * row_ns));
      if (share.picked > 1 || sequence.request.sampling.prompt_logprobs)
        sequence.prompt_logprobs_done = std::max(
            sequence.prompt_logprobs_done, std::min(sequence.computed, sequence.prompt_size - 1));
      EXPECT_EQ(share.completes, sequence.computed == sequence.size());
      if (!share.completes) continue;
      sequence.tokens.push_back(2);
      if (sequence.generated() >= sequence.request.sampling.max_tokens) {
        finished.push_back(sequence.order);
        scheduler.Remove(&sequence);
      }
    }
    return planned;
  }

  Scheduler scheduler;
  double step_cost_rows = 0;      // what a step costs besides its rows, of a microsecond each
  std::vector<int64_t> finished;  // in order

 private:
  int64_t next_order_ = 0;
};

inline SchedulerLimits Limits(int32_t sequences, int32_t rows, int32_t pages, int32_t picked = 99) {
  return {.max_sequences = sequences,
          .max_batch_tokens = rows,
          .max_picked = picked,
          .max_adjustments = 100,
          .max_page_entries = 9999,
          .pages = pages,
          .prefix_cache = true,
          .hash_seed = 1};
}

}  // namespace millpower::engine
