// Inputs and outputs of a model that TensorBuilder made.
#pragma once

#include <span>
#include <vector>

#include "import/tensor/builder.h"
#include "import/tensor/model.h"

namespace millpower::import {

// `names` are values of the graph. No lookups: none is of strings.
std::vector<Port> PortsOf(std::span<const TensorBuilder::Named> names, const ir::Graph& graph);

}  // namespace millpower::import
