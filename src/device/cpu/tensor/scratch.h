// Working memory of steps, by thread. Internal to the CPU device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace millpower::device::cpu {

// `count` values for each thread, allocated at load, 64-byte aligned. Threads use only their own.
template <typename T>
class ThreadScratch {
 public:
  ThreadScratch(int threads, int64_t count)
      : stride_((count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64),
        bytes_(static_cast<std::byte*>(
            ::operator new(static_cast<size_t>(threads * stride_ + 64), std::align_val_t{64}))) {}
  T* Of(int member) const { return reinterpret_cast<T*>(bytes_.get() + member * stride_); }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  int64_t stride_;
  std::unique_ptr<std::byte, Free> bytes_;
};

}  // namespace millpower::device::cpu
