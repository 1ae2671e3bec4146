// Windows of convolutions and pools, from a node's attributes.
#pragma once

#include <vector>

#include "import/onnx/node.h"

namespace millpower::import::onnx {

// Sizes of x [n, c, spatial ...] along its spatial axes, which must be constant.
Result<std::vector<int64_t>> SpatialSizes(Node& n, Tensor x);
// Of a weight [out, in, kernel ...].
Result<std::vector<int64_t>> KernelOfWeight(Node& n, Tensor weight);

// strides, dilations and pads, all checked to be one number for each axis and of a sane size.
// `auto_pad` is followed when `fits` is true.
Result<TensorBuilder::Window> WindowOf(Node& n, Tensor x, const std::vector<int64_t>& kernel,
                                       bool fits = true);
Result<TensorBuilder::Window> WindowOf(Node& n, const std::vector<int64_t>& in,
                                       const std::vector<int64_t>& kernel, bool fits = true);

}  // namespace millpower::import::onnx
