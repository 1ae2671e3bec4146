#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <set>

#include "base/rng.h"
#include "isa/layout.h"

namespace millpower::engine {
namespace {

// A Scheduler, and a model that takes part in every step it plans.
class Steps {
 public:
  Steps(const SchedulerLimits& limits, int32_t pages) : scheduler(limits, pages) {}

  Sequence* Add(int32_t prompt_size, int32_t max_tokens, bool prompt_logprobs = false) {
    auto sequence = std::make_unique<Sequence>();
    sequence->request.id = std::to_string(next_order_);
    sequence->request.sampling.max_tokens = max_tokens;
    sequence->request.sampling.prompt_logprobs = prompt_logprobs;
    sequence->tokens.assign(static_cast<size_t>(prompt_size), 1);
    sequence->prompt_size = prompt_size;
    sequence->order = next_order_++;
    Sequence* const added = sequence.get();
    scheduler.Add(std::move(sequence));
    return added;
  }

  // Plans a step and computes it. What was planned, by order of arrival: tokens and picked rows.
  std::vector<std::array<int64_t, 3>> Run() { return Compute(scheduler.Plan()); }

  std::vector<std::array<int64_t, 3>> Compute(const std::vector<Share> shares) {
    std::vector<std::array<int64_t, 3>> planned;
    for (const Share& share : shares) {
      Sequence& sequence = *share.sequence;
      planned.push_back({sequence.order, share.count, share.picked});
      sequence.computed += share.count;
      if (share.picked > 1 || sequence.request.sampling.prompt_logprobs)
        sequence.prompt_logprobs_done = std::max(
            sequence.prompt_logprobs_done, std::min(sequence.computed, sequence.prompt_size - 1));
      EXPECT_EQ(share.completes, sequence.computed == sequence.size());
      if (!share.completes) continue;
      sequence.tokens.push_back(2);
      if (sequence.generated() >= sequence.request.sampling.max_tokens) scheduler.Remove(&sequence);
    }
    return planned;
  }

  Scheduler scheduler;

 private:
  int64_t next_order_ = 0;
};

using Planned = std::vector<std::array<int64_t, 3>>;

TEST(Scheduler, CutsAPromptIntoChunksOfTheBudget) {
  Steps steps({.max_sequences = 4, .max_batch_tokens = 8, .max_picked = 4, .max_page_entries = 99},
              10);
  steps.Add(20, 3);
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 4, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}}));
  EXPECT_EQ(steps.Run(), Planned{});
  EXPECT_EQ(steps.scheduler.pool().free_count(), 10);
}

TEST(Scheduler, NextTokensGoBeforePrompts) {
  Steps steps({.max_sequences = 4, .max_batch_tokens = 8, .max_picked = 4, .max_page_entries = 99},
              40);
  steps.Add(100, 2);
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}}));
  steps.Add(1, 50);
  steps.Add(3, 50);
  // A prompt of one token is like a next token; the long prompt came before the other.
  EXPECT_EQ(steps.Run(), (Planned{{1, 1, 1}, {0, 7, 0}}));
  for (int i = 0; i < 12; ++i) EXPECT_EQ(steps.Run(), (Planned{{1, 1, 1}, {0, 7, 0}})) << i;
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}, {2, 3, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}, {2, 1, 1}}));
}

TEST(Scheduler, PromptsShareTheBudgetInOrderOfArrival) {
  Steps steps({.max_sequences = 4, .max_batch_tokens = 10, .max_picked = 4, .max_page_entries = 99},
              40);
  for (int i = 0; i < 3; ++i) steps.Add(6, 9);
  EXPECT_EQ(steps.Run(), (Planned{{0, 6, 1}, {1, 4, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 2, 1}, {2, 6, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}, {2, 1, 1}}));
}

TEST(Scheduler, RunsNoMoreSequencesThanTheLimit) {
  Steps steps({.max_sequences = 2, .max_batch_tokens = 99, .max_picked = 2, .max_page_entries = 99},
              40);
  for (int i = 0; i < 3; ++i) steps.Add(5, 2);
  EXPECT_EQ(steps.Run(), (Planned{{0, 5, 1}, {1, 5, 1}}));
  EXPECT_EQ(steps.scheduler.running(), 2);
  EXPECT_EQ(steps.scheduler.waiting(), 1);
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{2, 5, 1}}));
}

TEST(Scheduler, TheLastComeGivesWayWhenPagesRunOut) {
  Steps steps({.max_sequences = 4, .max_batch_tokens = 99, .max_picked = 4, .max_page_entries = 99},
              4);
  steps.Add(31, 20);
  Sequence* const second = steps.Add(31, 5);
  EXPECT_EQ(steps.Run(), (Planned{{0, 31, 1}, {1, 31, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));  // 32 positions: two pages each
  EXPECT_EQ(steps.scheduler.pool().free_count(), 0);
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}}));
  EXPECT_EQ(steps.scheduler.preemptions(), 1);
  EXPECT_EQ(second->computed, 0);
  EXPECT_TRUE(second->pages.empty());
  EXPECT_EQ(second->size(), 33);  // keeps its tokens
  EXPECT_EQ(steps.scheduler.waiting(), 1);
  while (steps.scheduler.Find("0") != nullptr) EXPECT_EQ(steps.Run().size(), 1u);
  EXPECT_EQ(steps.Run(), (Planned{{1, 33, 1}}));  // all of it again
  while (!steps.Run().empty()) {
  }
  EXPECT_EQ(steps.scheduler.pool().free_count(), 4);
  EXPECT_EQ(steps.scheduler.preemptions(), 1);
}

