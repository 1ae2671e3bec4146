// Time is injected, so that engines run in virtual time in tests and against the chip timer.
#pragma once

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

}  // namespace millpower
