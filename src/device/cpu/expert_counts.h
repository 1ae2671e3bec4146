// How often which expert was chosen: what a plan without weights takes as given
// (chip::RoutingModel).
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

namespace millpower::device::cpu {

// Filled by the Programs of a device that was told to (CpuOptions::expert_counts). Safe for
// concurrent use.
class ExpertCounts {
 public:
  // The number of one more layer that chooses; layers come in the order of their instructions.
  size_t Declare(int64_t experts);
  // The work of one launch: expert e has begins[e + 1] - begins[e] rows (isa/layout.h, expert
  // lists).
  void Add(size_t layer, std::span<const int32_t> begins);

  // Rows so far, by layer and expert.
  std::vector<std::vector<int64_t>> Layers() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::vector<int64_t>> layers_;
};

}  // namespace millpower::device::cpu
