// Plays the work of a Program's instructions on a chip's engines in virtual time: streams in
// order, held to each other by counting semaphores and by the engines they share.
//
// The rules, all of them:
//   - A stream begins its next instruction when the one before is over, `issue_s` later.
//   - The waves of an instruction go through in order. A wave's transfers may begin when the wave
//     two before it is over (double buffering), all else when the one before it is over.
//   - A unit serves waves in the order in which they come to it, whatever their stream, one after
//     the other: that is the contention for memory, scratchpads and links.
//   - A wave is over when the last of its units is done, and its latency has passed.
//   - Of more than 2^16 equal waves, several go through as one while other streams are under way.
//   - Before an instruction begins, a memory that has nothing else to do reads its weights ahead,
//   at
//     most `prefetch_s` worth: what the chip has buffers for.
//   - `post` adds to a semaphore; `wait` holds its stream until the semaphore has enough. A stream
//     that waits for ever, or a count that nobody takes, is an error by name.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/chip/work.h"
#include "isa/program.h"

namespace millpower::device::chip {

// When an instruction ran. Seconds from the launch's start.
struct Span {
  isa::Stream stream = isa::Stream::kCompute;
  int32_t index = 0;   // in the stream
  double begin_s = 0;  // the stream came to it
  double start_s = 0;  // after issuing it
  double end_s = 0;
};

struct Played {
  double end_s = 0;                         // when the last stream ended
  std::array<double, kUnitCount> busy_s{};  // of each unit, in all
};

// Plays one launch after the other. Keeps its memory, so that playing allocates nothing in the end.
class Machine {
 public:
  // `prefetch_s`: for how long the memory may read weights ahead of the instruction that needs
  // them.
  explicit Machine(double prefetch_s) : prefetch_s_(prefetch_s) {}

  // `works`: by stream, one for each instruction; null for wait, post and end. `spans` null: not
  // wanted; else what ran is appended. The Program and the works are the caller's.
  // Errors: kCorrupt (a stream waits for ever; counts are left over), naming the instruction.
  Result<Played> Play(const isa::Program& program,
                      const std::array<std::vector<const Work*>, isa::kStreamCount>& works,
                      std::vector<Span>* spans);

 private:
  struct Post {
    double at_s = 0;
    int64_t count = 0;
  };
  // What a semaphore has had, in the order of times.
  struct Posts {
    std::vector<Post> all;
    size_t first = 0;   // that is not used up
    int64_t there = 0;  // counts, of those from there on
  };
  // Where a stream is.
  struct Cursor {
    size_t index = 0;    // its instruction
    double ready_s = 0;  // when the one before was over
    bool ended = false;
    // Within an instruction.
    bool inside = false;
    double begin_s = 0, start_s = 0;
    size_t wave = 0;
    int64_t repeat = 0;        // of the wave's count
    double over_s = 0;         // the wave before
    double over_before_s = 0;  // the one before that
    double ahead_s = 0;        // of weights that have been read already
  };

  bool Advance(const isa::Program& program, isa::Stream stream,
               const std::vector<const Work*>& works, std::vector<Span>* spans);
  bool TakeCounts(const isa::Instruction& wait, double& ready_s);
  void Begin(Cursor& cursor, const Work& work);
  void PlayWave(Cursor& cursor, const Wave& wave, int64_t times);
  void PlayRepeats(Cursor& cursor, const Wave& wave);
  double NextEvent(const Cursor& cursor) const;
  bool Alone(isa::Stream stream) const;
  Result<void> CheckCounts(const isa::Program& program) const;

  double prefetch_s_;
  std::array<bool, isa::kStreamCount> waiting_{};  // for a semaphore that nobody has posted since
  std::array<Cursor, isa::kStreamCount> cursors_;
  std::array<double, kUnitCount> free_s_{};
  std::array<double, kUnitCount> busy_s_{};
  std::vector<Posts> posts_;  // by semaphore
};

}  // namespace millpower::device::chip
