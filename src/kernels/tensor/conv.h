// Convolutions (cross-correlations) of images of up to kMaxSpatial spatial axes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "kernels/kernels.h"
#include "kernels/tensor/window.h"

namespace millpower::kernels {

// y[image, group * out_channels + o, place] = bias[...] + the sum over steps of w[..., step] *
// x[...], a step being (channel of the group, place in the kernel), row-major: the same sums as of
// ProductArgs, elements outside of x being 0, with the bias added to the sum before it is rounded.
struct ConvArgs {
  DType type = DType::kF32;
  const std::byte* x = nullptr;     // [images, groups * in_channels, in ...], contiguous
  const std::byte* w = nullptr;     // [groups * out_channels, in_channels, kernel ...], contiguous
  const std::byte* bias = nullptr;  // [groups * out_channels] or null
  std::byte* y = nullptr;           // [images, groups * out_channels, out ...], contiguous
  int64_t groups = 1;
  int64_t in_channels = 0;   // of a group
  int64_t out_channels = 0;  // of a group
  Window window{};
};

// Output places that are computed together.
inline constexpr int64_t kConvPlaces = 64;
inline constexpr int64_t kConvSteps = 256;
// Of one thread, 64-byte aligned.
inline constexpr int64_t kConvScratchFloats = kConvPlaces * kConvSteps;

// All output channels of a group of one image, at places [begin, end), end - begin <= kConvPlaces.
void ConvolvePlaces(const KernelSet& set, const ConvArgs& args, int64_t image, int64_t group,
                    int64_t begin, int64_t end, float* scratch);

}  // namespace millpower::kernels
