#include <fmt/format.h>

#include "kernels/kernel_sets.h"
#include "kernels/kernels.h"

namespace millpower::kernels {
namespace {

// __builtin_cpu_supports also asks XGETBV whether the operating system saves the registers.
bool HasAvx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
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

bool HasAvx512Vnni() {
#if defined(__x86_64__)
  return HasAvx512() && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

// Fastest first, with what each needs.
struct Candidate {
  const char* name;
  const char* needs;
  const KernelSet* (*get)();
};
constexpr Candidate kCandidates[] = {
    {"avx512vnni", "AVX512F AVX512BW AVX512VL AVX512VNNI", Avx512VnniKernels},
    {"avx512", "AVX512F AVX512BW AVX512VL", Avx512Kernels},
    {"avx2", "AVX2 FMA F16C", Avx2Kernels},
};

}  // namespace

const KernelSet* Avx512VnniKernels() { return HasAvx512Vnni() ? kAvx512VnniSet : nullptr; }

const KernelSet* Avx2Kernels() { return HasAvx2() ? kAvx2Set : nullptr; }

const KernelSet* Avx512Kernels() { return HasAvx512() ? kAvx512Set : nullptr; }

std::vector<const KernelSet*> AvailableKernels() {
  std::vector<const KernelSet*> sets;
  for (const Candidate& candidate : kCandidates)
    if (const KernelSet* set = candidate.get()) sets.push_back(set);
  sets.push_back(&ScalarKernels());
  return sets;
}

Result<const KernelSet*> SelectKernels(std::string_view name) {
  const std::vector<const KernelSet*> available = AvailableKernels();
  if (name == "auto") return available.front();
  for (const KernelSet* set : available)
    if (name == set->name) return set;
  std::string names;
  for (const Candidate& candidate : kCandidates) {
    if (name == candidate.name)
      return Fail(
          ErrorCode::kUnsupported,
          fmt::format("kernels {} need {}, which this machine lacks", name, candidate.needs));
    names += fmt::format("{}, ", candidate.name);
  }
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("no kernels named \"{}\"; there are auto, {}scalar", name, names));
}

}  // namespace millpower::kernels
