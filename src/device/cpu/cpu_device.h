// Runs Programs on this machine's processors: its streams in one proven order, each instruction
// spread over a team of threads by the kernels' own blocking.
#pragma once

#include <cstdint>
#include <memory>

#include "device/device.h"
#include "kernels/kernels.h"

namespace millpower::device::cpu {

struct CpuOptions {
  int threads = 1;                              // >= 1, the calling thread included
  const kernels::KernelSet* kernels = nullptr;  // null: the fastest this machine has
  // Not 0: runs the streams in another order that their semaphores allow, picked at random by this
  // seed. Results are the same; tests use it to show that.
  uint64_t order_seed = 0;
};

std::unique_ptr<Device> MakeCpuDevice(const CpuOptions& options);

}  // namespace millpower::device::cpu
