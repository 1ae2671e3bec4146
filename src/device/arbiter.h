// Whose launch runs next on a device that several Programs share. Decides only: it is told what
// time it is, and whoever asks keeps the lock and does the work. Not thread-safe.
//
// Between launches of one class, time is shared by start-time fair queueing (Goyal, Vin and Cheng
// 1996): a Program's tag grows by the time it has had, divided by its weight; the least tag goes
// first; and one that comes back after a pause starts no lower than those that went on, so that it
// cannot claim the time it did not ask for.
//
// A Program has one launch in flight, so the moment one ends its next is not there yet, and a
// device that took whatever waits would give two Programs turns whatever their classes and weights.
// So the next launch of the one that just ran is waited for, if it would go first and its last one
// came at once (anticipation; Iyer and Druschel 2001), for kGraceNs or half of what the last launch
// took, whichever is less.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "device/device.h"

namespace millpower::device {

inline constexpr int64_t kGraceNs = 500'000;

class Arbiter {
 public:
  using Id = int;

  // A Program takes part from now on. `weight` > 0.
  Id Join(double weight);
  // It takes part no more; a launch of it that waits is dropped. Not while one runs.
  void Leave(Id id);

  // A launch of `id` waits from now on. It has no other, waiting or running.
  void Submit(Id id, LaunchClass launch_class, int64_t now_ns);

  struct Decision {
    Id next = -1;          // runs now; -1: nothing does
    int64_t until_ns = 0;  // then ask again; or when something is submitted
  };
  // Called while nothing runs. What it names is running until Finish.
  Decision Next(int64_t now_ns);

  void Finish(Id id, int64_t now_ns, int64_t device_ns);

 private:
  struct Member {
    double weight = 1;
    double tag = 0;  // weighted nanoseconds
    LaunchClass launch_class = 0;
    bool waits = false, runs = false;
    bool prompt = false;  // its last launch came within the grace after the one before
    int64_t submitted_ns = 0;
    int64_t finished_ns = 0;
    int64_t expected_until_ns = 0;  // its next launch
  };
  static bool Before(const Member& a, const Member& b, int64_t now_ns);

  std::map<Id, Member> members_;
  std::array<double, kLaunchClasses> started_{};  // by class: the largest tag that has run
  Id next_id_ = 0;
};

}  // namespace millpower::device
