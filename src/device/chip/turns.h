// Whose turn it is with chips that several engines share in virtual time, each under a clock of its
// own: whoever's time is the least goes first, so that chips are given to launches in the order in
// which they come to them (conservative parallel simulation: Chandy and Misra, "Distributed
// simulation", IEEE Transactions on Software Engineering, 1979). All of it is the same in every
// run, however threads are scheduled.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

namespace millpower::device::chip {

// Thread-safe; each user comes from one thread at a time.
class Turns {
 public:
  // `users` engines that share `stations`, groups of chips that run one launch at a time.
  Turns(int users, int stations);

  // `user`, whose clock says `now_ns` (never less than it said before), wants `station` for so
  // long. Waits until no other can come earlier - of equal times, the lower number does - and
  // returns when it starts: now, or when those before it are done. The user does nothing else until
  // that is over.
  int64_t Take(int user, int station, int64_t now_ns, int64_t duration_ns);

  // The user comes no more. Each must say so in the end, or the others wait for it.
  void Leave(int user);

 private:
  // Whose turn it is.
  size_t Next() const;
  // Changes when a user comes, and wakes whoever is next then.
  void SetTime(int user, int64_t ns);

  std::mutex mutex_;
  std::vector<int64_t> time_;                 // by user: it comes not before
  std::vector<int64_t> free_;                 // by station: from then on
  std::deque<std::condition_variable> wake_;  // by user
};

}  // namespace millpower::device::chip
