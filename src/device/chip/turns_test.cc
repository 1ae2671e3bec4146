#include "device/chip/turns.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/rng.h"

namespace millpower::device::chip {
namespace {

TEST(Turns, AloneIsFirst) {
  Turns turns(1, 2);
  EXPECT_EQ(turns.Take(0, 0, 5, 10), 5);
  EXPECT_EQ(turns.Take(0, 1, 15, 10), 15);
  EXPECT_EQ(turns.Take(0, 0, 15, 1), 15);
}

// Users who go from station to station, each by a timetable of its own.
std::vector<std::vector<int64_t>> Timetables(int users, int stations) {
  Turns turns(users, stations);
  std::vector<std::vector<int64_t>> starts(static_cast<size_t>(users));
  std::vector<std::jthread> threads;
  for (int user = 0; user < users; ++user)
    threads.emplace_back([&, user] {
      int64_t now = 0;
      for (uint64_t i = 0; i < 200; ++i) {
        const uint64_t bits = RandomBits(static_cast<uint64_t>(user), i);
        const auto takes = static_cast<int64_t>(1 + bits % 50);
        const int64_t start = turns.Take(user, static_cast<int>(i) % stations, now, takes);
        starts[static_cast<size_t>(user)].push_back(start);
        now = start + takes + static_cast<int64_t>(bits >> 32) % 20;
      }
      turns.Leave(user);
    });
  threads.clear();
  return starts;
}

TEST(Turns, IsTheSameEveryTime) {
  const auto first = Timetables(4, 3);
  for (int run = 0; run < 5; ++run) EXPECT_EQ(Timetables(4, 3), first);
}

// A station has one at a time, and whoever comes first.
TEST(Turns, TwoOfAKindFollowEachOther) {
  Turns turns(2, 1);
  int64_t late = 0;
  std::jthread other([&] {
    late = turns.Take(1, 0, 3, 10);
    turns.Leave(1);
  });
  EXPECT_EQ(turns.Take(0, 0, 0, 7), 0);
  EXPECT_EQ(turns.Take(0, 0, 9, 5), 17);  // the other came at 3, and was there from 7 on
  turns.Leave(0);
  other.join();
  EXPECT_EQ(late, 7);
}

}  // namespace
}  // namespace millpower::device::chip
