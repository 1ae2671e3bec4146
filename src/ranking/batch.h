// Several requests as one launch, and its outputs as their answers. Internal to the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "ranking/layout.h"
#include "ranking/pending.h"

namespace millpower::ranking {

using Requests = std::span<const std::unique_ptr<Pending>>;

// Not thread-safe. Keeps its memory from launch to launch.
class Batcher {
 public:
  // `layout` outlives it. `bounds`, by register, cannot be exceeded by what adds up.
  Batcher(const Layout& layout, int64_t max_batch);

  // ---- Which requests share a launch. One is always taken; the others if their sizes fit beside
  // those before, which MayJoin.
  void Clear();
  bool Take(const Pending& pending);
  int64_t rows() const { return rows_; }
  bool is_full() const { return rows_ >= max_batch_; }

  // Sets registers and inputs of the launch. `requests` have been taken before, and no others.
  void Fill(Requests requests, device::Launch& launch) const;

  // An input's elements that are 0, as many as the registers of the launch say.
  void FillZeros(device::Launch& launch) const;

  // The outputs of the launch that Fill made, by request. `program` has completed it.
  std::vector<Answer> Split(Requests requests, const device::Launch& launch,
                            const device::LoadedProgram& program);

 private:
  using Buffer = std::vector<std::byte>;

  int64_t Most(int32_t reg) const;
  int64_t BytesOf(const ranking::Fill& fill, std::span<const int64_t> registers) const;
  // Items that are nobody's, before those of an input, or of those that offsets cut.
  int64_t LeadOf(const ranking::Fill& fill, Requests requests, const device::Launch& launch) const;
  void FillOne(size_t index, Requests requests, device::Launch& launch) const;
  std::shared_ptr<Buffer> TakeBuffer();

  const Layout& layout_;
  const int64_t max_batch_;
  std::vector<int64_t> sums_;  // by register
  int64_t rows_ = 0;
  const Pending* first_ = nullptr;
  std::vector<std::shared_ptr<Buffer>> buffers_;  // of answers; free when nobody else has it
};

}  // namespace millpower::ranking
