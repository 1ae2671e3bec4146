// Whose launch runs next on a device that several Programs share. Decides only: it is told what
// time it is, and whoever asks keeps the lock and does the work. Not thread-safe.
//
// Between launches of one class, time is shared by start-time fair queueing (Goyal, Vin and Cheng
// 1996): a Program's tag grows by the time it has had, divided by the weight of its launch; the
// least tag goes first; and one that comes back after a pause starts no lower than those that went
// on, so that it cannot claim the time it did not ask for.
//
// The weight of a launch is the sum of its callers' claims. Of a caller that wants several Programs
// at once, each has an equal part of the claim, so that nobody gains by using more of them; and
// what is not leased is split between all callers that have no lease, whatever Program they use, so
// that neither do they take from those who have.
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
#include <span>
#include <vector>

#include "device/device.h"

namespace millpower::device {

inline constexpr int64_t kGraceNs = 500'000;

class Arbiter {
 public:
  using Id = int;

  // A Program takes part from now on.
  Id Join();
  // It takes part no more; a launch of it that waits is dropped. Not while one runs.
  void Leave(Id id);

  // A launch of `id` waits from now on. It has no other, waiting or running. Claims are copied;
  // their shares are positive.
  void Submit(Id id, LaunchClass launch_class, std::span<const Claim> claims, int64_t now_ns);

  struct Decision {
    Id next = -1;          // runs now; -1: nothing does
    int64_t until_ns = 0;  // then ask again; or when something is submitted
  };
  // Called while nothing runs. What it names is running until Finish.
  Decision Next(int64_t now_ns);

  void Finish(Id id, int64_t now_ns, int64_t device_ns);

 private:
  struct Member {
    std::vector<Claim> claims;
    double tag = 0;  // weighted nanoseconds
    LaunchClass launch_class = 0;
    bool waits = false, runs = false;
    bool prompt = false;  // its last launch came within the grace after the one before
    int64_t submitted_ns = 0;
    int64_t finished_ns = 0;
    int64_t expected_until_ns = 0;  // its next launch
  };
  double WeightOf(const Member& member) const;
  static bool Before(const Member& a, const Member& b, int64_t now_ns);

  std::map<Id, Member> members_;
  std::array<double, kLaunchClasses> started_{};  // by class: the largest tag that has run
  Id next_id_ = 0;
};

}  // namespace millpower::device
