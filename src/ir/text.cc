#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/expression.h"
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
  if (!weight.values.empty() || !weight.literal.empty()) return " computed";
  if (weight.slices.empty()) return "";
  const TensorSlice& first = weight.slices.front();
  std::string text =
      fmt::format(" from {}[{}:{}", first.tensor, first.first_row, first.first_row + first.rows);
  if (first.cols > 0) text += fmt::format(", {}:{}", first.first_col, first.first_col + first.cols);
  text += "]";
  if (weight.slices.size() > 1) text += fmt::format(" and {} more", weight.slices.size() - 1);
  return text;
}

std::string ToText(int64_t value) { return std::to_string(value); }
std::string ToText(double value) { return fmt::format("{}", value); }
std::string ToText(const Shape& shape) { return ir::ToString(shape); }
std::string ToText(const std::vector<int64_t>& list) {
  return fmt::format("[{}]", fmt::join(list, ", "));
}

// Expressions are printed as such, not as the integers they are kept as.
std::string ToText(const Graph& graph, const Node& node, const std::string& name,
                   const Attribute& attribute) {
  if (node.op == Op::kMap && name == "code") {
    std::vector<DType> types;
    for (const ValueId input : node.inputs) types.push_back(graph.value(input).dtype);
    const auto expression =
        Expression::Decode(ListAttribute(node, "code"), types, static_cast<int>(kMaxRank),
                           static_cast<int>(ShapeAttribute(node, "sizes").size()));
    if (expression) return expression->ToString();
  }
  return std::visit([](const auto& value) { return ToText(value); }, attribute);
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
    text += " " + name + "=" + ToText(graph, node, name, attribute);
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
  if (graph.ranks != 1) text += fmt::format("ranks {}\n", graph.ranks);
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
