// The work of one step, cut into ranges that threads take. Each thread has a share of its own, the
// same in every launch of the same size, so that its caches still hold the weights that it is about
// to read ("affinity scheduling", Markatos and LeBlanc 1994); who is through with it takes what
// others have not begun, from the far end. Within a share each range is smaller than the one before
// ("trapezoid self-scheduling", Tzen and Ni 1993): little is left to wait for in the end.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

namespace millpower::device::cpu {

class Shares {
 public:
  static constexpr int kMostRanges = 16;  // of a thread

  struct Range {
    int64_t begin = 0, end = 0;
  };

  explicit Shares(int threads);

  // Units [0, units), in ranges of whole multiples of `grain` >= 1 but for the end, `ranges` of a
  // thread at most, 1 to kMostRanges. Nobody may be taking any; those who will must come to know of
  // it after it.
  void Begin(int64_t units, int64_t grain, int ranges);

  // A range that nobody else gets, never an empty one; none: all are taken, though not yet done.
  // Safe for concurrent use. `thread` in [0, threads).
  std::optional<Range> Take(int thread);

 private:
  // What is taken of a thread's share: round_ << kMostRanges | a bit for each range. Of an earlier
  // round: nothing. On a line of its own, so that its owner need not wait for others' caches.
  struct alignas(64) Taken {
    std::atomic<uint64_t> of_round{0};
  };

  std::optional<Range> TakeOf(int owner, bool from_front);
  Range RangeOf(int owner, int index) const;

  const int threads_;
  int64_t units_ = 0, grain_ = 1, grains_ = 0;
  int ranges_ = 1;  // of a thread
  uint64_t round_ = 0;
  const std::unique_ptr<Taken[]> taken_;  // by thread
};

}  // namespace millpower::device::cpu
