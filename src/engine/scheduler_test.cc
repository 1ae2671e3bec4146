#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <set>

#include "base/rng.h"
#include "engine/test_steps.h"

namespace millpower::engine {
namespace {

TEST(Scheduler, CutsAPromptIntoChunksOfTheBudget) {
  Steps steps(Limits(4, 8, 10));
  steps.Add({.prompt = 20, .max_tokens = 3});
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 4, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}}));
  EXPECT_EQ(steps.Run(), Planned{});
  EXPECT_EQ(steps.scheduler.pages().used(), 0);
}

TEST(Scheduler, NextTokensGoBeforePrompts) {
  Steps steps(Limits(4, 8, 40));
  steps.Add({.prompt = 100, .max_tokens = 2});
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}}));
  steps.Add({.prompt = 1, .max_tokens = 50, .priority = Priority::kBatch});
  for (int i = 0; i < 13; ++i) EXPECT_EQ(steps.Run(), (Planned{{1, 1, 1}, {0, 7, 0}})) << i;
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
}

// Half of what is left for each while another comes after it, the rest to the first.
TEST(Scheduler, PromptsShareAStep) {
  Steps steps(Limits(4, 16, 40));
  steps.Add({.prompt = 100});
  steps.Add({.prompt = 3});
  steps.Add({.prompt = 100});
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}, {1, 3, 1}, {2, 5, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}, {2, 8, 0}}));
  steps.Add({.prompt = 4});
  EXPECT_EQ(steps.Run(), (Planned{{0, 8, 0}, {2, 4, 0}, {3, 4, 1}}));
}

TEST(Scheduler, ShortPromptsLeaveTheirRestToTheFirst) {
  Steps steps(Limits(4, 16, 40));
  steps.Add({.prompt = 100});
  steps.Add({.prompt = 2});
  EXPECT_EQ(steps.Run(), (Planned{{0, 14, 0}, {1, 2, 1}}));
}

TEST(Scheduler, HigherClassesPromptsGoFirst) {
  Steps steps(Limits(4, 10, 40));
  steps.Add({.prompt = 100, .priority = Priority::kBatch});
  EXPECT_EQ(steps.Run(), (Planned{{0, 10, 0}}));
  steps.Add({.prompt = 100, .priority = Priority::kStandard});
  steps.Add({.prompt = 18, .priority = Priority::kInteractive});
  EXPECT_EQ(steps.Run(), (Planned{{2, 8, 0}, {1, 1, 0}, {0, 1, 0}}));  // a row for everyone
  EXPECT_EQ(steps.Run(), (Planned{{2, 8, 0}, {1, 1, 0}, {0, 1, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{2, 2, 1}, {1, 7, 0}, {0, 1, 0}}));
}

TEST(Scheduler, RunsNoMoreSequencesThanTheLimit) {
  Steps steps(Limits(2, 99, 40));
  for (int i = 0; i < 3; ++i) steps.Add({.prompt = 5, .max_tokens = 2});
  EXPECT_EQ(steps.scheduler.open_places(), 2);
  EXPECT_EQ(steps.Run(), (Planned{{0, 5, 1}, {1, 5, 1}}));
  EXPECT_EQ(steps.scheduler.running(), 2);
  EXPECT_EQ(steps.scheduler.waiting(), 1);
  EXPECT_EQ(steps.scheduler.open_places(), 0);
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{2, 5, 1}}));
}

// --- fairness ---

TEST(Scheduler, AHundredRequestsOfOneCallerDoNotKeepOutAnothers) {
  Steps steps(Limits(4, 16, 400));
  for (int i = 0; i < 100; ++i) steps.Add({.prompt = 8, .max_tokens = 4, .caller = "many"});
  steps.Run();
  steps.Add({.prompt = 8, .max_tokens = 4, .caller = "one"});  // number 100
  while (steps.finished.empty() || steps.finished.back() != 100) {
    ASSERT_LT(steps.finished.size(), 9u);
    steps.Run();
  }
}

