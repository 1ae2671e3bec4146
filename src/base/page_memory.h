// Anonymous memory: zeroed, committed when touched, in huge pages where the system gives them.
#pragma once

#include <cstddef>

namespace millpower {

class PageMemory {
 public:
  explicit PageMemory(size_t size_bytes);
  ~PageMemory();
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  bool ok() const { return data_ != nullptr; }  // false: there is no room for it
  std::byte* data() const { return data_; }

  // Commits all of it, which may take milliseconds for each huge page. While nobody uses it.
  void Touch();

 private:
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace millpower
