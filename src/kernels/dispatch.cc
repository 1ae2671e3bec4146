#include <fmt/format.h>

#include "kernels/kernel_sets.h"
#include "kernels/kernels.h"

namespace millpower::kernels {
namespace {

// __builtin_cpu_supports also asks XGETBV whether the operating system saves the registers.
bool HasAvx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool HasAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

}  // namespace

const KernelSet* Avx2Kernels() { return HasAvx2() ? kAvx2Set : nullptr; }

const KernelSet* Avx512Kernels() { return HasAvx512() ? kAvx512Set : nullptr; }

std::vector<const KernelSet*> AvailableKernels() {
  std::vector<const KernelSet*> sets;
  for (const KernelSet* set : {Avx512Kernels(), Avx2Kernels(), &ScalarKernels()})
    if (set != nullptr) sets.push_back(set);
  return sets;
}

Result<const KernelSet*> SelectKernels(std::string_view name) {
  const std::vector<const KernelSet*> available = AvailableKernels();
  if (name == "auto") return available.front();
  for (const KernelSet* set : available)
    if (name == set->name) return set;
  if (name == "avx2")
    return Fail(ErrorCode::kUnsupported, "kernels avx2 need AVX2 FMA, which this machine lacks");
  if (name == "avx512")
    return Fail(ErrorCode::kUnsupported,
                "kernels avx512 need AVX512F AVX512BW AVX512VL, which this machine lacks");
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("no kernels named \"{}\"; there are auto, avx512, avx2, scalar", name));
}

}  // namespace millpower::kernels
