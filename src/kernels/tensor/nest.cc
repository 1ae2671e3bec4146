#include "kernels/tensor/nest.h"

#include <algorithm>

#include "base/check.h"

namespace millpower::kernels {
namespace {

size_t At(int axis) { return static_cast<size_t>(axis); }

}  // namespace

bool Nest::IsLinear(int tensor) const {
  int64_t expected = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    if (dims[At(axis)] != 1 && strides[At(tensor)][At(axis)] != expected) return false;
    expected *= dims[At(axis)];
  }
  return true;
}

int64_t Nest::Elements() const {
  int64_t elements = 1;
  for (int axis = 0; axis < rank; ++axis) elements *= dims[At(axis)];
  return elements;
}

Nest MakeNest(int rank, const AxisSizes& dims, std::span<const AxisStrides> tensors,
              uint32_t axes) {
  CHECK(rank <= kNestAxes && tensors.size() <= kNestTensors) << rank;
  Nest nest;
  nest.tensors = static_cast<int>(tensors.size());
  for (int axis = 0; axis < rank; ++axis) {
    const int64_t dim = dims[At(axis)];
    if ((axes >> axis & 1) == 0 || dim == 1) continue;
    const int last = nest.rank - 1;
    const bool joins = last >= 0 && std::ranges::all_of(tensors, [&](const AxisStrides& strides) {
                         const auto t = static_cast<size_t>(&strides - tensors.data());
                         return nest.strides[t][At(last)] == strides[At(axis)] * dim;
                       });
    const int to = joins ? last : nest.rank++;
    nest.dims[At(to)] = joins ? nest.dims[At(to)] * dim : dim;
    for (size_t t = 0; t < tensors.size(); ++t) nest.strides[t][At(to)] = tensors[t][At(axis)];
  }
  if (nest.rank == 0) nest.dims[At(nest.rank++)] = 1;
  return nest;
}

Place::Place(const Nest& nest, int64_t index) : nest_(nest) {
  for (int axis = nest.rank - 1; axis >= 0; --axis) {
    const int64_t dim = std::max<int64_t>(1, nest.dims[At(axis)]);
    coordinates_[At(axis)] = index % dim;
    index /= dim;
  }
}

int64_t Place::Offset(int tensor) const {
  int64_t offset = 0;
  for (int axis = 0; axis < nest_.rank; ++axis)
    offset += coordinates_[At(axis)] * nest_.strides[At(tensor)][At(axis)];
  return offset;
}

void Place::Advance(int64_t count) {
  for (int axis = nest_.rank - 1; axis >= 0 && count > 0; --axis) {
    const int64_t dim = nest_.dims[At(axis)];
    const int64_t at = coordinates_[At(axis)] + count;
    // Nearly always one step around at most: no division.
    count = at < dim ? 0 : at < 2 * dim ? 1 : at / dim;
    coordinates_[At(axis)] = at - count * dim;
  }
}

}  // namespace millpower::kernels