TEST(Scheduler, PlacesAreSharedBetweenCallers) {
  Steps steps(Limits(4, 64, 400));
  for (int i = 0; i < 20; ++i) steps.Add({.prompt = 4, .max_tokens = 50, .caller = "a"});
  for (int i = 0; i < 20; ++i) steps.Add({.prompt = 4, .max_tokens = 50, .caller = "b"});
  EXPECT_EQ(steps.Run(), (Planned{{0, 4, 1}, {1, 4, 1}, {20, 4, 1}, {21, 4, 1}}));
}

// With one place, callers take turns by the rows they were given: one with prompts four times as
// long gets a turn for every four of the other's.
TEST(Scheduler, TurnsGoByRows) {
  Steps steps(Limits(1, 64, 400));
  for (int i = 0; i < 8; ++i) steps.Add({.prompt = 40, .caller = "long"});
  for (int i = 0; i < 40; ++i) steps.Add({.prompt = 10, .caller = "short"});
  int64_t rows[2] = {0, 0};
  for (int i = 0; i < 40; ++i)
    for (const auto& [order, count, picked] : steps.Run()) rows[order < 8 ? 0 : 1] += count;
  EXPECT_LE(std::abs(rows[0] - rows[1]), 40) << rows[0] << " and " << rows[1];
}

TEST(Scheduler, ANewCallerStartsWhereTheOthersAre) {
  Steps steps(Limits(1, 64, 400));
  for (int i = 0; i < 60; ++i) steps.Add({.prompt = 10, .caller = "old"});
  for (int i = 0; i < 30; ++i) steps.Run();
  for (int i = 0; i < 60; ++i) steps.Add({.prompt = 10, .caller = "new"});
  int64_t turns[2] = {0, 0};
  for (int i = 0; i < 20; ++i) ++turns[steps.Run()[0][0] < 60 ? 0 : 1];
  EXPECT_NEAR(static_cast<double>(turns[0]), 10, 1);  // no arrears to be made up for
}

TEST(Scheduler, PromptsOfTwoCallersMoveAtTheSamePace) {
  Steps steps(Limits(8, 16, 400));
  for (int i = 0; i < 6; ++i) steps.Add({.prompt = 100, .caller = "six"});
  Sequence* const one = steps.Add({.prompt = 100, .caller = "one"});
  int64_t of_six = 0;
  for (int i = 0; i < 10; ++i)
    for (const auto& [order, count, picked] : steps.Run()) of_six += order < 6 ? count : 0;
  EXPECT_GE(one->computed, 50) << of_six;  // of 160
}

TEST(Scheduler, HigherClassesGetTheNextPlace) {
  Steps steps(Limits(1, 64, 400));
  steps.Add({.prompt = 4, .max_tokens = 3});
  steps.Run();
  steps.Add({.priority = Priority::kBatch});
  steps.Add({.priority = Priority::kStandard});
  steps.Add({.priority = Priority::kInteractive});
  while (!steps.Run().empty()) {
  }
  EXPECT_EQ(steps.finished, (std::vector<int64_t>{0, 3, 2, 1}));
}

TEST(Scheduler, BatchWorkGivesUpItsPlaces) {
  Steps steps(Limits(2, 64, 400));
  Sequence* const first = steps.Add({.prompt = 40, .max_tokens = 9, .priority = Priority::kBatch});
  steps.Add({.prompt = 40, .max_tokens = 9, .priority = Priority::kBatch});
  steps.Run();
  steps.Run();
  steps.Add({.prompt = 4, .max_tokens = 2});
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {2, 4, 1}}));  // the later of the two gave way
  EXPECT_EQ(steps.scheduler.preemptions(), 1);
  steps.Run();
  // It comes back, and finds most of what it had computed.
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 9, 1}}));
  EXPECT_FALSE(first->pages.empty());
  steps.Add({.prompt = 4, .priority = Priority::kBatch});  // waits: it is no better
  EXPECT_EQ(steps.Run().size(), 2u);
  EXPECT_EQ(steps.scheduler.preemptions(), 1);
}