TEST(Scheduler, OnePreemptedComesBackBeforeThoseThatNeverRan) {
  Steps steps({.max_sequences = 2, .max_batch_tokens = 99, .max_picked = 4, .max_page_entries = 99},
              4);
  steps.Add(32, 20);
  Sequence* const second = steps.Add(32, 20);
  Sequence* const third = steps.Add(1, 1);
  steps.Run();
  steps.Run();
  ASSERT_EQ(steps.scheduler.preemptions(), 1);
  EXPECT_EQ(steps.scheduler.Live()[1], second);
  EXPECT_EQ(steps.scheduler.Live()[2], third);
}

TEST(Scheduler, RowsWithLogitsStayWithinTheirBudget) {
  Steps steps({.max_sequences = 3, .max_batch_tokens = 99, .max_picked = 4, .max_page_entries = 99},
              40);
  steps.Add(10, 3, true);
  EXPECT_EQ(steps.Run(), (Planned{{0, 4, 4}}));
  steps.Add(7, 9);
  EXPECT_EQ(steps.Run(), (Planned{{0, 4, 4}}));  // nothing is left for the other's last row
  EXPECT_EQ(steps.Run(), (Planned{{0, 2, 2}, {1, 7, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
}

TEST(Scheduler, PagesListedStayWithinTheirBudget) {
  Steps steps({.max_sequences = 3, .max_batch_tokens = 99, .max_picked = 4, .max_page_entries = 3},
              40);
  steps.Add(32, 2);
  steps.Add(17, 2);
  EXPECT_EQ(steps.Run(), (Planned{{0, 32, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{1, 17, 1}}));
}

TEST(Scheduler, RemovesFromAnyPlace) {
  Steps steps({.max_sequences = 1, .max_batch_tokens = 9, .max_picked = 1, .max_page_entries = 9},
              8);
  Sequence* const first = steps.Add(20, 9);
  Sequence* const second = steps.Add(20, 9);
  steps.Run();
  EXPECT_LT(steps.scheduler.pool().free_count(), 8);
  EXPECT_EQ(steps.scheduler.Remove(second)->request.id, "1");
  EXPECT_EQ(steps.scheduler.Remove(first)->request.id, "0");
  EXPECT_EQ(steps.scheduler.pool().free_count(), 8);
  EXPECT_TRUE(steps.scheduler.Plan().empty());
}

// Whatever comes and goes, what is planned keeps to the limits, pages have one owner each, and
// everyone gets done.
TEST(Scheduler, KeepsItsPromisesOnRandomTraffic) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    auto pick = [&](int64_t low, int64_t high) {
      return static_cast<int32_t>(
          low + static_cast<int64_t>(rng.Below(static_cast<uint64_t>(high - low + 1))));
    };
    constexpr int32_t kContext = 80;
    const int32_t sequences = pick(1, 6);
    const SchedulerLimits limits{.max_sequences = sequences,
                                 .max_batch_tokens = pick(1, 40),
                                 .max_picked = sequences + pick(0, 4),
                                 .max_page_entries = PagesOf(kContext) * pick(1, 6)};
    const int32_t pages = PagesOf(kContext) + pick(0, 12);
    Steps steps(limits, pages);
    int to_come = pick(1, 12);
    int empty_steps = 0;
    for (int step = 0;; ++step) {
      ASSERT_LT(step, 20000) << "no end";
      const size_t live_before = steps.scheduler.Live().size();
      if (to_come > 0 && (live_before == 0 || rng.Below(4) == 0)) {
        const int32_t prompt = pick(1, kContext - 1);
        steps.Add(prompt, pick(1, kContext - prompt), rng.Below(4) == 0);
        --to_come;
      }
      if (rng.Below(20) == 0 && !steps.scheduler.Live().empty()) {
        const auto live = steps.scheduler.Live();
        steps.scheduler.Remove(live[rng.Below(live.size())]);
      }
      const std::vector<Share> shares = steps.scheduler.Plan();
      int32_t tokens = 0, picked = 0, entries = 0;
      for (const Share& share : shares) {
        ASSERT_GE(share.count, 1);
        ASSERT_LE(share.count, share.sequence->pending());
        ASSERT_LE(share.picked, share.count);
        ASSERT_GE(share.picked, share.completes ? 1 : 0);
        tokens += share.count;
        picked += share.picked;
        entries += static_cast<int32_t>(share.sequence->pages.size());
        ASSERT_EQ(static_cast<int32_t>(share.sequence->pages.size()),
                  PagesOf(share.sequence->computed + share.count));
      }
      ASSERT_LE(tokens, limits.max_batch_tokens);
      ASSERT_LE(picked, limits.max_picked);
      ASSERT_LE(entries, limits.max_page_entries);
      ASSERT_LE(static_cast<int32_t>(shares.size()), limits.max_sequences);
      std::set<int32_t> held;
      size_t held_count = 0;
      int64_t last_order = -1;
      for (const Sequence* sequence : steps.scheduler.Live()) {
        held.insert(sequence->pages.begin(), sequence->pages.end());
        held_count += sequence->pages.size();
        ASSERT_LT(last_order, sequence->order) << "out of the order of arrival";
        last_order = sequence->order;
      }
      ASSERT_EQ(held.size(), held_count) << "a page has two owners";
      ASSERT_EQ(static_cast<int32_t>(held_count) + steps.scheduler.pool().free_count(), pages);
      if (steps.scheduler.Live().empty() && to_come == 0) break;
      // A step may be planned away by preemption, but never two in a row.
      empty_steps = shares.empty() && !steps.scheduler.Live().empty() ? empty_steps + 1 : 0;
      ASSERT_LT(empty_steps, 2) << "stands still";
      steps.Compute(shares);
    }
    ASSERT_EQ(steps.scheduler.pool().free_count(), pages);
  }
}

}  // namespace
}  // namespace millpower::engine
