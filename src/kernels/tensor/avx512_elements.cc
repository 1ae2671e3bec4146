// The element kernels for AVX-512, with or without VNNI.
#include "kernels/tensor/element_sets.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include "kernels/tensor/element_loops.h"

namespace millpower::kernels {
namespace {
constexpr ElementKernels kSet = MakeElementKernels("avx512", FindHotTerm, FindHotReduction);
}
constinit const ElementKernels* const kAvx512Elements = &kSet;
}  // namespace millpower::kernels

#else

namespace millpower::kernels {
constinit const ElementKernels* const kAvx512Elements = nullptr;
}  // namespace millpower::kernels

#endif
