#include "ir/graph.h"

#include "base/check.h"
#include "ir/op_table.h"

namespace millpower::ir {

Size SizeOf(const Dim& dim) {
  if (dim.symbol.empty()) return dim.size;
  return Size::Parse(dim.symbol).value_or(Size());
}

Dim DimOf(const Size& size) {
  if (const auto constant = size.Constant()) return Constant(*constant);
  return Symbol(size.ToString());
}

std::optional<Size> ElementsOf(const Shape& shape) {
  std::optional<Size> elements = Size(1);
  for (const Dim& dim : shape) {
    elements = elements->Times(SizeOf(dim));
    if (!elements) return std::nullopt;
  }
  return elements;
}

void Graph::AddSymbol(std::string name, int64_t max) {
  CHECK(SymbolMax(name) < 0) << "symbol '" << name << "' is declared twice";
  CHECK(max >= 1) << "symbol '" << name << "' has bound " << max;
  symbols_.push_back({std::move(name), max});
}

ValueId Graph::AddValue(Value value) {
  const auto id = static_cast<ValueId>(values_.size());
  const bool is_new = by_name_.emplace(value.name, id).second;
  CHECK(is_new) << "value '" << value.name << "' is declared twice";
  values_.push_back(std::move(value));
  return id;
}

ValueId Graph::AddInput(std::string name, DType dtype, Shape shape,
                        std::optional<Dim> index_bound) {
  return AddValue({.name = std::move(name),
                   .kind = ValueKind::kInput,
                   .dtype = dtype,
                   .shape = std::move(shape),
                   .index_bound = std::move(index_bound)});
}

ValueId Graph::AddWeight(std::string name, DType dtype, Shape shape, std::vector<float> values) {
  return AddValue({.name = std::move(name),
                   .kind = ValueKind::kWeight,
                   .dtype = dtype,
                   .shape = std::move(shape),
                   .values = std::move(values)});
}

ValueId Graph::AddLiteral(std::string name, DType dtype, const std::vector<int64_t>& shape,
                          std::vector<std::byte> literal) {
  Value value{.name = std::move(name), .kind = ValueKind::kWeight, .dtype = dtype};
  int64_t bytes = SizeBytes(dtype);
  for (const int64_t size : shape) {
    value.shape.push_back(Constant(size));
    bytes *= size;
  }
  CHECK(static_cast<int64_t>(literal.size()) == bytes) << value.name;
  value.literal = std::move(literal);
  return AddValue(std::move(value));
}

void Graph::SetSlices(ValueId weight, std::vector<TensorSlice> slices) {
  Value& value = values_.at(static_cast<size_t>(weight));
  CHECK(value.kind == ValueKind::kWeight) << "'" << value.name << "' is no weight";
  value.slices = std::move(slices);
}

Result<ValueId> Graph::AddNode(Op op, std::string output_name, std::vector<ValueId> inputs,
                               Attributes attributes) {
  const OpInfo& info = Info(op);
  for (size_t i = inputs.size();
       !info.variadic && i < info.operands.size() && info.operands[i].optional; ++i)
    inputs.push_back(kNoValue);
  auto type = InferType(*this, op, inputs, attributes);
  if (!type) return FailAt("'" + output_name + "'", std::move(type).error());
  const ValueId output = AddValue(
      {.name = std::move(output_name), .dtype = type->dtype, .shape = std::move(type->shape)});
  nodes_.push_back({op, std::move(inputs), output, std::move(attributes)});
  return output;
}

ValueId Graph::FindValue(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? kNoValue : found->second;
}

int64_t Graph::SymbolMax(const std::string& expression) const {
  for (const SymbolBound& symbol : symbols_)
    if (symbol.name == expression) return symbol.max;
  const auto size = Size::Parse(expression);
  if (!size || !size->IsMonotone()) return -1;
  return size
      ->Evaluate([this](const std::string& name) -> std::optional<int64_t> {
        for (const SymbolBound& symbol : symbols_)
          if (symbol.name == name) return symbol.max;
        return std::nullopt;
      })
      .value_or(-1);
}

int64_t IntAttribute(const Node& node, const std::string& name) {
  return std::get<int64_t>(node.attributes.at(name));
}

double FloatAttribute(const Node& node, const std::string& name) {
  return std::get<double>(node.attributes.at(name));
}

const std::vector<int64_t>& ListAttribute(const Node& node, const std::string& name) {
  return std::get<std::vector<int64_t>>(node.attributes.at(name));
}

const Shape& ShapeAttribute(const Node& node, const std::string& name) {
  return std::get<Shape>(node.attributes.at(name));
}

}  // namespace millpower::ir
