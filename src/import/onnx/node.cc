#include "import/onnx/node.h"

#include <fmt/format.h>

#include "import/onnx/importer.h"

namespace millpower::import::onnx {
namespace {

// AttributeProto.AttributeType
constexpr int32_t kFloat = 1, kInt = 2, kString = 3, kTensor = 4, kGraph = 5, kFloats = 6,
                  kInts = 7, kStrings = 8;

// Files before IR version 3 leave the type out.
bool HasType(const AttributeProto& attribute, int32_t type) {
  if (attribute.type() != 0) return attribute.type() == type;
  switch (type) {
    case kFloat:
      return attribute.has_f();
    case kInt:
      return attribute.has_i();
    case kString:
      return attribute.has_s();
    case kTensor:
      return attribute.has_t();
    case kGraph:
      return attribute.has_g();
    case kFloats:
      return attribute.floats_size() > 0;
    case kInts:
      return attribute.ints_size() > 0;
    default:
      return attribute.strings_size() > 0;
  }
}

}  // namespace

std::unexpected<Error> Unsupported(std::string message) {
  return Fail(ErrorCode::kUnsupported, std::move(message));
}
std::unexpected<Error> Invalid(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

Value Value::Sequence(std::vector<Tensor> list, DType dtype) {
  Value value;
  value.kind = Kind::kSequence;
  value.list = std::move(list);
  value.dtype = dtype;
  return value;
}

Value Value::Rows(Tensor x) {
  Value value(x);
  value.kind = Kind::kRows;
  return value;
}

Value Value::Empty() {
  Value value;
  value.kind = Kind::kEmpty;
  return value;
}

Value Value::Poisoned() {
  Value value;
  value.kind = Kind::kPoisoned;
  return value;
}

Node::Node(Importer& importer, const NodeProto& proto, Scope& scope, int64_t version, Values inputs)
    : b(importer.builder()),
      importer_(importer),
      proto_(proto),
      scope_(scope),
      version_(version),
      inputs_(std::move(inputs)) {}

Result<std::vector<Tensor>> Node::All() const {
  std::vector<Tensor> tensors;
  for (const Value& value : inputs_) {
    if (value.kind != Value::Kind::kTensor) return Invalid("an operand is missing");
    tensors.push_back(value.tensor);
  }
  return tensors;
}

const AttributeProto* Node::Find(const std::string& name) const {
  for (const AttributeProto& attribute : proto_.attribute()) {
    if (attribute.name() != name) continue;
    if (attribute.ref_attr_name().empty()) return &attribute;
    if (scope_.attributes == nullptr) return nullptr;
    const auto found = scope_.attributes->find(attribute.ref_attr_name());
    return found == scope_.attributes->end() ? nullptr : &found->second;
  }
  return nullptr;
}

const AttributeProto* Node::Typed(const std::string& name, int32_t type) const {
  const AttributeProto* attribute = Find(name);
  if (attribute == nullptr || HasType(*attribute, type)) return attribute;
  malformed_ = "attribute '" + name + "' is not of its type";
  return nullptr;
}

int64_t Node::Int(const std::string& name, int64_t otherwise) const {
  const AttributeProto* attribute = Typed(name, kInt);
  return attribute == nullptr ? otherwise : attribute->i();
}

double Node::Real(const std::string& name, double otherwise) const {
  const AttributeProto* attribute = Typed(name, kFloat);
  return attribute == nullptr ? otherwise : static_cast<double>(attribute->f());
}

std::string Node::Text(const std::string& name, std::string otherwise) const {
  const AttributeProto* attribute = Typed(name, kString);
  return attribute == nullptr ? std::move(otherwise) : attribute->s();
}

std::vector<int64_t> Node::Ints(const std::string& name, std::vector<int64_t> otherwise) const {
  const AttributeProto* attribute = Typed(name, kInts);
  if (attribute == nullptr) return otherwise;
  return {attribute->ints().begin(), attribute->ints().end()};
}

std::vector<double> Node::Reals(const std::string& name) const {
  const AttributeProto* attribute = Typed(name, kFloats);
  if (attribute == nullptr) return {};
  return {attribute->floats().begin(), attribute->floats().end()};
}

std::vector<std::string> Node::Texts(const std::string& name) const {
  const AttributeProto* attribute = Typed(name, kStrings);
  if (attribute == nullptr) return {};
  return {attribute->strings().begin(), attribute->strings().end()};
}

const TensorProto* Node::TensorAttribute(const std::string& name) const {
  const AttributeProto* attribute = Typed(name, kTensor);
  return attribute == nullptr ? nullptr : &attribute->t();
}

const GraphProto* Node::GraphAttribute(const std::string& name) const {
  const AttributeProto* attribute = Typed(name, kGraph);
  return attribute == nullptr ? nullptr : &attribute->g();
}

Result<DType> Node::TypeAttribute(const std::string& name, DType otherwise) const {
  const AttributeProto* attribute = Typed(name, kInt);
  if (attribute == nullptr) return otherwise;
  const auto type = attribute->i() > 1000 ? -1 : static_cast<int32_t>(attribute->i());
  const auto dtype = ElementType(type);
  if (!dtype) return Unsupported("elements of " + TypeName(type));
  return *dtype;
}

Result<std::vector<int64_t>> Node::Integers(size_t i, const char* what) const {
  if (!has(i)) return Invalid(std::string(what) + " is missing");
  if (auto known = b.KnownIntegers(in(i))) return *std::move(known);
  return Unsupported(std::string(what) + " is known only when the model runs");
}

Result<std::vector<Size>> Node::Sizes(size_t i, const char* what) const {
  if (!has(i)) return Invalid(std::string(what) + " is missing");
  if (auto known = b.KnownSizes(in(i))) return *std::move(known);
  return Unsupported(std::string(what) + " is known only when the model runs");
}

Result<std::vector<double>> Node::Reals(size_t i, const char* what) const {
  if (!has(i)) return Invalid(std::string(what) + " is missing");
  if (auto known = b.KnownReals(in(i))) return *std::move(known);
  return Unsupported(std::string(what) + " is known only when the model runs");
}

Result<int64_t> Node::Integer(size_t i, const char* what) const {
  TRY_ASSIGN(const std::vector<int64_t> known, Integers(i, what));
  if (known.size() != 1) return Invalid(std::string(what) + " is not one number");
  return known[0];
}

Result<std::optional<std::vector<int64_t>>> Node::IntegersSince(int64_t since, size_t i,
                                                                const char* name) const {
  if (version_ >= since) {
    if (!has(i)) return std::nullopt;
    TRY_ASSIGN(std::vector<int64_t> known, Integers(i, name));
    return std::optional(std::move(known));
  }
  if (!HasAttribute(name)) return std::nullopt;
  return std::optional(Ints(name));
}

Result<int> Node::Axis(const std::string& name, int64_t otherwise, int rank) const {
  return b.Axis(Int(name, otherwise), rank);
}

Result<std::vector<int>> Node::CheckedAxes(std::span<const int64_t> axes, int rank) const {
  std::vector<int> checked;
  for (const int64_t axis : axes) {
    TRY_ASSIGN(const int one, b.Axis(axis, rank));
    for (const int other : checked)
      if (other == one) return Invalid(fmt::format("axis {} is named twice", axis));
    checked.push_back(one);
  }
  return checked;
}

Result<int64_t> Node::ConstantDim(Tensor x, int axis) const {
  const Size size = b.dim(x, axis);
  if (const auto constant = size.Constant()) return *constant;
  return Unsupported(fmt::format("axis {} is '{}', where only a constant size is supported", axis,
                                 size.ToString()));
}

Result<std::vector<int64_t>> Node::ConstantShape(Tensor x) const {
  std::vector<int64_t> shape;
  for (int i = 0; i < b.rank(x); ++i) {
    TRY_ASSIGN(const int64_t size, ConstantDim(x, i));
    shape.push_back(size);
  }
  return shape;
}

std::optional<ir::Shape> Node::DeclaredShape(size_t output) const {
  if (!wants(output)) return std::nullopt;
  const auto found = scope_.declared.find(proto_.output(static_cast<int>(output)));
  if (found == scope_.declared.end()) return std::nullopt;
  const TypeProto::Tensor& type = found->second->tensor_type();
  if (!type.has_shape()) return std::nullopt;
  ir::Shape shape;
  for (const auto& dim : type.shape().dim()) {
    if (dim.dim_value() > 0) {
      shape.push_back(ir::Constant(dim.dim_value()));
    } else if (const auto symbol = importer_.SymbolOf(dim.dim_param())) {
      shape.push_back(ir::DimOf(*symbol));
    } else {
      return std::nullopt;
    }
  }
  return shape;
}

void Node::NoteDeclared(const char* what) const {
  importer_.Note(
      fmt::format("{} '{}': {} given only when the model runs is taken to be what the "
                  "declared shape of '{}' says",
                  proto_.op_type(), proto_.name(), what, proto_.output(0)));
}

Result<Tensor> Node::Constant(const TensorProto& tensor, const std::string& name) const {
  return importer_.Constant(tensor, name);
}

bool Node::IsTable(Tensor x) const { return importer_.IsTable(x); }

Result<Values> Node::Run(const GraphProto& graph, const Values& inputs) const {
  return importer_.RunGraph(graph, scope_, inputs);
}

}  // namespace millpower::import::onnx
