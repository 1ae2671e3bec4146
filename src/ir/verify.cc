#include <set>

#include "ir/graph.h"
#include "ir/op_table.h"

namespace millpower::ir {
namespace {

// Sizes of values are products of dimensions, so that offsets into any of them fit in 63 bits with
// room for element sizes and counts of buffers.
constexpr int64_t kMaxRanks = 1024;
constexpr int64_t kMaxElements = int64_t{1} << 48;

std::unexpected<Error> Invalid(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

// The largest size `dim` can have; -1 for a symbol that is not declared.
int64_t MaxSize(const Graph& graph, const Dim& dim) {
  return dim.symbol.empty() ? dim.size : graph.SymbolMax(dim.symbol);
}

// The slices of a weight give as many rows as it has, its dimensions but the last taken together.
Result<void> VerifySlices(const Graph& graph, const Value& value, int64_t elements) {
  if (value.slices.empty()) return {};
  if (value.kind != ValueKind::kWeight || !value.values.empty() || value.shape.empty())
    return Invalid("'" + value.name + "' has slices of tensors and is no weight of a file");
  int64_t left = elements / MaxSize(graph, value.shape.back());
  for (const TensorSlice& slice : value.slices) {
    if (slice.tensor.empty() || slice.first_row < 0 || slice.rows < 1 || slice.rows > left ||
        slice.first_row > kMaxElements)
      return Invalid("'" + value.name + "' has a slice of '" + slice.tensor +
                     "' that is not sound: it takes " + std::to_string(slice.rows) +
                     " rows from row " + std::to_string(slice.first_row));
    if (slice.first_col < 0 || slice.first_col > kMaxElements ||
        (slice.cols == 0 ? slice.first_col != 0 : slice.cols != MaxSize(graph, value.shape.back())))
      return Invalid("'" + value.name + "' has a slice of '" + slice.tensor +
                     "' that is not sound: it takes " + std::to_string(slice.cols) +
                     " columns from column " + std::to_string(slice.first_col));
    left -= slice.rows;
  }
  if (left == 0) return {};
  return Invalid("'" + value.name + "' has slices that leave out " + std::to_string(left) +
                 " of its rows");
}

Result<void> VerifyValue(const Graph& graph, const Value& value) {
  int64_t elements = 1;
  if (value.shape.size() > kMaxRank)
    return Invalid("'" + value.name + "' has more than " + std::to_string(kMaxRank) +
                   " dimensions");
  for (const Dim& dim : value.shape) {
    const int64_t max = MaxSize(graph, dim);
    if (max < 1)
      return Invalid("'" + value.name + "' " + ToString(value.shape) +
                     " has a dimension that is not positive, or not declared");
    if (max > kMaxElements / elements)
      return Invalid("'" + value.name + "' " + ToString(value.shape) +
                     " has more than 2^48 elements");
    elements *= max;
  }
  TRY(VerifySlices(graph, value, elements));
  if (!value.literal.empty() &&
      (value.kind != ValueKind::kWeight || !IsElementType(value.dtype) ||
       static_cast<int64_t>(value.literal.size()) != elements * SizeBytes(value.dtype)))
    return Invalid("'" + value.name + "' does not hold as many bytes as its shape says");
  if (!value.values.empty() && (value.kind != ValueKind::kWeight || value.dtype != DType::kF32 ||
                                static_cast<int64_t>(value.values.size()) != elements))
    return Invalid("'" + value.name + "' does not hold as many f32 values as its shape says");
  const bool is_index = value.dtype == DType::kI32 || value.dtype == DType::kI64;
  if (value.index_bound &&
      (value.kind != ValueKind::kInput || !is_index || MaxSize(graph, *value.index_bound) < 1))
    return Invalid("'" + value.name + "' has an index bound that is not sound");
  return {};
}

// Sizes that attributes name are declared, monotone, and not negative, whatever the symbols.
Result<void> VerifySizes(const Graph& graph, const Node& node) {
  for (const auto& [name, attribute] : node.attributes) {
    const auto* shape = std::get_if<Shape>(&attribute);
    if (shape == nullptr) continue;
    for (const Dim& dim : *shape)
      if (MaxSize(graph, dim) < 0 ||
          SizeOf(dim).Evaluate([](const std::string&) { return 1; }).value_or(-1) < 0)
        return Invalid(name + " " + ToString(*shape) +
                       " has a size that is negative, or not declared");
  }
  return {};
}

}  // namespace

Result<void> Verify(const Graph& graph) {
  if (graph.ranks < 1 || graph.ranks > kMaxRanks) return Invalid("ranks are not in 1..1024");
  std::vector<bool> defined;
  for (const Value& value : graph.values()) {
    TRY(VerifyValue(graph, value));
    defined.push_back(value.kind != ValueKind::kNode);
  }
  std::set<int64_t> layers;
  for (const Node& node : graph.nodes()) {
    if (node.output < 0 || static_cast<size_t>(node.output) >= defined.size())
      return Invalid(std::string(Name(node.op)) + " has no output");
    const Value& output = graph.value(node.output);
    const auto fail = [&](const std::string& message) {
      return Invalid("'" + output.name + "': " + Name(node.op) + ": " + message);
    };
    auto type = InferType(graph, node.op, node.inputs, node.attributes);
    if (!type) return FailAt("'" + output.name + "'", std::move(type).error());
    if (const auto sizes = VerifySizes(graph, node); !sizes) return fail(sizes.error().message);
    for (const ValueId input : node.inputs)
      if (input != kNoValue && !defined[static_cast<size_t>(input)])
        return fail("'" + graph.value(input).name + "' is used before it is produced");
    if (type->shape != output.shape)
      return fail("gives " + ToString(type->shape) + " where " + ToString(output.shape) +
                  " is declared");
    if (output.dtype != type->dtype)
      return fail(std::string("its output is declared ") + Name(output.dtype));
    if (defined[static_cast<size_t>(node.output)]) return fail("its output is produced twice");
    defined[static_cast<size_t>(node.output)] = true;
    if (node.op == Op::kAttention && !layers.insert(IntAttribute(node, "layer")).second)
      return fail("another attention fills the same layer's cache");
  }
  for (const ValueId output : graph.outputs())
    if (output < 0 || static_cast<size_t>(output) >= defined.size() ||
        !defined[static_cast<size_t>(output)])
      return Invalid("an output of the graph is never produced");
  return {};
}

}  // namespace millpower::ir
