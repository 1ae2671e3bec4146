#include <fmt/format.h>

#include "ir/graph.h"

namespace millpower::ir {
namespace {

std::string ToString(const Dim& dim) {
  return dim.symbol.empty() ? std::to_string(dim.size) : dim.symbol;
}

std::string Declaration(const Value& value) {
  std::string text = value.name + " " + ir::ToString(value.shape) + " " + Name(value.dtype);
  if (value.index_bound) text += " < " + ToString(*value.index_bound);
  return text;
}

// Where a weight's values are, if not in the tensor of its name.
std::string Origin(const Value& weight) {
  if (!weight.values.empty()) return " computed";
  if (weight.slices.empty()) return "";
  const TensorSlice& first = weight.slices.front();
  std::string text =
      fmt::format(" from {}[{}:{}]", first.tensor, first.first_row, first.first_row + first.rows);
  if (weight.slices.size() > 1) text += fmt::format(" and {} more", weight.slices.size() - 1);
  return text;
}

std::string ToString(const Graph& graph, const Node& node) {
  std::string operands;
  for (const ValueId input : node.inputs) {
    if (!operands.empty()) operands += ", ";
    operands += input == kNoValue ? "-" : graph.value(input).name;
  }
  std::string text =
      Declaration(graph.value(node.output)) + " = " + Name(node.op) + "(" + operands + ")";
  for (const auto& [name, attribute] : node.attributes)
    text += std::visit([&](auto value) { return fmt::format(" {}={}", name, value); }, attribute);
  return text;
}

}  // namespace

std::string ToString(const Shape& shape) {
  std::string text = "[";
  for (const Dim& dim : shape) text += (text.size() > 1 ? ", " : "") + ToString(dim);
  return text + "]";
}

std::string ToText(const Graph& graph) {
  std::vector<bool> used(graph.values().size(), false);
  for (const Node& node : graph.nodes())
    for (const ValueId input : node.inputs)
      if (input != kNoValue) used[static_cast<size_t>(input)] = true;

  std::string text = "graph " + graph.name + "\n";
  for (const auto& [name, fact] : graph.facts) text += fmt::format("fact {} = {}\n", name, fact);
  for (const SymbolBound& symbol : graph.symbols())
    text += fmt::format("symbol {} <= {}\n", symbol.name, symbol.max);
  for (const Value& value : graph.values())
    if (value.kind == ValueKind::kInput) text += "input " + Declaration(value) + "\n";
  for (size_t i = 0; i < used.size(); ++i)
    if (used[i] && graph.values()[i].kind == ValueKind::kWeight)
      text += "weight " + Declaration(graph.values()[i]) + Origin(graph.values()[i]) + "\n";
  for (const Node& node : graph.nodes()) text += ToString(graph, node) + "\n";
  for (const ValueId output : graph.outputs()) text += "output " + graph.value(output).name + "\n";
  return text;
}

}  // namespace millpower::ir