// --- memory ---

TEST(Scheduler, TheLastComeGivesWayWhenPagesRunOut) {
  Steps steps(Limits(4, 99, 7));
  steps.Add({.prompt = 31, .max_tokens = 40});
  Sequence* const second = steps.Add({.prompt = 31, .max_tokens = 40});
  EXPECT_EQ(steps.Run(), (Planned{{0, 31, 1}, {1, 31, 1}}));
  for (int i = 0; i < 17; ++i) EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}})) << i;
  // 49 tokens each: four pages and three are not there.
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}}));
  EXPECT_EQ(steps.scheduler.preemptions(), 1);
  EXPECT_EQ(second->computed, 0);
  EXPECT_TRUE(second->pages.empty());
  EXPECT_EQ(second->size(), 49);  // keeps its tokens
  EXPECT_EQ(steps.scheduler.waiting(), 1);
  EXPECT_EQ(steps.scheduler.open_places(), 0);  // for want of pages
  while (steps.scheduler.Find("0") != nullptr) EXPECT_EQ(steps.Run().size(), 1u);
  EXPECT_EQ(steps.Run(), (Planned{{1, 17, 1}}));  // its first two pages are still there
  while (!steps.Run().empty()) {
  }
  EXPECT_EQ(steps.scheduler.pages().used(), 0);
  EXPECT_EQ(steps.scheduler.preemptions(), 1);
}

TEST(Scheduler, TheGreediestCallerGivesWay) {
  Steps steps(Limits(4, 400, 12));
  steps.Add({.prompt = 47, .max_tokens = 40, .caller = "greedy"});
  steps.Add({.prompt = 31, .max_tokens = 40, .caller = "greedy"});
  steps.Add({.prompt = 31, .max_tokens = 40, .caller = "modest"});  // the last come
  while (steps.scheduler.preemptions() == 0) ASSERT_FALSE(steps.Run().empty());
  EXPECT_TRUE(steps.scheduler.Find("1")->pages.empty());
}

TEST(Scheduler, BatchGivesWayBeforeTheGreediest) {
  Steps steps(Limits(4, 400, 12));
  steps.Add({.prompt = 31, .max_tokens = 40, .caller = "modest", .priority = Priority::kBatch});
  steps.Add({.prompt = 47, .max_tokens = 40, .caller = "greedy"});
  steps.Add({.prompt = 31, .max_tokens = 40, .caller = "greedy"});
  while (steps.scheduler.preemptions() == 0) ASSERT_FALSE(steps.Run().empty());
  EXPECT_TRUE(steps.scheduler.Find("0")->pages.empty());
}

TEST(Scheduler, ANewcomerLeavesRoomToGrow) {
  Steps steps(Limits(4, 99, 6));
  steps.Add({.prompt = 40, .max_tokens = 20});  // three pages
  steps.Add({.prompt = 20, .max_tokens = 20});  // two, and one for each to grow into: seven
  EXPECT_EQ(steps.Run(), (Planned{{0, 40, 1}}));
  EXPECT_EQ(steps.scheduler.waiting(), 1);
  while (!steps.Run().empty()) {
  }
  EXPECT_EQ(steps.finished, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(steps.scheduler.preemptions(), 0);
}

TEST(Scheduler, SmallOnesDoNotKeepOutALargeOne) {
  Steps steps(Limits(8, 99, 10));
  for (int i = 0; i < 4; ++i) steps.Add({.prompt = 10, .max_tokens = 4});
  steps.Run();
  steps.Add({.prompt = 100, .max_tokens = 2});  // number 4
  for (int i = 0; i < 40; ++i) steps.Add({.prompt = 10, .max_tokens = 4});
  while (steps.finished.empty() || steps.finished.back() != 4) {
    ASSERT_LE(steps.finished.size(), 4u);
    steps.Run();
  }
}

TEST(Scheduler, PagesListedAreMemoryToo) {
  SchedulerLimits limits = Limits(3, 99, 40);
  limits.max_page_entries = 6;
  Steps steps(limits);
  steps.Add({.prompt = 32, .max_tokens = 2});
  steps.Add({.prompt = 17, .max_tokens = 2});
  EXPECT_EQ(steps.Run(), (Planned{{0, 32, 1}, {1, 17, 1}}));
  steps.Add({.prompt = 17, .max_tokens = 2});
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{2, 17, 1}}));
}

