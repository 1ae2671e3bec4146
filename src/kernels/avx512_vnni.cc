// The AVX-512 set of processors with VNNI: Ice Lake, Zen 4 and later.
#include "kernels/kernel_sets.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512VNNI__)

#include "kernels/avx512_vector.h"

namespace millpower::kernels {
namespace {
constexpr KernelSet kSet =
    MakeKernelSet<Avx512>("avx512vnni", "AVX512F AVX512BW AVX512VL AVX512VNNI");
}
constinit const KernelSet* const kAvx512VnniSet = &kSet;
}  // namespace millpower::kernels

#else

namespace millpower::kernels {
constinit const KernelSet* const kAvx512VnniSet = nullptr;
}  // namespace millpower::kernels

#endif
