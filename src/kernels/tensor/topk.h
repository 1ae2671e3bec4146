// The k best of a list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace millpower::kernels {

// A candidate: `key` orders like the values, larger is better.
struct RankedItem {
  int64_t key;
  int64_t index;
};

// How many candidates TopK holds at a time, of lists of up to n.
int64_t TopKCapacity(int64_t n, int64_t k);

// y[0 .. k-1] = the indices of the k largest of x[0 .. n-1] (or smallest), best first, of equals
// the lowest index first. A NaN counts as the largest; 0 and -0 are equal. k <= n; `scratch` has at
// least TopKCapacity(n, k) items.
void TopK(DType type, const std::byte* x, int64_t n, int64_t k, bool largest, int64_t* y,
          std::span<RankedItem> scratch);

}  // namespace millpower::kernels
