// Embedding bags as PyTorch's exporters write them: a loop over the bags, whose number is symbolic.
#pragma once

#include <optional>

#include "import/onnx/node.h"

namespace millpower::import::onnx {

// The outputs of a Loop node that sums, averages or takes the largest of the rows of a table from
// offsets[i] up to offsets[i + 1] in each iteration i; absent when the loop is anything else.
Result<std::optional<Values>> EmbeddingBagLoop(Node& n);

}  // namespace millpower::import::onnx
