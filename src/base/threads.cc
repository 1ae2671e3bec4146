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

// Returns once `value` differs from `old`.
void WaitWhileEqual(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

void Barrier::Wait() {
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  WaitWhileEqual(phase_, phase);
}

ThreadTeam::ThreadTeam(int count) : count_(count), barrier_(count), done_(count) {
  CHECK(count >= 1) << count;
  for (int member = 1; member < count; ++member)
    workers_.emplace_back([this, member] { WorkerLoop(member); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::Run(const std::function<void(int)>& work) {
  if (count_ == 1) return work(0);
  work_ = &work;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  work(0);
  done_.Wait();
}

void ThreadTeam::WorkerLoop(int member) {
  for (uint32_t seen = 0;; ++seen) {
    WaitWhileEqual(generation_, seen);
    if (stop_) return;
    (*work_)(member);
    done_.Wait();
  }
}

}  // namespace millpower
