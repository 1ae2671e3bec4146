// The CPU devices of one process that run a Program together, each as one rank: what its
// collectives meet in. Every device has threads of its own, and a launch of each must be under way:
// a collective waits for all ranks.
#pragma once

#include <barrier>
#include <cstdint>
#include <span>
#include <vector>

#include "isa/opcodes.h"

namespace millpower::device::cpu {

// One rank's part of a collective (docs/isa/collective.md). Strides in elements.
struct CollectiveArgs {
  isa::Collective kind = isa::Collective::kAllReduce;
  const float* x = nullptr;         // [rows, cols], or [rows, ranks * cols]
  const float* residual = nullptr;  // shape of y, or null; may be y
  float* y = nullptr;               // may be x of an all_reduce
  int64_t rows = 0;
  int64_t cols = 0;  // C: of the narrower one of x and y; of an all_to_all, of one rank's part
  int64_t x_stride = 0;
  int64_t residual_stride = 0;
  int64_t y_stride = 0;
};

class Group {
 public:
  explicit Group(int ranks);

  int ranks() const { return static_cast<int>(members_.size()); }

  // What a rank's sums need in the meantime: the largest rows * cols of any. While nothing runs.
  void Reserve(int rank, int64_t floats);

  // Returns when this rank's y is complete, and no other needs its x any more. Called by one thread
  // of each rank at a time; all ranks come with the same kind and sizes (CHECK).
  void Run(int rank, const CollectiveArgs& args);

 private:
  struct Member {
    CollectiveArgs args;
    std::vector<float> sums;
  };

  // To `to`, contiguously: the sum over the ranks of columns [first, first + cols) of their x.
  void Sum(const CollectiveArgs& args, int64_t first, float* to) const;
  // y[.., s * cols ..] = columns [first, first + cols) of rank s's x.
  void Collect(const CollectiveArgs& args, int64_t first) const;

  std::vector<Member> members_;
  std::barrier<> meet_;
};

}  // namespace millpower::device::cpu
