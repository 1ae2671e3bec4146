#include "base/threads.h"

#include "base/check.h"

namespace millpower {
namespace {

// About 20-50 us of pauses before a waiter sleeps in the kernel.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void WaitWhileEqual(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

ThreadTeam::ThreadTeam(int count) : count_(count) {
  CHECK(count >= 1 && count < 0x7fff) << count;
  for (int member = 1; member < count; ++member)
    workers_.emplace_back([this, member] { WorkerLoop(member); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::Open(const std::function<void(int)>& work) {
  work_ = &work;  // nobody is inside who could read it
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  door_.store(uint64_t{generation} << 32 | kOpen, std::memory_order_release);
  generation_.store(generation, std::memory_order_release);
  generation_.notify_all();
}

void ThreadTeam::WaitUntilLeft(uint64_t members) {
  for (int i = 0;; ++i) {
    const uint64_t door = door_.load(std::memory_order_acquire);
    if (LeftOf(door) == members) return;
    if (i < kSpins)
      Pause();
    else
      door_.wait(door, std::memory_order_acquire);
  }
}

void ThreadTeam::Run(const std::function<void(int)>& work) {
  if (count_ == 1) return work(0);
  Open(work);
  work(0);
  WaitUntilLeft(static_cast<uint64_t>(count_) - 1);
}

void ThreadTeam::RunWithWhoComes(const std::function<void(int)>& work) {
  if (count_ == 1) return work(0);
  Open(work);
  work(0);
  const uint64_t door = door_.fetch_and(~kOpen, std::memory_order_acq_rel);
  WaitUntilLeft(EnteredOf(door));
}

bool ThreadTeam::Enter(uint32_t& seen) {
  uint64_t door = door_.load(std::memory_order_acquire);
  while ((door & kOpen) != 0 && GenerationOf(door) != seen) {
    if (!door_.compare_exchange_weak(door, door + kEntered, std::memory_order_acq_rel)) continue;
    seen = GenerationOf(door);
    return true;
  }
  seen = GenerationOf(door);
  return false;
}

void ThreadTeam::WorkerLoop(int member) {
  for (uint32_t seen = 0;;) {
    WaitWhileEqual(generation_, seen);
    if (stop_) return;
    // False: too late, or so early that generation_ has not followed the door yet.
    if (!Enter(seen)) {
      Pause();
      continue;
    }
    (*work_)(member);
    door_.fetch_add(kLeft, std::memory_order_acq_rel);
    door_.notify_all();
  }
}

}  // namespace millpower
