#include "kernels/tensor/topk.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>

#include "kernels/tensor/element.h"

namespace millpower::kernels {
namespace {

bool Better(const RankedItem& a, const RankedItem& b) {
  return a.key != b.key ? a.key > b.key : a.index < b.index;
}

// An integer that orders like the value: the bits of a float order like sign and magnitude.
template <typename T>
auto KeyOf(T value) {
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
    using Key = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;
    const Key bits = std::bit_cast<Key>(value + 0);  // -0 becomes 0
    if (value != value) return std::numeric_limits<Key>::max();
    return bits >= 0 ? bits : static_cast<Key>(bits ^ std::numeric_limits<Key>::max());
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    return std::bit_cast<int64_t>(value ^ (uint64_t{1} << 63));
  } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, uint32_t>) {
    return static_cast<int64_t>(value);
  } else {
    return static_cast<int32_t>(value);
  }
}

template <DType kType, bool kLargest>
void TopKOf(const std::byte* bytes, int64_t n, int64_t k, int64_t* y,
            std::span<RankedItem> scratch) {
  const auto* x = reinterpret_cast<const typename Element<kType>::Stored*>(bytes);
  const auto key_of = [](auto stored) {
    const auto key = KeyOf(Element<kType>::Widen(stored));
    return kLargest ? key : static_cast<decltype(key)>(~key);
  };
  using Key = decltype(key_of(x[0]));
  const int64_t capacity = std::ssize(scratch);
  RankedItem* const items = scratch.data();
  int64_t held = 0;
  bool full = false;  // k items at least have been seen; those not above `least` cannot be chosen
  Key least = 0;
  auto least_value = Element<kType>::Widen(x[0]);
  const auto consider = [&](int64_t i) {
    const Key key = key_of(x[i]);
    if (full && key <= least) return;
    items[held++] = {key, i};
    if (held < capacity || i + 1 == n) return;
    std::nth_element(items, items + (k - 1), items + held, Better);
    held = k;
    full = true;
    least = static_cast<Key>(items[k - 1].key);
    least_value = Element<kType>::Widen(x[items[k - 1].index]);
  };
  // Most of a long list is passed over, in blocks whose comparisons take no branches. A NaN, on
  // either side, is left to the keys.
  constexpr int64_t kBlock = 64;
  int64_t i = 0;
  while (i < n) {
    const int64_t end = std::min(n, i + kBlock);
    if (full && end - i == kBlock) {
      int any = 0;
      for (int64_t j = 0; j < kBlock; ++j) {
        const auto value = Element<kType>::Widen(x[i + j]);
        any |= (kLargest ? value <= least_value : value >= least_value) ? 0 : 1;
      }
      if (any == 0) {
        i = end;
        continue;
      }
    }
    for (; i < end; ++i) consider(i);
  }
  std::partial_sort(items, items + k, items + held, Better);
  for (int64_t j = 0; j < k; ++j) y[j] = items[j].index;
}

}  // namespace

int64_t TopKCapacity(int64_t n, int64_t k) { return std::min(n, 2 * k + 256); }

void TopK(DType type, const std::byte* x, int64_t n, int64_t k, bool largest, int64_t* y,
          std::span<RankedItem> scratch) {
  if (k <= 0) return;
  scratch = scratch.first(static_cast<size_t>(TopKCapacity(n, k)));
  WithElement(type, [&]<DType kType>() {
    if (largest)
      TopKOf<kType, true>(x, n, k, y, scratch);
    else
      TopKOf<kType, false>(x, n, k, y, scratch);
  });
}

}  // namespace millpower::kernels
