#include "base/clock.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace millpower {
namespace {

TEST(VirtualClock, AlarmsRunAtTheirTimeInOrder) {
  VirtualClock clock;
  std::vector<std::pair<int, int64_t>> seen;
  const auto alarm = [&](int name) {
    return [&seen, &clock, name] { seen.emplace_back(name, clock.NowNs()); };
  };
  clock.At(30, alarm(3));
  clock.At(10, alarm(1));
  clock.At(10, [&] {
    seen.emplace_back(2, clock.NowNs());
    clock.At(20, alarm(4));
    clock.At(5, alarm(5));  // late: at once
  });
  clock.AdvanceTo(25);
  EXPECT_EQ(seen, (std::vector<std::pair<int, int64_t>>{{1, 10}, {2, 10}, {5, 10}, {4, 20}}));
  EXPECT_EQ(clock.NowNs(), 25);
  clock.Advance(10);
  EXPECT_EQ(seen.back(), (std::pair<int, int64_t>{3, 30}));
  clock.AdvanceTo(1);
  EXPECT_EQ(clock.NowNs(), 35);
}

// Who waits brings the moment about, running what is due before; what an alarm does may wake it.
TEST(VirtualClock, WaitingPassesTime) {
  VirtualClock clock;
  std::mutex mutex;
  std::condition_variable wake;
  bool woken = false;
  clock.At(7, [&] {
    const std::lock_guard lock(mutex);  // not held by who waits
    woken = true;
  });
  std::unique_lock lock(mutex);
  const auto is_woken = [&] { return woken; };
  clock.WaitUntil(lock, wake, 5, is_woken);
  EXPECT_EQ(clock.NowNs(), 5);
  EXPECT_FALSE(woken);
  clock.WaitUntil(lock, wake, 100, is_woken);
  EXPECT_EQ(clock.NowNs(), 7);
  EXPECT_TRUE(woken);
  clock.WaitUntil(lock, wake, 100, is_woken);
  EXPECT_EQ(clock.NowNs(), 7) << "it was woken already";
}

TEST(VirtualClock, WithNothingDueItWaitsForOthers) {
  VirtualClock clock;
  std::mutex mutex;
  std::condition_variable wake;
  bool woken = false;
  std::jthread other([&] {
    const std::lock_guard lock(mutex);
    woken = true;
    wake.notify_one();
  });
  std::unique_lock lock(mutex);
  clock.WaitUntil(lock, wake, kNeverNs, [&] { return woken; });
  EXPECT_TRUE(woken);
  EXPECT_EQ(clock.NowNs(), 0);
}

TEST(SystemClock, WaitsNoLongerThanAsked) {
  const SystemClock clock;
  std::mutex mutex;
  std::condition_variable wake;
  std::unique_lock lock(mutex);
  const int64_t begin_ns = clock.NowNs();
  clock.WaitUntil(lock, wake, begin_ns + 2'000'000, [] { return false; });
  EXPECT_GE(clock.NowNs() - begin_ns, 2'000'000);
  clock.WaitUntil(lock, wake, begin_ns, [] { return false; });  // over already
}

TEST(SystemClock, WaitsUntilItIsWoken) {
  const SystemClock clock;
  std::mutex mutex;
  std::condition_variable wake;
  bool woken = false;
  const auto is_woken = [&] { return woken; };
  std::unique_lock lock(mutex);
  // Soon, and long after it has gone to sleep.
  for (const int delay_us : {10, 5000}) {
    woken = false;
    std::jthread waker([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
      const std::lock_guard own(mutex);
      woken = true;
      wake.notify_one();
    });
    clock.WaitUntil(lock, wake, kNeverNs, is_woken);
    EXPECT_TRUE(woken);
    lock.unlock();  // for the waker to return
    waker.join();
    lock.lock();
  }
}

}  // namespace
}  // namespace millpower
