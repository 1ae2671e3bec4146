// Kernels that do nothing: what is left of a launch is what it costs to issue its instructions.
#pragma once

#include "kernels/kernels.h"

namespace millpower::device::cpu {

const kernels::KernelSet& EmptyKernels();

}  // namespace millpower::device::cpu
