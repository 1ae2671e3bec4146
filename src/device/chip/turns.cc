#include "device/chip/turns.h"

#include <algorithm>
#include <limits>

namespace millpower::device::chip {

Turns::Turns(int users, int stations)
    : time_(static_cast<size_t>(users)),
      free_(static_cast<size_t>(stations)),
      wake_(static_cast<size_t>(users)) {}

int64_t Turns::Take(int user, int station, int64_t now_ns, int64_t duration_ns) {
  const auto own = static_cast<size_t>(user);
  std::unique_lock lock(mutex_);
  SetTime(user, std::max(time_[own], now_ns));
  wake_[own].wait(lock, [&] { return Next() == own; });
  int64_t& free = free_[static_cast<size_t>(station)];
  const int64_t start = std::max(now_ns, free);
  free = start + duration_ns;
  SetTime(user, free);
  return start;
}

void Turns::Leave(int user) {
  const std::lock_guard lock(mutex_);
  SetTime(user, std::numeric_limits<int64_t>::max());
}

size_t Turns::Next() const {
  return static_cast<size_t>(std::ranges::min_element(time_) - time_.begin());
}

void Turns::SetTime(int user, int64_t ns) {
  time_[static_cast<size_t>(user)] = ns;
  wake_[Next()].notify_one();
}

}  // namespace millpower::device::chip
