// Random operands for the tests of this folder, in buffers of exactly their size, so that
// AddressSanitizer sees any access beyond.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/rng.h"
#include "isa/layout.h"
#include "kernels/kernels.h"

namespace millpower::kernels {

// Bytes aligned as packed weights and KV pages are.
class AlignedBytes {
 public:
  explicit AlignedBytes(int64_t size_bytes)
      : data_(static_cast<std::byte*>(
            ::operator new(static_cast<size_t>(size_bytes), std::align_val_t{64}))),
        size_bytes_(size_bytes) {}
  AlignedBytes(AlignedBytes&&) = default;

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t size_bytes_;
};

inline float Load(const std::byte* at, DType type) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  Bf16 value;
  std::memcpy(&value, at, sizeof value);
  return Bf16ToF32(value);
}

inline void Store(float value, std::byte* at, DType type) {
  if (type == DType::kF32) {
    std::memcpy(at, &value, sizeof value);
  } else {
    const Bf16 rounded = F32ToBf16(value);
    std::memcpy(at, &rounded, sizeof rounded);
  }
}

inline std::vector<float> RandomFloats(Rng& rng, int64_t count, float lo = -1, float hi = 1) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = rng.Uniform(lo, hi);
  return values;
}

// A random packed weight [n, k]; what the layout does not use is zero, as the packer leaves it.
inline AlignedBytes RandomWeight(Rng& rng, int64_t n, int64_t k, DType type) {
  AlignedBytes w(isa::PackedBytes(n, k, type));
  std::memset(w.data(), 0, static_cast<size_t>(w.size_bytes()));
  for (int64_t channel = 0; channel < n; ++channel)
    for (int64_t step = 0; step < k; ++step)
      Store(rng.Uniform(-1, 1), w.data() + isa::PackedOffset(channel, step, k, type), type);
  return w;
}

// The same bits, which for floats is more than ==: it tells -0 from 0.
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Runs `test` with every set this machine has, the scalar one included.
template <typename Test>
void ForEachSet(const Test& test) {
  for (const KernelSet* set : AvailableKernels()) {
    SCOPED_TRACE(set->name);
    test(*set);
  }
}

}  // namespace millpower::kernels
