#include "kernels/tensor/scatter.h"

#include <cstring>

#include "kernels/tensor/element.h"

namespace millpower::kernels {
namespace {

template <Scattering kScattering, typename T>
T Combined(T old, T update) {
  using W = Wrapping<T>;
  if constexpr (kScattering == Scattering::kAdd)
    return static_cast<T>(static_cast<W>(old) + static_cast<W>(update));
  else if constexpr (kScattering == Scattering::kMul)
    return static_cast<T>(static_cast<W>(old) * static_cast<W>(update));
  else if constexpr (kScattering == Scattering::kMax)
    return IsNan(old) || old > update ? old : update;
  else
    return IsNan(old) || old < update ? old : update;
}

template <DType kType, Scattering kScattering>
void ScatterOf(std::byte* y_bytes, const std::byte* update_bytes, int64_t count) {
  using E = Element<kType>;
  if constexpr (kScattering == Scattering::kSet) {
    std::memcpy(y_bytes, update_bytes, static_cast<size_t>(count) * sizeof(typename E::Stored));
  } else {
    auto* y = reinterpret_cast<typename E::Stored*>(y_bytes);
    const auto* updates = reinterpret_cast<const typename E::Stored*>(update_bytes);
    for (int64_t i = 0; i < count; ++i)
      y[i] = E::Round(Combined<kScattering>(E::Widen(y[i]), E::Widen(updates[i])));
  }
}

}  // namespace

ScatterFunction ScatterFunctionOf(DType type, Scattering scattering) {
  return WithElement(type, [scattering]<DType kType>() -> ScatterFunction {
    switch (scattering) {
      case Scattering::kSet:
        return ScatterOf<kType, Scattering::kSet>;
      case Scattering::kAdd:
        return ScatterOf<kType, Scattering::kAdd>;
      case Scattering::kMul:
        return ScatterOf<kType, Scattering::kMul>;
      case Scattering::kMax:
        return ScatterOf<kType, Scattering::kMax>;
      case Scattering::kMin:
        return ScatterOf<kType, Scattering::kMin>;
    }
    std::unreachable();
  });
}

}  // namespace millpower::kernels
