// Time is injected, so that engines run in virtual time in tests and against the chip timer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace millpower {

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic nanoseconds from an arbitrary start. Thread-safe.
  virtual int64_t NowNs() const = 0;
  // Seconds since 1970 UTC, for "created" fields. Thread-safe.
  virtual int64_t UnixSeconds() const = 0;
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
};

// Time that passes only when somebody says so. It starts at 0, the beginning of 1970.
class VirtualClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_.load(std::memory_order_acquire); }
  int64_t UnixSeconds() const override { return NowNs() / 1'000'000'000; }
  // Thread-safe, both. Time never goes back: to an earlier moment does nothing.
  void Advance(int64_t by_ns) { now_ns_.fetch_add(by_ns, std::memory_order_acq_rel); }
  void AdvanceTo(int64_t ns) {
    int64_t now = NowNs();
    while (now < ns && !now_ns_.compare_exchange_weak(now, ns, std::memory_order_acq_rel)) {
    }
  }

 private:
  std::atomic<int64_t> now_ns_ = 0;
};

}  // namespace millpower
