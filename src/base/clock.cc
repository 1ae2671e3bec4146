#include "base/clock.h"

#include <algorithm>
#include <utility>

#include "base/spin.h"

namespace millpower {

void Clock::WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& wake,
                      int64_t until_ns, const std::function<bool()>& woken) const {
  if (until_ns == kNeverNs)
    wake.wait(lock, woken);
  else
    wake.wait_for(lock, std::chrono::nanoseconds(std::max<int64_t>(until_ns - NowNs(), 0)), woken);
}

void SystemClock::WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& wake,
                            int64_t until_ns, const std::function<bool()>& woken) const {
  const auto over = [&] { return woken() || NowNs() >= until_ns; };
  const auto rest = [&] {
    lock.unlock();  // whoever wakes it needs it
    std::this_thread::yield();
    lock.lock();
  };
  if (!LookUntil(over, kSpinBetweenUs, rest)) Clock::WaitUntil(lock, wake, until_ns, woken);
}

int64_t VirtualClock::NowNs() const {
  const std::lock_guard lock(mutex_);
  return now_ns_;
}

void VirtualClock::WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable& wake,
                             int64_t until_ns, const std::function<bool()>& woken) const {
  while (!woken() && NowNs() < until_ns) {
    lock.unlock();  // alarms may ask what the lock guards
    const bool ran = RunAlarm(until_ns);
    lock.lock();
    if (ran) continue;
    if (until_ns == kNeverNs) return wake.wait(lock, woken);
    const std::lock_guard own(mutex_);
    now_ns_ = std::max(now_ns_, until_ns);
  }
}

void VirtualClock::AdvanceTo(int64_t ns) {
  while (RunAlarm(ns)) {
  }
  const std::lock_guard lock(mutex_);
  now_ns_ = std::max(now_ns_, ns);
}

void VirtualClock::At(int64_t ns, std::function<void()> alarm) {
  const std::lock_guard lock(mutex_);
  alarms_.emplace(ns, std::move(alarm));
}

bool VirtualClock::RunAlarm(int64_t ns) const {
  std::function<void()> alarm;
  {
    const std::lock_guard lock(mutex_);
    const auto first = alarms_.begin();
    if (first == alarms_.end() || first->first > ns) return false;
    now_ns_ = std::max(now_ns_, first->first);
    alarm = std::move(first->second);
    alarms_.erase(first);
  }
  alarm();
  return true;
}

}  // namespace millpower
