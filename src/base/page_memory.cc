#include "base/page_memory.h"

#include <sys/mman.h>

#include <algorithm>

namespace millpower {

PageMemory::PageMemory(size_t size_bytes) : size_bytes_(std::max<size_t>(size_bytes, 1)) {
  void* data = ::mmap(nullptr, size_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return;
  ::madvise(data, size_bytes_, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(data);
}

PageMemory::~PageMemory() {
  if (data_ != nullptr) ::munmap(data_, size_bytes_);
}

void PageMemory::Touch() {
  constexpr size_t kLeastPage = 4096;
  volatile std::byte* const data = data_;
  for (size_t at = 0; data != nullptr && at < size_bytes_; at += kLeastPage) data[at] = {};
}

}  // namespace millpower
