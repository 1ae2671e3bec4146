// Time is injected, so that engines run in virtual time in tests and against the chip timer.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <mutex>

namespace millpower {

inline constexpr int64_t kNeverNs = std::numeric_limits<int64_t>::max();

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic nanoseconds from an arbitrary start. Thread-safe.
  virtual int64_t NowNs() const = 0;
  // Seconds since 1970 UTC, for "created" fields. Thread-safe.
  virtual int64_t UnixSeconds() const = 0;
  // Milliseconds since 1970 UTC. Thread-safe.
  virtual int64_t UnixMs() const { return UnixSeconds() * 1000; }

  // As condition_variable::wait_until with a predicate: returns when `woken` says so, asked under
  // the lock at every notification of `wake`, or at `until_ns` of this clock (kNeverNs: not before
  // it is woken). Thread-safe.
  virtual void WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& wake,
                         int64_t until_ns, const std::function<bool()>& woken) const;
};

class SystemClock final : public Clock {
 public:
  int64_t NowNs() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  int64_t UnixSeconds() const override {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  int64_t UnixMs() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  // Spins before it sleeps (spin.h).
  void WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& wake,
                 int64_t until_ns, const std::function<bool()>& woken) const override;
};

// Time that passes only when somebody says so. It starts at 0, the beginning of 1970.
//
// Alarms make it a discrete-event simulation: whoever moves time, or waits for it, first runs what
// is due on the way, at its own time. So a thread that waits until a moment nobody else brings
// about brings it about itself.
class VirtualClock final : public Clock {
 public:
  int64_t NowNs() const override;
  int64_t UnixSeconds() const override { return NowNs() / 1'000'000'000; }
  int64_t UnixMs() const override { return NowNs() / 1'000'000; }
  // Runs alarms that are due before `until_ns`, then goes there; without one to wait for, it waits
  // for a real notification.
  void WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& wake,
                 int64_t until_ns, const std::function<bool()>& woken) const override;

  // Thread-safe, both. Time never goes back: to an earlier moment does nothing.
  void Advance(int64_t by_ns) { AdvanceTo(NowNs() + by_ns); }
  void AdvanceTo(int64_t ns);

  // `alarm` runs once, when time reaches `ns` (at once after it, the next time that time moves or
  // is waited for), in the thread that moves or waits; of equal times the first set goes first. It
  // may set others, but not move time. Thread-safe; wakes nobody who waits already.
  void At(int64_t ns, std::function<void()> alarm);

 private:
  // Runs the earliest alarm that is due by `ns`; false: there is none.
  bool RunAlarm(int64_t ns) const;

  mutable std::mutex mutex_;
  mutable int64_t now_ns_ = 0;
  mutable std::multimap<int64_t, std::function<void()>> alarms_;
};

}  // namespace millpower
