// Declaring values, naming them, making known ones values of the graph, and building.
#include "import/tensor/builder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "base/check.h"
#include "import/tensor/known.h"

namespace millpower::import {
namespace {

// What names of graphs, Programs and sizes may hold.
std::string Sanitise(std::string_view text) {
  std::string name;
  for (const char c : text.substr(0, 96)) {
    const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '.';
    name += fine ? c : '_';
  }
  return name.empty() ? "_" : name;
}

}  // namespace

TensorBuilder::TensorBuilder(std::string graph_name) { graph_.name = Sanitise(graph_name); }

// ---- declaring ----

void TensorBuilder::AddSymbol(const std::string& name, int64_t max) { graph_.AddSymbol(name, max); }

std::string TensorBuilder::SymbolName(std::string_view text) {
  const auto found = symbol_names_.find(text);
  if (found != symbol_names_.end()) return found->second;
  std::string name = Sanitise(text);
  if ((name[0] >= '0' && name[0] <= '9') || name[0] == '.') name = "s" + name;
  const auto is_taken = [this](const std::string& candidate) {
    return std::ranges::any_of(symbol_names_,
                               [&](const auto& entry) { return entry.second == candidate; });
  };
  const std::string stem = name;
  for (int i = 2; is_taken(name); ++i) name = stem + "_" + std::to_string(i);
  symbol_names_.emplace(text, name);
  return name;
}

std::string TensorBuilder::NewName(std::string_view hint) {
  const std::string stem = Sanitise(hint);
  std::string name = stem;
  int& count = names_[stem];
  while (graph_.FindValue(name) != ir::kNoValue) name = stem + "-" + std::to_string(++count);
  return name;
}

Tensor TensorBuilder::Add(Entry entry) {
  entries_.push_back(std::move(entry));
  return {static_cast<int32_t>(entries_.size()) - 1};
}

Tensor TensorBuilder::AddKnown(DType dtype, ir::Shape shape, std::vector<Size> sizes) {
  return Add({.dtype = dtype, .shape = std::move(shape), .sizes = std::move(sizes)});
}

Tensor TensorBuilder::AddKnown(DType dtype, ir::Shape shape, std::vector<double> reals) {
  return Add({.dtype = dtype, .shape = std::move(shape), .reals = std::move(reals)});
}

Tensor TensorBuilder::Input(std::string_view public_name, DType dtype, ir::Shape shape) {
  std::string name = NewName(public_name);
  const ir::ValueId value = graph_.AddInput(name, dtype, shape);
  inputs_.push_back({std::string(public_name), std::move(name)});
  return Add({.value = value, .dtype = dtype, .shape = std::move(shape)});
}

Tensor TensorBuilder::Weight(const std::string& tensor, DType dtype,
                             const std::vector<int64_t>& shape) {
  ir::Shape dims;
  int64_t rows = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    dims.push_back(ir::Constant(shape[i]));
    if (i + 1 < shape.size()) rows *= shape[i];
  }
  const bool is_scalar = dims.empty();
  const ir::Shape declared = is_scalar ? ir::Shape{ir::Constant(1)} : dims;
  const ir::ValueId value = graph_.AddWeight(NewName(tensor), dtype, declared);
  graph_.SetSlices(value, {{tensor, 0, rows}});
  const Tensor weight = Add({.value = value, .dtype = dtype, .shape = declared});
  if (!is_scalar || !IsElementType(dtype)) return weight;
  return Reshape(weight, ir::Shape{}).value_or(weight);
}

Result<Tensor> TensorBuilder::Constant(DType dtype, const std::vector<int64_t>& shape,
                                       std::span<const std::byte> bytes) {
  if (!IsElementType(dtype))
    return Fail(ErrorCode::kUnsupported, std::string("a constant of ") + Name(dtype));
  int64_t elements = 1;
  ir::Shape dims;
  for (const int64_t size : shape) {
    if (size < 0 || (size > 0 && elements > (int64_t{1} << 40) / size))
      return Fail(ErrorCode::kInvalidArgument, "a constant has a shape that is not sound");
    elements *= size;
    dims.push_back(ir::Constant(size));
  }
  if (shape.size() > ir::kMaxRank)
    return Fail(ErrorCode::kUnsupported, "a constant has more than 8 dimensions");
  if (static_cast<int64_t>(bytes.size()) != elements * SizeBytes(dtype))
    return Fail(ErrorCode::kInvalidArgument, "a constant has " + std::to_string(bytes.size()) +
                                                 " bytes, not those of its shape");
  if (elements <= kMaxKnown) {
    if (IsFloat(dtype)) return AddKnown(dtype, std::move(dims), RealsOf(dtype, bytes));
    std::vector<Size> sizes;
    for (const int64_t value : IntegersOf(dtype, bytes)) sizes.emplace_back(value);
    return AddKnown(dtype, std::move(dims), std::move(sizes));
  }
  const ir::ValueId value =
      graph_.AddLiteral(NewName("constant"), dtype, shape, {bytes.begin(), bytes.end()});
  return Add({.value = value, .dtype = dtype, .shape = std::move(dims)});
}

