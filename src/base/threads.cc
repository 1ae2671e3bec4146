#include "base/threads.h"

#include "base/check.h"
#include "base/spin.h"

namespace millpower {

void WaitWhileEqual(const std::atomic<uint32_t>& value, uint32_t old) {
  const auto differs = [&] { return value.load(std::memory_order_acquire) != old; };
  if (differs() || SpinUntil(differs)) return;
  while (!differs()) value.wait(old, std::memory_order_acquire);
}

// In one order with the wait's own count of sleepers, which notify_all looks at: after a store that
// merely releases, it may see none although one is about to sleep on the old value.
void SetAndWake(std::atomic<uint32_t>& value, uint32_t to) {
  value.store(to, std::memory_order_seq_cst);
  value.notify_all();
}

ThreadTeam::ThreadTeam(int count) : count_(count) {
  CHECK(count >= 1 && count < 0x7fff) << count;
  for (int member = 1; member < count; ++member)
    workers_.emplace_back([this, member] { WorkerLoop(member); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  SetAndWake(generation_, generation_.load(std::memory_order_relaxed) + 1);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::Open(const std::function<void(int)>& work) {
  work_ = &work;  // nobody is inside who could read it
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  door_.store(uint64_t{generation} << 32 | kOpen, std::memory_order_release);
  SetAndWake(generation_, generation);
}

void ThreadTeam::WaitUntilLeft(uint64_t members) {
  const auto all_left = [&] { return LeftOf(door_.load(std::memory_order_acquire)) == members; };
  if (SpinUntil(all_left)) return;
  for (uint64_t door; LeftOf(door = door_.load(std::memory_order_acquire)) != members;)
    door_.wait(door, std::memory_order_acquire);
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
    const auto opened = [&] { return generation_.load(std::memory_order_acquire) != seen; };
    if (!YieldUntil(opened))
      while (!opened()) generation_.wait(seen, std::memory_order_acquire);
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
