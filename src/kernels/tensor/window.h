// Windows that slide over images, for conv and pool.
#pragma once

#include <array>
#include <cstdint>

namespace millpower::kernels {

inline constexpr int kMaxSpatial = 6;

// Along spatial axis d window i holds elements stride[d] * i - pad_begin[d] + dilation[d] * j, j
// below kernel[d], of which those in [0, in[d]) exist and those before -pad_begin[d] or from in[d]
// + pad_end[d] on are not even padding.
struct Window {
  int rank = 0;
  std::array<int64_t, kMaxSpatial> in{};
  std::array<int64_t, kMaxSpatial> out{};
  std::array<int64_t, kMaxSpatial> kernel{};
  std::array<int64_t, kMaxSpatial> stride{};
  std::array<int64_t, kMaxSpatial> pad_begin{};
  std::array<int64_t, kMaxSpatial> pad_end{};
  std::array<int64_t, kMaxSpatial> dilation{};

  using Sizes = std::array<int64_t, kMaxSpatial>;
  int64_t Elements(const Sizes& sizes) const {
    int64_t elements = 1;
    for (int d = 0; d < rank; ++d) elements *= sizes[static_cast<size_t>(d)];
    return elements;
  }
  // The place of element `index` among `sizes`, row-major.
  Sizes PlaceOf(const Sizes& sizes, int64_t index) const {
    Sizes place{};
    for (int d = rank - 1; d >= 0; --d) {
      const auto axis = static_cast<size_t>(d);
      place[axis] = index % sizes[axis];
      index /= sizes[axis];
    }
    return place;
  }
  // The next place along the first `axes` axes.
  static void Advance(Sizes& place, const Sizes& sizes, int axes) {
    for (int d = axes - 1; d >= 0; --d) {
      const auto axis = static_cast<size_t>(d);
      if (++place[axis] < sizes[axis]) return;
      place[axis] = 0;
    }
  }
  int64_t Position(int d, int64_t out_place, int64_t kernel_place) const {
    const auto axis = static_cast<size_t>(d);
    return out_place * stride[axis] - pad_begin[axis] + kernel_place * dilation[axis];
  }
};

}  // namespace millpower::kernels
