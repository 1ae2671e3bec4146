#include "device/cpu/profile.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace millpower::device::cpu {

size_t Profile::Declare(std::vector<Line> lines) {
  const std::lock_guard lock(mutex_);
  const size_t first = lines_.size();
  std::ranges::move(lines, std::back_inserter(lines_));
  return first;
}

void Profile::Add(size_t first, std::span<const int64_t> ns) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < ns.size(); ++i) {
    if (ns[i] == 0) continue;
    ++lines_[first + i].runs;
    lines_[first + i].ns += ns[i];
  }
}

std::vector<Profile::Line> Profile::Lines() const {
  const std::lock_guard lock(mutex_);
  return lines_;
}

}  // namespace millpower::device::cpu
