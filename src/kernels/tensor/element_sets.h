// What the files of the element kernels share: those of each set. A set of a newer processor has
// what is worth it, and null for the rest, which comes from the baseline.
#pragma once

#include "kernels/tensor/elements.h"

namespace millpower::kernels {

// Null when the compiler's target has no such instructions. Constants, so that reading them runs no
// code of files that are compiled for a newer processor.
extern const ElementKernels* const kAvx2Elements;
extern const ElementKernels* const kAvx512Elements;

}  // namespace millpower::kernels