// --- rows with logits, adjustments, grants ---

TEST(Scheduler, RowsWithLogitsStayWithinTheirBudget) {
  Steps steps(Limits(3, 99, 40, /*picked=*/4));
  steps.Add({.prompt = 10, .max_tokens = 3, .prompt_logprobs = true});
  EXPECT_EQ(steps.Run(), (Planned{{0, 4, 4}}));
  steps.Add({.prompt = 7, .max_tokens = 9});
  EXPECT_EQ(steps.Run(), (Planned{{0, 3, 3}, {1, 7, 1}}));  // one is left for the other's last row
  EXPECT_EQ(steps.Run(), (Planned{{1, 1, 1}, {0, 3, 3}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
}

TEST(Scheduler, AdjustmentsStayWithinTheirBudgetAndTakeTurns) {
  Steps steps(Limits(3, 99, 40));  // 100 adjustments
  for (int i = 0; i < 3; ++i) steps.Add({.prompt = 5, .max_tokens = 6, .adjustments = 40});
  EXPECT_EQ(steps.Run(), (Planned{{0, 5, 1}, {1, 5, 1}, {2, 4, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {1, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{2, 1, 1}, {0, 1, 1}}));
  // Those left out last time come first.
  EXPECT_EQ(steps.Run(), (Planned{{1, 1, 1}, {0, 1, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{2, 1, 1}, {0, 1, 1}}));
}

TEST(Scheduler, OneThatWaitsForItsLedgerKeepsItsPlaceAndStopsNobody) {
  Steps steps(Limits(2, 99, 40));
  Sequence* const first = steps.Add({.prompt = 5, .max_tokens = 6});
  first->granted = 2;
  steps.Add({.prompt = 5, .max_tokens = 9});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(steps.Run().size(), 2u);
  EXPECT_EQ(steps.Run(), (Planned{{1, 1, 1}}));
  EXPECT_EQ(steps.scheduler.running(), 2);
  first->granted = 3;
  EXPECT_EQ(steps.Run().size(), 2u);
}

// --- prefixes ---

TEST(Scheduler, PromptsThatComeTogetherAreComputedOnce) {
  Steps steps(Limits(8, 16, 400));
  for (int i = 0; i < 3; ++i) steps.Add({.prompt = 40, .max_tokens = 5, .same = 0});
  steps.Add({.prompt = 4, .max_tokens = 5});
  EXPECT_EQ(steps.Run(), (Planned{{0, 12, 0}, {3, 4, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{3, 1, 1}, {0, 15, 0}}));
  EXPECT_EQ(steps.scheduler.waiting(), 2);
  EXPECT_GT(steps.scheduler.open_places(), 0);
  EXPECT_EQ(steps.Run(), (Planned{{3, 1, 1}, {0, 13, 1}}));
  // 32 of 40 tokens are found.
  EXPECT_EQ(steps.Run(), (Planned{{0, 1, 1}, {3, 1, 1}, {1, 7, 0}, {2, 7, 0}}));
  EXPECT_EQ(steps.scheduler.Find("1")->usage.cached_tokens, 32);
}

TEST(Scheduler, NobodyWaitsForAnothersPrompt) {
  Steps steps(Limits(8, 64, 400));
  steps.Add({.prompt = 40, .caller = "a", .same = 0});
  steps.Add({.prompt = 40, .caller = "b", .same = 0});
  EXPECT_EQ(steps.Run().size(), 2u);
}

TEST(Scheduler, NobodyWaitsForALowerClass) {
  Steps steps(Limits(8, 16, 400));
  steps.Add({.prompt = 100, .priority = Priority::kBatch, .same = 0});
  steps.Run();
  steps.Add({.prompt = 100, .same = 0});
  EXPECT_EQ(steps.Run(), (Planned{{1, 15, 0}, {0, 1, 0}}));
}

TEST(Scheduler, TheLastTokenAndThoseWithPromptLogprobsAreComputed) {
  Steps steps(Limits(8, 64, 400));
  steps.Add({.prompt = 48, .same = 0});
  steps.Run();
  EXPECT_EQ(steps.scheduler.pages().cached(), 3);
  steps.Add({.prompt = 48, .same = 0});
  EXPECT_EQ(steps.Run(), (Planned{{1, 16, 1}}));  // all but its last page is found
  steps.Add({.prompt = 48, .prompt_logprobs = true, .same = 0});
  EXPECT_EQ(steps.Run(), (Planned{{2, 48, 48}}));
}

TEST(Scheduler, NobodyWaitsForOneThatWaitsForItsLedger) {
  Steps steps(Limits(8, 16, 400));
  steps.Add({.prompt = 40, .same = 0})->granted = 0;
  steps.Add({.prompt = 40, .same = 0});
  EXPECT_EQ(steps.Run(), (Planned{{1, 16, 0}}));
}

// One that comes back after half of its prompt's logprobs picks only the rest.
TEST(Scheduler, PromptLogprobsAreCollectedOnce) {
  SchedulerLimits limits = Limits(1, 24, 20);
  limits.prefix_cache = false;
  Steps steps(limits);
  steps.Add({.prompt = 40, .max_tokens = 2, .priority = Priority::kBatch, .prompt_logprobs = true});
  EXPECT_EQ(steps.Run(), (Planned{{0, 24, 24}}));
  steps.Add({.prompt = 4});
  EXPECT_EQ(steps.Run(), (Planned{{1, 4, 1}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 24, 0}}));
  EXPECT_EQ(steps.Run(), (Planned{{0, 16, 16}}));
}

// Those who follow a prompt that is cancelled do not wait for ever.
TEST(Scheduler, FollowersGoOnWithoutTheirLeader) {
  Steps steps(Limits(8, 16, 400));
  Sequence* const leader = steps.Add({.prompt = 60, .same = 0});
  steps.Add({.prompt = 60, .same = 0});
  steps.Run();
  steps.Run();
  EXPECT_EQ(steps.scheduler.waiting(), 1);
  steps.scheduler.Remove(leader);
  EXPECT_EQ(steps.Run(), (Planned{{1, 16, 0}}));  // after the 32 that were computed
  while (!steps.Run().empty()) {
  }
  EXPECT_EQ(steps.finished, (std::vector<int64_t>{1}));
}

TEST(Scheduler, RemovesFromAnyPlace) {
  Steps steps(Limits(1, 9, 8));
  Sequence* const first = steps.Add({.prompt = 20, .max_tokens = 9});
  Sequence* const second = steps.Add({.prompt = 20, .max_tokens = 9});
  steps.Run();
  EXPECT_GT(steps.scheduler.pages().used(), 0);
  EXPECT_EQ(steps.scheduler.Remove(second)->request.id, "1");
  EXPECT_EQ(steps.scheduler.Remove(first)->request.id, "0");
  EXPECT_EQ(steps.scheduler.pages().used(), 0);
  EXPECT_TRUE(steps.scheduler.Plan().empty());
}

// Whatever comes and goes, what is planned keeps to the limits, nobody writes into a page that
// another holds, and everyone moves on and gets done.
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
                                 .max_batch_tokens = pick(sequences, 40),
                                 .max_picked = sequences + pick(0, 4),
                                 .max_adjustments = pick(20, 60),
                                 .max_page_entries = PagesFor(kContext) * pick(1, 6),
                                 .pages = PagesFor(kContext) + pick(0, 12),
                                 .prefix_cache = rng.Below(3) != 0,
                                 .hash_seed = seed};
    Steps steps(limits);
    int to_come = pick(1, 12);
    if (rng.Below(2) == 0) steps.scheduler.SetShares({{"a", rng.Uniform(0.05f, 1)}});
    for (int step = 0;; ++step) {
      ASSERT_LT(step, 20000) << "no end";
      if (to_come > 0 && (steps.scheduler.Live().empty() || rng.Below(4) == 0)) {
        const int32_t prompt = pick(1, kContext - 1);
        steps.Add({.prompt = prompt,
                   .max_tokens = pick(1, kContext - prompt),
                   .caller = rng.Below(2) == 0 ? "a" : "b",
                   .priority = static_cast<Priority>(pick(0, 2)),
                   .prompt_logprobs = rng.Below(4) == 0,
                   .same = rng.Below(2) == 0 ? pick(0, 2) : -1,
                   .adjustments = rng.Below(3) == 0 ? pick(0, 20) : 0});
        --to_come;
      }
      if (rng.Below(20) == 0 && !steps.scheduler.Live().empty()) {
        const auto live = steps.scheduler.Live();
        steps.scheduler.Remove(live[rng.Below(live.size())]);
      }
      const std::vector<Share> shares = steps.scheduler.Plan();
      int32_t tokens = 0, picked = 0, adjustments = 0;
      for (const Share& share : shares) {
        ASSERT_GE(share.count, 1);
        ASSERT_LE(share.count, share.sequence->pending());
        ASSERT_LE(share.picked, share.count);
        ASSERT_GE(share.picked, share.completes ? 1 : 0);
        tokens += share.count;
        picked += share.picked;
        if (share.completes) adjustments += share.sequence->adjustments.count();
      }
      ASSERT_LE(tokens, limits.max_batch_tokens);
      ASSERT_LE(picked, limits.max_picked);
      ASSERT_LE(adjustments, limits.max_adjustments);
      ASSERT_LE(static_cast<int32_t>(shares.size()), limits.max_sequences);
      std::set<int32_t> held, written;
      std::set<int32_t> read_only;
      size_t entries = 0;
      for (const Sequence* sequence : steps.scheduler.Live()) {
        const auto& pages = sequence->pages;
        ASSERT_TRUE(pages.empty() || std::ssize(pages) == PagesFor(sequence->size()));
        entries += pages.size();
        held.insert(pages.begin(), pages.end());
        const auto first_written =
            pages.begin() + std::min<int64_t>(std::ssize(pages), sequence->computed / 16);
        read_only.insert(pages.begin(), first_written);
        for (auto page = first_written; page != pages.end(); ++page)
          ASSERT_TRUE(written.insert(*page).second) << "two sequences write page " << *page;
      }
      for (const int32_t page : written) ASSERT_FALSE(read_only.contains(page)) << page;
      ASSERT_LE(static_cast<int32_t>(entries), limits.max_page_entries);
      ASSERT_EQ(static_cast<int32_t>(held.size()), steps.scheduler.pages().used());
      const auto live = steps.scheduler.Live();
      if (live.empty() && to_come == 0) break;
      ASSERT_TRUE(live.empty() || !shares.empty()) << "stands still";
      steps.Compute(shares);
    }
    ASSERT_EQ(steps.scheduler.pages().used(), 0);
    ASSERT_EQ(steps.scheduler.pages().available(), limits.pages);
  }
}

}  // namespace
}  // namespace millpower::engine
