#include "device/cpu/empty_kernels.h"

namespace millpower::device::cpu {

const kernels::KernelSet& EmptyKernels() {
  static constexpr kernels::KernelSet kEmpty = {
      .name = "empty",
      .instructions = "none",
      .matmul = [](const kernels::MatMulArgs&, int64_t, int64_t) {},
      .contract = [](const kernels::ContractArgs&) {},
      .pool_rows = [](const kernels::BagArgs&) {},
      .quantise = [](const kernels::QuantiseArgs&, int64_t, int64_t) {},
      .route = [](const kernels::RouteArgs&) {},
      .combine = [](const kernels::CombineArgs&, int64_t, int64_t) {},
      .rms_norm = [](const kernels::RmsNormArgs&, int64_t, int64_t) {},
      .rope_table = [](const kernels::RopeTableArgs&, int64_t, int64_t) {},
      .rope = [](const kernels::RopeArgs&, int64_t, int64_t) {},
      .kv_append = [](const kernels::KvAppendArgs&) {},
      .attention = [](const kernels::AttentionArgs&) {},
      .gather_packed = [](const std::byte*, DType, int64_t, int64_t, float*) {},
      .argmax = [](const float*, int64_t) { return int64_t{0}; },
      .sum_exp = [](const float*, int64_t, float, float) { return 0.0f; },
  };
  return kEmpty;
}

}  // namespace millpower::device::cpu
