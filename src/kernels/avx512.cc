// The AVX-512 set of processors before VNNI.
#include "kernels/kernel_sets.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include "kernels/avx512_vector.h"

namespace millpower::kernels {
namespace {
constexpr KernelSet kSet = MakeKernelSet<Avx512>("avx512", "AVX512F AVX512BW AVX512VL");
}
constinit const KernelSet* const kAvx512Set = &kSet;
}  // namespace millpower::kernels

#else

namespace millpower::kernels {
constinit const KernelSet* const kAvx512Set = nullptr;
}  // namespace millpower::kernels

#endif