Tensor TensorBuilder::Scalar(DType dtype, double value) {
  if (IsFloat(dtype)) return AddKnown(dtype, {}, std::vector{RoundTo(dtype, value)});
  return AddKnown(dtype, {}, std::vector<Size>{ToInteger(dtype, value)});
}

Tensor TensorBuilder::Sizes(const std::vector<Size>& sizes, DType dtype) {
  return AddKnown(dtype, {ir::Constant(static_cast<int64_t>(sizes.size()))}, sizes);
}

Tensor TensorBuilder::SizeScalar(const Size& size, DType dtype) {
  return AddKnown(dtype, {}, std::vector{size});
}

Result<void> TensorBuilder::Output(std::string_view public_name, Tensor x) {
  if (std::ranges::any_of(outputs_,
                          [&](const Named& out) { return out.public_name == public_name; }))
    return Fail(ErrorCode::kInvalidArgument,
                "output '" + std::string(public_name) + "' is there twice");
  TRY_ASSIGN(ir::ValueId value, ValueOf(x));
  const auto& outputs = graph_.outputs();
  if (graph_.value(value).kind != ir::ValueKind::kNode ||
      std::ranges::find(outputs, value) != outputs.end()) {
    Expression copy;
    copy.Load(0, dtype(x));
    TRY_ASSIGN(const Tensor own,
               Node(ir::Op::kMap, std::span(&x, 1),
                    {{"code", copy.Encode()}, {"sizes", ir::Shape{}}, {"shape", shape(x)}}));
    value = entry(own).value;
  }
  graph_.AddOutput(value);
  outputs_.push_back({std::string(public_name), graph_.value(value).name});
  return {};
}

// ---- asking ----

DType TensorBuilder::dtype(Tensor x) const { return entry(x).dtype; }
const ir::Shape& TensorBuilder::shape(Tensor x) const { return entry(x).shape; }

Size TensorBuilder::dim(Tensor x, int axis) const {
  const ir::Shape& dims = shape(x);
  const auto rank = static_cast<int>(dims.size());
  if (axis < 0) axis += rank;
  CHECK(axis >= 0 && axis < rank) << axis;
  return ir::SizeOf(dims[static_cast<size_t>(axis)]);
}

std::optional<std::vector<Size>> TensorBuilder::KnownSizes(Tensor x) const {
  return entry(x).sizes;
}

