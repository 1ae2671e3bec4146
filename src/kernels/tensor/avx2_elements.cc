// The element kernels for AVX2.
#include "kernels/tensor/element_sets.h"

#if defined(__AVX2__) && defined(__FMA__)

#include "kernels/tensor/element_loops.h"

namespace millpower::kernels {
namespace {
constexpr ElementKernels kSet = MakeElementKernels("avx2", FindHotTerm, FindHotReduction);
}
constinit const ElementKernels* const kAvx2Elements = &kSet;
}  // namespace millpower::kernels

#else

namespace millpower::kernels {
constinit const ElementKernels* const kAvx2Elements = nullptr;
}  // namespace millpower::kernels

#endif
