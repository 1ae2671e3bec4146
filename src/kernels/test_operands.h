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
  AlignedBytes& operator=(AlignedBytes&&) = default;

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
  if (type == DType::kF8E4M3) return F8E4M3ToF32(static_cast<uint8_t>(*at));
  Bf16 value;
  std::memcpy(&value, at, sizeof value);
  return Bf16ToF32(value);
}

inline void Store(float value, std::byte* at, DType type) {
  if (type == DType::kF32) {
    std::memcpy(at, &value, sizeof value);
  } else if (type == DType::kF8E4M3) {
    *at = std::byte{F32ToF8E4M3(value)};
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

// The value of an element of a weight in blocks, worked out in float64 from docs/isa/layout.md.
inline double BlockElement(const std::byte* w, int64_t k, DType type, int64_t channel,
                           int64_t step) {
  const int64_t chunk_steps = isa::ChunkSteps(type);
  const auto* chunk = reinterpret_cast<const uint8_t*>(w) +
                      (channel / 16 * ((k + chunk_steps - 1) / chunk_steps) + step / chunk_steps) *
                          isa::ChunkLines(type) * 64;
  const int64_t lane = channel % 16, at = step % chunk_steps;
  const auto half = [&](int64_t index) {
    return static_cast<double>(
        F16ToF32(static_cast<uint16_t>(chunk[2 * index] | chunk[2 * index + 1] << 8)));
  };
  const auto byte = [&](int64_t first_line) {
    return static_cast<double>(chunk[(first_line + at / 4) * 64 + lane * 4 + at % 4]);
  };
  const auto nibble = [&](int64_t first_line) {
    const int value = chunk[(first_line + at / 8) * 64 + lane * 4 + at % 4];
    return static_cast<double>(at % 8 < 4 ? value % 16 : value / 16);
  };
  switch (type) {
    case DType::kQ8_0:
      return half(at / 32 * 16 + lane) * (byte(1) - 128);
    case DType::kQ4_0:
      return half(at / 32 * 16 + lane) * (nibble(1) - 8);
    case DType::kQ4_K:
      return half(lane) * chunk[64 + at / 32 * 16 + lane] * nibble(5) -
             half(16 + lane) * chunk[192 + at / 32 * 16 + lane];
    default:  // q6_k
      return half(lane) * static_cast<int8_t>(chunk[64 + at / 16 * 16 + lane]) * (byte(5) - 32);
  }
}

// Any bytes a file may hold: values over their whole range, scales of either sign. What fills up
// the last chunk and the last block is as the packer leaves it, values of 0.
inline AlignedBytes RandomBlocks(Rng& rng, int64_t n, int64_t k, DType type) {
  AlignedBytes w(isa::PackedBytes(n, k, type));
  auto* bytes = reinterpret_cast<uint8_t*>(w.data());
  const int64_t chunk_bytes = isa::ChunkLines(type) * 64, chunk_steps = isa::ChunkSteps(type);
  const bool whole_bytes = type == DType::kQ8_0 || type == DType::kQ6_K;
  const int bias = type == DType::kQ8_0   ? 128
                   : type == DType::kQ6_K ? 32
                   : type == DType::kQ4_0 ? 8
                                          : 0;
  const int64_t values_at = isa::ScaleLines(type) * 64;
  const int64_t chunks = (k + chunk_steps - 1) / chunk_steps;
  for (int64_t c = 0; c < w.size_bytes() / chunk_bytes; ++c) {
    uint8_t* chunk = bytes + c * chunk_bytes;
    for (int64_t i = 0; i < values_at; ++i) chunk[i] = static_cast<uint8_t>(rng.Below(256));
    const int64_t halves =
        type == DType::kQ8_0 || type == DType::kQ4_0 || type == DType::kQ4_K ? 32 : 16;
    for (int64_t i = 0; i < halves; ++i) {
      const uint16_t d = F32ToF16(rng.Uniform(-0.01f, 0.01f));
      std::memcpy(chunk + 2 * i, &d, sizeof d);
    }
    for (int64_t lane = 0; lane < 16; ++lane)
      for (int64_t at = 0; at < chunk_steps; ++at) {
        const bool used = c / chunks * 16 + lane < n && c % chunks * chunk_steps + at < k;
        const uint64_t range = type == DType::kQ8_0 ? 256 : type == DType::kQ6_K ? 64 : 16;
        const auto value =
            used ? static_cast<uint8_t>(rng.Below(range)) : static_cast<uint8_t>(bias);
        if (whole_bytes) {
          chunk[values_at + at / 4 * 64 + lane * 4 + at % 4] = value;
        } else {
          uint8_t& byte = chunk[values_at + at / 8 * 64 + lane * 4 + at % 4];
          byte = at % 8 < 4 ? value : static_cast<uint8_t>(byte | value << 4);
        }
      }
  }
  return w;
}

// A random packed weight [n, k]; what the layout does not use is zero, as the packer leaves it.
inline AlignedBytes RandomWeight(Rng& rng, int64_t n, int64_t k, DType type) {
  if (IsBlockType(type)) return RandomBlocks(rng, n, k, type);
  AlignedBytes w(isa::PackedBytes(n, k, type));
  std::memset(w.data(), 0, static_cast<size_t>(w.size_bytes()));
  const bool scaled = type == DType::kF8E4M3;
  for (int64_t channel = 0; channel < n; ++channel) {
    if (scaled)
      Store(rng.Uniform(0.5f, 1) / kF8E4M3Max, w.data() + isa::ChannelScaleOffset(channel, k),
            DType::kF32);
    for (int64_t step = 0; step < k; ++step)
      Store(rng.Uniform(-1, 1) * (scaled ? kF8E4M3Max : 1),
            w.data() + isa::PackedOffset(channel, step, k, type), type);
  }
  return w;
}

inline double WeightElement(const std::byte* w, int64_t k, DType type, int64_t channel,
                            int64_t step) {
  if (IsBlockType(type)) return BlockElement(w, k, type, channel, step);
  const double value = Load(w + isa::PackedOffset(channel, step, k, type), type);
  return type == DType::kF8E4M3
             ? value *
                   static_cast<double>(Load(w + isa::ChannelScaleOffset(channel, k), DType::kF32))
             : value;
}

// What rows are quantised to for weights of a quantised type.
inline DType QuantisedRowType(DType weights) {
  return weights == DType::kF8E4M3 ? DType::kF8E4M3 : DType::kI8;
}

// Rows of x in the form that weights of a quantised type take.
inline AlignedBytes QuantiseRows(const float* x, int64_t x_stride, int64_t rows, int64_t k,
                                 DType weights) {
  const DType type = QuantisedRowType(weights);
  AlignedBytes quantised(rows * isa::QuantisedRowBytes(k, type));
  ScalarKernels().quantise(
      {.x = x, .y = quantised.data(), .k = k, .x_stride = x_stride, .type = type}, 0, rows);
  return quantised;
}

inline constexpr DType kWeightTypes[] = {DType::kF32,  DType::kBf16, DType::kQ8_0,  DType::kQ4_0,
                                         DType::kQ4_K, DType::kQ6_K, DType::kF8E4M3};

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
