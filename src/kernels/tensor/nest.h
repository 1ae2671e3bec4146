// Loop nests over several tensors at once: which axes can be walked as one, and places in them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace millpower::kernels {

inline constexpr int kNestAxes = 8;
inline constexpr int kNestTensors = 20;

using AxisSizes = std::array<int64_t, kNestAxes>;

// One tensor's strides, in elements; 0 along axes that it is broadcast over.
using AxisStrides = std::array<int64_t, kNestAxes>;

// The axes of a nest, outermost first. Neighbours are merged where every tensor allows it, and
// axes of one element are gone, so that a nest of contiguous tensors has one axis. At least one
// axis, of 1 when there is nothing to walk.
struct Nest {
  int rank = 0;
  int tensors = 0;
  AxisSizes dims{};
  std::array<AxisStrides, kNestTensors> strides{};

  int64_t inner() const { return dims[static_cast<size_t>(rank - 1)]; }
  int64_t inner_stride(int tensor) const {
    return strides[static_cast<size_t>(tensor)][static_cast<size_t>(rank - 1)];
  }
  // Whether the tensor's elements lie one after the other, in the nest's order.
  bool IsLinear(int tensor) const;
  int64_t Elements() const;
};

// Axes [0, rank) of `dims` of which bit i of `axes` is set.
Nest MakeNest(int rank, const AxisSizes& dims, std::span<const AxisStrides> tensors,
              uint32_t axes = ~0u);

// A place in a nest.
class Place {
 public:
  Place(const Nest& nest, int64_t index);

  int64_t coordinate(int axis) const { return coordinates_[static_cast<size_t>(axis)]; }
  int64_t inner() const { return coordinate(nest_.rank - 1); }
  int64_t Offset(int tensor) const;  // in elements
  void Advance(int64_t count);       // past the last element: to the first

 private:
  const Nest& nest_;
  AxisSizes coordinates_{};
};

// run(offset, done, count) for each run along the innermost axis of `count` elements of a tensor
// from `place` on; `done` elements came before it.
template <class Run>
void ForRuns(const Nest& nest, int tensor, Place place, int64_t count, const Run& run) {
  for (int64_t done = 0; done < count;) {
    const int64_t left = nest.inner() - place.inner();
    const int64_t length = left < count - done ? left : count - done;
    run(place.Offset(tensor), done, length);
    done += length;
    place.Advance(length);
  }
}

}  // namespace millpower::kernels
