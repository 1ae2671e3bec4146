#include "device/cpu/shares.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace millpower::device::cpu {
namespace {

// What the last `ranges` of a share are of it, in parts of Weight(all of them): 1 + 2 + ... each.
int64_t Weight(int64_t ranges) { return ranges * (ranges + 1) / 2; }

}  // namespace

Shares::Shares(int threads)
    : threads_(threads), taken_(std::make_unique<Taken[]>(static_cast<size_t>(threads))) {}

void Shares::Begin(int64_t units, int64_t grain, int ranges) {
  CHECK(grain >= 1 && ranges >= 1 && ranges <= kMostRanges) << grain << " " << ranges;
  units_ = units;
  grain_ = grain;
  grains_ = (units + grain - 1) / grain;
  ranges_ = static_cast<int>(std::clamp<int64_t>((grains_ / threads_ + 1) / 2, 1, ranges));
  ++round_;
}

std::optional<Shares::Range> Shares::Take(int thread) {
  for (int i = 0; i < threads_; ++i)
    if (auto range = TakeOf((thread + i) % threads_, /*from_front=*/i == 0)) return range;
  return std::nullopt;
}

std::optional<Shares::Range> Shares::TakeOf(int owner, bool from_front) {
  const uint64_t nothing = round_ << kMostRanges, all = (uint64_t{1} << ranges_) - 1;
  std::atomic<uint64_t>& taken = taken_[static_cast<size_t>(owner)].of_round;
  uint64_t was = taken.load(std::memory_order_relaxed);
  for (;;) {
    const uint64_t bits = was < nothing ? 0 : was - nothing;
    const uint64_t left = all & ~bits;
    if (left == 0) return std::nullopt;
    const int index = from_front ? std::countr_zero(left) : std::bit_width(left) - 1;
    if (!taken.compare_exchange_weak(was, nothing | bits | uint64_t{1} << index,
                                     std::memory_order_relaxed))
      continue;
    const Range range = RangeOf(owner, index);
    if (range.begin < range.end) return range;
    was = nothing | bits | uint64_t{1} << index;
  }
}

Shares::Range Shares::RangeOf(int owner, int index) const {
  // Without products that could overflow.
  const auto share = [&](int64_t t) {
    return grains_ / threads_ * t + grains_ % threads_ * t / threads_;
  };
  const int64_t end = share(owner + 1), size = end - share(owner);
  const int64_t all = Weight(ranges_);
  const auto cut = [&](int64_t i) {
    const int64_t left = Weight(ranges_ - i);
    return end - (size / all * left + (size % all * left + all - 1) / all);
  };
  return {std::min(units_, cut(index) * grain_), std::min(units_, cut(index + 1) * grain_)};
}

}  // namespace millpower::device::cpu
