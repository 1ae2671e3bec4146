// A fixed team of threads for data-parallel work. The caller is member 0.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace millpower {

// Returns once `value` differs from `old`, and sees what was written before it changed. Spins a
// while (spin.h), then sleeps until SetAndWake.
void WaitWhileEqual(const std::atomic<uint32_t>& value, uint32_t old);

// Sets what others wait for, and wakes them.
void SetAndWake(std::atomic<uint32_t>& value, uint32_t to);

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

  // Runs work(0) on the caller, and work(member) on those of the others that come in time: one that
  // the system has put aside is not waited for unless it has begun.
  void RunWithWhoComes(const std::function<void(int)>& work);

 private:
  // Whether work may be begun, and how many have begun and ended it, in one number that changes as
  // a whole: generation (32 bits) | open (1) | entered (15) | left (16).
  static constexpr uint64_t kLeft = 1, kEntered = uint64_t{1} << 16, kOpen = uint64_t{1} << 31;
  static uint32_t GenerationOf(uint64_t door) { return static_cast<uint32_t>(door >> 32); }
  static uint64_t EnteredOf(uint64_t door) { return door >> 16 & 0x7fff; }
  static uint64_t LeftOf(uint64_t door) { return door & 0xffff; }

  void Open(const std::function<void(int)>& work);
  void WaitUntilLeft(uint64_t members);
  // True: the member has entered, and must leave. `seen`: the last generation it knows of.
  bool Enter(uint32_t& seen);
  void WorkerLoop(int member);

  const int count_;
  alignas(64) std::atomic<uint64_t> door_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};  // the door's, to sleep on
  std::atomic<bool> stop_{false};
  const std::function<void(int)>* work_ = nullptr;
  std::vector<std::thread> workers_;
};

}  // namespace millpower