std::optional<std::vector<int64_t>> TensorBuilder::KnownIntegers(Tensor x) const {
  if (!entry(x).sizes) return std::nullopt;
  std::vector<int64_t> values;
  for (const Size& size : *entry(x).sizes) {
    const std::optional<int64_t> value = size.Constant();
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

std::optional<std::vector<double>> TensorBuilder::KnownReals(Tensor x) const {
  if (entry(x).reals) return entry(x).reals;
  const auto integers = KnownIntegers(x);
  if (!integers) return std::nullopt;
  return std::vector<double>(integers->begin(), integers->end());
}

std::optional<std::vector<int64_t>> TensorBuilder::ConstantShape(Tensor x) const {
  std::vector<int64_t> sizes;
  for (const ir::Dim& dim : shape(x)) {
    if (!dim.symbol.empty()) return std::nullopt;
    sizes.push_back(dim.size);
  }
  return sizes;
}

Result<int> TensorBuilder::Axis(int64_t axis, int rank) const {
  if (axis >= -rank && axis < rank) return static_cast<int>(axis < 0 ? axis + rank : axis);
  return Fail(ErrorCode::kInvalidArgument,
              "axis " + std::to_string(axis) + " of a tensor of rank " + std::to_string(rank));
}

// ---- values and nodes ----

Result<ir::ValueId> TensorBuilder::ValueOf(Tensor x) {
  CHECK(x.present()) << "an absent tensor is used";
  if (entry(x).value != ir::kNoValue) return entry(x).value;
  const Entry known = entry(x);
  const auto shape_sizes = ConstantShape(x);
  CHECK(shape_sizes) << "a known value has a constant shape";
  if (std::ranges::find(*shape_sizes, 0) != shape_sizes->end())
    return Fail(ErrorCode::kUnsupported, "a tensor without elements is computed with");
  ir::ValueId value = ir::kNoValue;
  if (known.reals) {
    value = graph_.AddLiteral(NewName("constant"), known.dtype, *shape_sizes,
                              ToBytes(known.dtype, *known.reals));
  } else if (const auto integers = KnownIntegers(x)) {
    value = graph_.AddLiteral(NewName("constant"), known.dtype, *shape_sizes,
                              ToBytes(known.dtype, *integers));
  } else {
    TRY_ASSIGN(const Tensor made, SizesAsNode(known));
    value = entry(made).value;
  }
  entries_[static_cast<size_t>(x.id)].value = value;
  return value;
}

// Symbolic sizes as numbers: element i of a list is chosen by its coordinate.
Result<Tensor> TensorBuilder::SizesAsNode(const Entry& known) {
  if (known.shape.size() > 1 || known.sizes->size() > 16)
    return Fail(ErrorCode::kUnsupported, "symbolic sizes are computed with as a large tensor");
  Expression expression;
  ir::Shape sizes;
  int16_t result = -1;
  for (size_t i = 0; i < known.sizes->size(); ++i) {
    const Size& size = (*known.sizes)[i];
    int16_t term = -1;
    if (const auto constant = size.Constant()) {
      term = expression.Constant(DType::kI64, *constant);
    } else {
      sizes.push_back(ir::DimOf(size));
      term = expression.Size(static_cast<int>(sizes.size()) - 1);
    }
    if (result < 0) {
      result = term;
      continue;
    }
    const int16_t here = expression.Constant(DType::kI64, static_cast<int64_t>(i));
    const int16_t is_here =
        expression.Apply(MapOp::kEqual, DType::kBool, {expression.Index(0), here});
    result = expression.Apply(MapOp::kSelect, DType::kI64, {is_here, term, result});
  }
  if (known.dtype != DType::kI64) expression.Apply(MapOp::kCast, known.dtype, {result});
  return Node(ir::Op::kMap, {},
              {{"code", expression.Encode()}, {"sizes", sizes}, {"shape", known.shape}});
}

Result<Tensor> TensorBuilder::Node(ir::Op op, std::span<const Tensor> operands,
                                   ir::Attributes attributes) {
  std::vector<ir::ValueId> inputs;
  for (const Tensor operand : operands) {
    if (!operand.present()) {
      inputs.push_back(ir::kNoValue);
      continue;
    }
    TRY_ASSIGN(const ir::ValueId value, ValueOf(operand));
    inputs.push_back(value);
  }
  if (graph_.nodes().size() >= kMaxNodes)
    return Fail(ErrorCode::kUnsupported,
                "the model has more than " + std::to_string(kMaxNodes) + " operations");
  TRY_ASSIGN(const ir::ValueId value,
             graph_.AddNode(op, NewName(ir::Name(op)), std::move(inputs), std::move(attributes)));
  const ir::Value& made = graph_.value(value);
  return Add({.value = value, .dtype = made.dtype, .shape = made.shape});
}

Result<TensorBuilder::Built> TensorBuilder::Build() && {
  std::vector<bool> needed(graph_.values().size(), false);
  for (const ir::ValueId output : graph_.outputs()) needed[static_cast<size_t>(output)] = true;
  std::vector<ir::Node> nodes;
  for (auto node = graph_.nodes().rbegin(); node != graph_.nodes().rend(); ++node) {
    if (!needed[static_cast<size_t>(node->output)]) continue;
    for (const ir::ValueId input : node->inputs)
      if (input != ir::kNoValue) needed[static_cast<size_t>(input)] = true;
    nodes.push_back(*node);
  }
  std::ranges::reverse(nodes);
  graph_.ReplaceNodes(std::move(nodes));
  TRY(ir::Verify(graph_));
  return Built{std::move(graph_), std::move(inputs_), std::move(outputs_)};
}

}  // namespace millpower::import
