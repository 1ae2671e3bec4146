#include "import/tensor/ports.h"

namespace millpower::import {

std::vector<Port> PortsOf(std::span<const TensorBuilder::Named> names, const ir::Graph& graph) {
  std::vector<Port> ports;
  for (const TensorBuilder::Named& named : names) {
    const ir::Value& value = graph.value(graph.FindValue(named.value));
    ports.push_back({named.public_name, named.value, value.dtype, false, value.shape});
  }
  return ports;
}

}  // namespace millpower::import
