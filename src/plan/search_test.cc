#include "plan/search.h"

#include <gtest/gtest.h>

namespace millpower::plan {
namespace {

// A latency that falls with replicas and with the size of groups.
Outcome OutcomeWith(double p99_s, double usd = 1) {
  Outcome outcome;
  outcome.latencies["p99"] = p99_s;
  outcome.usd_per_million = usd;
  return outcome;
}

const std::vector<Objective> kWithinOne = {{"p99_s=1", "p99", 1}};

TEST(Search, FindsTheFewestReplicas) {
  const auto found = FindFewestChips(
      {{1}, 64, 64}, kWithinOne,
      [](const Layout& layout) -> Result<Outcome> { return OutcomeWith(11.0 / layout.replicas); });
  ASSERT_TRUE(found);
  EXPECT_EQ(found->best, (Layout{11, 1}));
  std::vector<int> tried;
  for (const Trial& trial : found->tried) tried.push_back(trial.layout.replicas);
  EXPECT_EQ(tried, (std::vector<int>{1, 2, 4, 8, 16, 12, 10, 11}));
}

TEST(Search, TakesTheFewestChipsOfAllGroups) {
  // Alone 9 are needed; pairs do better, groups of four worse.
  const auto found =
      FindFewestChips({{1, 2, 4}, 64, 64}, kWithinOne, [](const Layout& layout) -> Result<Outcome> {
        const double speed[] = {0, 1, 3, 0, 3.5};
        return OutcomeWith(9 / speed[layout.chips_per_replica] / layout.replicas);
      });
  ASSERT_TRUE(found);
  EXPECT_EQ(found->best, (Layout{3, 2}));
  for (const Trial& trial : found->tried) EXPECT_LE(trial.layout.chips(), 16);
}

TEST(Search, OfEquallyManyTakesTheCheapest) {
  const auto found =
      FindFewestChips({{1, 2, 4}, 4, 4}, kWithinOne, [](const Layout& layout) -> Result<Outcome> {
        const bool all = layout.chips() == 4;
        return OutcomeWith(all ? 1 : 2, layout.replicas == 2 ? 0.5 : 1);
      });
  ASSERT_TRUE(found);
  EXPECT_EQ(found->best, (Layout{2, 2}));
}

TEST(Search, GroupsTheModelDoesNotFitAreTriedOnce) {
  const auto found =
      FindFewestChips({{1, 2}, 8, 8}, kWithinOne, [](const Layout& layout) -> Result<Outcome> {
        if (layout.chips_per_replica == 1) return Fail(ErrorCode::kNoCapacity, "does not fit");
        return OutcomeWith(0.5);
      });
  ASSERT_TRUE(found);
  ASSERT_EQ(found->tried.size(), 2u);
  EXPECT_EQ(found->tried[0].error, "does not fit");
  EXPECT_FALSE(found->tried[0].meets());
  EXPECT_EQ(found->best, (Layout{1, 2}));
}

TEST(Search, NoneMayDo) {
  const auto found = FindFewestChips(
      {{1, 2}, 6, 5}, kWithinOne, [](const Layout&) -> Result<Outcome> { return OutcomeWith(2); });
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->best);
  std::vector<Layout> tried;
  for (const Trial& trial : found->tried) {
    tried.push_back(trial.layout);
    EXPECT_EQ(trial.missed, std::vector<std::string>{"p99_s=1: 2 s"});
  }
  // No more replicas than 5, no more chips than 6.
  EXPECT_EQ(tried, (std::vector<Layout>{{1, 1}, {2, 1}, {4, 1}, {5, 1}, {1, 2}, {2, 2}, {3, 2}}));
}

TEST(Search, OtherErrorsEndIt) {
  const auto found = FindFewestChips({{1}, 6, 5}, kWithinOne, [](const Layout&) -> Result<Outcome> {
    return Fail(ErrorCode::kInvalidArgument, "wrong");
  });
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().message, "wrong");
}

}  // namespace
}  // namespace millpower::plan
