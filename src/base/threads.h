// A fixed team of threads for data-parallel work. The caller is member 0.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace millpower {

// All members of a team meet here. Spins briefly, since the gaps between instructions are
// microseconds, then sleeps, so that a descheduled neighbour does not burn a core.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}
  void Wait();

 private:
  const int count_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

// Not thread-safe: one Run at a time.
class ThreadTeam {
 public:
  // `count` >= 1 members in all, the caller of Run included.
  explicit ThreadTeam(int count);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int count() const { return count_; }

  // Runs work(member) once on each member, and returns when all are done.
  void Run(const std::function<void(int)>& work);

  // Callable by the members inside Run: all must call it equally often.
  void Sync() {
    if (count_ > 1) barrier_.Wait();
  }

 private:
  void WorkerLoop(int member);

  const int count_;
  Barrier barrier_;
  Barrier done_;
  std::atomic<uint32_t> generation_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int)>* work_ = nullptr;
  std::vector<std::thread> workers_;
};

}  // namespace millpower
