#include "device/cpu/shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace millpower::device::cpu {
namespace {

using testing::Each;

// How often each unit was handed out, to whoever it was.
std::vector<int> TakeAll(Shares& shares, int64_t units, std::vector<int> threads) {
  std::vector<int> times(static_cast<size_t>(units));
  for (size_t turn = 0; !threads.empty(); ++turn) {
    const auto at = threads.begin() + static_cast<std::ptrdiff_t>(turn % threads.size());
    const auto range = shares.Take(*at);
    if (!range) {
      threads.erase(at);
      continue;
    }
    EXPECT_LT(range->begin, range->end);
    for (int64_t i = range->begin; i < range->end; ++i) ++times.at(static_cast<size_t>(i));
  }
  return times;
}

TEST(Shares, HandOutEveryUnitOnce) {
  for (const int threads : {1, 2, 3, 7})
    for (const int64_t units : {1, 2, 5, 64, 1000, 4097})
      for (const int64_t grain : {1, 4, 16, 5000})
        for (const int ranges : {1, 4, Shares::kMostRanges}) {
          Shares shares(threads);
          std::vector<int> all, some;
          for (int i = 0; i < threads; ++i) all.push_back(i);
          some.push_back(threads - 1);  // the others do not come
          for (const std::vector<int>& who : {all, some}) {
            shares.Begin(units, grain, ranges);
            EXPECT_THAT(TakeAll(shares, units, who), Each(1))
                << threads << " threads, " << units << " units, grain " << grain;
          }
        }
}

TEST(Shares, AreTheSameInEveryLaunchAndTakenFromTheirFrontByTheirOwner) {
  Shares shares(2);
  for (int launch = 0; launch < 3; ++launch) {
    shares.Begin(80, 4, 4);
    int64_t at[2] = {0, 40}, sizes[2] = {80, 80};
    for (int range = 0; range < 3; ++range)  // the fourth rounds to nothing or little
      for (const int thread : {1, 0}) {
        const auto taken = shares.Take(thread);
        ASSERT_TRUE(taken);
        EXPECT_EQ(taken->begin, at[thread]);
        EXPECT_LE(taken->end - taken->begin, sizes[thread]);
        EXPECT_EQ(taken->end % 4, 0);
        sizes[thread] = taken->end - taken->begin;
        at[thread] = taken->end;
      }
  }
}

TEST(Shares, WhoIsThroughTakesTheSmallestRangesOfOthersFirst) {
  Shares shares(2);
  shares.Begin(80, 1, 4);
  int64_t begin = 40;
  for (int range = 0; range < 4; ++range) begin = shares.Take(1)->end;
  EXPECT_EQ(begin, 80);
  const auto stolen = shares.Take(1);
  ASSERT_TRUE(stolen);
  EXPECT_EQ(stolen->begin, 36);
  EXPECT_EQ(stolen->end, 40);
  EXPECT_EQ(shares.Take(0)->begin, 0);
}

TEST(Shares, ThreadsAtOnceShareNothing) {
  constexpr int kThreads = 4;
  constexpr int64_t kUnits = 10'000;
  Shares shares(kThreads);
  for (int launch = 0; launch < 20; ++launch) {
    shares.Begin(kUnits, 1, Shares::kMostRanges);
    std::vector<std::atomic<int>> times(kUnits);
    {
      std::vector<std::jthread> threads;
      for (int thread = 0; thread < kThreads; ++thread)
        threads.emplace_back([&, thread] {
          while (const auto range = shares.Take(thread))
            for (int64_t i = range->begin; i < range->end; ++i) ++times[static_cast<size_t>(i)];
        });
    }
    for (const auto& count : times) ASSERT_EQ(count, 1);
  }
}

}  // namespace
}  // namespace millpower::device::cpu
