// Places in tensors, the plain way: for references in tests.
#pragma once

#include <cstdint>
#include <vector>

#include "base/dtype.h"
#include "base/rng.h"

namespace millpower::device::cpu {

using Place = std::vector<int64_t>;

inline int64_t Count(const Place& dims) {
  int64_t count = 1;
  for (const int64_t dim : dims) count *= dim;
  return count;
}
inline Place PlaceOf(const Place& dims, int64_t index) {
  Place place(dims.size());
  for (size_t d = dims.size(); d-- > 0;) {
    place[d] = index % dims[d];
    index /= dims[d];
  }
  return place;
}
inline size_t IndexOf(const Place& dims, const Place& place) {
  int64_t index = 0;
  for (size_t d = 0; d < dims.size(); ++d) index = index * dims[d] + place[d];
  return static_cast<size_t>(index);
}
inline Place RandomDims(Rng& rng, size_t rank, int64_t max) {
  Place dims(rank);
  for (int64_t& dim : dims) dim = static_cast<int64_t>(1 + rng.Below(static_cast<uint64_t>(max)));
  return dims;
}
inline Place Joined(Place a, const Place& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Place Part(const Place& a, size_t begin, size_t end) {
  return Place(a.begin() + static_cast<std::ptrdiff_t>(begin),
               a.begin() + static_cast<std::ptrdiff_t>(end));
}
template <typename T>
std::vector<T> RandomValues(Rng& rng, int64_t count, uint64_t below = 100) {
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(rng.Below(below));
  return values;
}
inline std::vector<float> RandomReals(Rng& rng, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = rng.Uniform(-1, 1);
  return values;
}

}  // namespace millpower::device::cpu
