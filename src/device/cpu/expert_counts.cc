#include "device/cpu/expert_counts.h"

namespace millpower::device::cpu {

size_t ExpertCounts::Declare(int64_t experts) {
  const std::lock_guard lock(mutex_);
  layers_.emplace_back(static_cast<size_t>(experts));
  return layers_.size() - 1;
}

void ExpertCounts::Add(size_t layer, std::span<const int32_t> begins) {
  const std::lock_guard lock(mutex_);
  std::vector<int64_t>& counts = layers_[layer];
  for (size_t expert = 0; expert < counts.size(); ++expert)
    counts[expert] += begins[expert + 1] - begins[expert];
}

std::vector<std::vector<int64_t>> ExpertCounts::Layers() const {
  const std::lock_guard lock(mutex_);
  return layers_;
}

}  // namespace millpower::device::cpu
