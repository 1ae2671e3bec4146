// The KV pages of one loaded Program, as numbers to hand out. Not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

namespace millpower::engine {

class PagePool {
 public:
  explicit PagePool(int32_t count) : count_(count) {
    free_.reserve(static_cast<size_t>(count));
    for (int32_t page = count - 1; page >= 0; --page) free_.push_back(page);
  }

  int32_t count() const { return count_; }
  int32_t free_count() const { return static_cast<int32_t>(free_.size()); }

  // Appends `wanted` pages to `pages`. All or nothing: false leaves it as it was.
  bool Take(int32_t wanted, std::vector<int32_t>& pages) {
    if (wanted > free_count()) return false;
    for (int32_t i = 0; i < wanted; ++i) {
      pages.push_back(free_.back());
      free_.pop_back();
    }
    return true;
  }

  // Takes all of `pages` back and empties it.
  void Return(std::vector<int32_t>& pages) {
    free_.insert(free_.end(), pages.begin(), pages.end());
    pages.clear();
  }

 private:
  const int32_t count_;
  std::vector<int32_t> free_;
};

}  // namespace millpower::engine
