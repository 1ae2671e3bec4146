#include "device/cpu/tensor/places.h"

#include <algorithm>

namespace millpower::device::cpu {

int64_t IndexRule::Outside(int64_t index, int64_t n) const {
  if (policy_ == IndexPolicy::kDefault) return -1;
  if (policy_ == IndexPolicy::kWrap && index < 0 && index >= -n) return index + n;
  if (policy_ == IndexPolicy::kClamp && n > 0) return std::clamp<int64_t>(index, 0, n - 1);
  Raise(index, n);
  return n > 0 ? 0 : -1;
}

}  // namespace millpower::device::cpu
