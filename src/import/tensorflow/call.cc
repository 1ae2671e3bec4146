#include "import/tensorflow/call.h"

#include <fmt/format.h>

#include <unordered_map>

namespace millpower::import {
namespace {

// Operators with several named outputs (tensorflow/core/ops/*.cc); those with one, or with one list
// of them, need no entry.
struct OutputNames {
  std::string_view op;
  std::string_view names[6];
};
constexpr OutputNames kOutputNames[] = {
    {"TopKV2", {"values", "indices"}},
    {"FusedBatchNorm", {"y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"}},
    {"FusedBatchNormV2",
     {"y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"}},
    {"FusedBatchNormV3",
     {"y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2",
      "reserve_space_3"}},
    {"Unique", {"y", "idx"}},
    {"UniqueV2", {"y", "idx"}},
    {"UniqueWithCounts", {"y", "idx", "count"}},
    {"SparseFillEmptyRows",
     {"output_indices", "output_values", "empty_row_indicator", "reverse_index_map"}},
    {"SparseReshape", {"output_indices", "output_shape"}},
    {"RaggedTensorToSparse", {"sparse_indices", "sparse_values", "sparse_dense_shape"}},
    {"StringSplitV2", {"indices", "values", "shape"}},
    {"LookupTableExportV2", {"keys", "values"}},
    {"SoftmaxCrossEntropyWithLogits", {"loss", "backprop"}},
    {"MaxPoolWithArgmax", {"output", "argmax"}},
};

constexpr std::string_view kEffects[] = {
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
    "Assign",
    "AssignAdd",
    "AssignSub",
    "ResourceScatterAdd",
    "ResourceScatterUpdate",
    "ResourceScatterSub",
    "ResourceScatterMul",
    "ResourceScatterDiv",
    "ResourceScatterMin",
    "ResourceScatterMax",
    "ResourceScatterNdUpdate",
    "ResourceScatterNdAdd",
    "ResourceStridedSliceAssign",
    "LookupTableImportV2",
    "LookupTableInsertV2",
    "LookupTableRemoveV2",
    "InitializeTableV2",
    "InitializeTableFromTextFileV2",
};

std::unordered_map<std::string_view, const OpEntry*> AllOps() {
  std::unordered_map<std::string_view, const OpEntry*> all;
  for (const auto family :
       {MathOps(), LinearOps(), ShapeOps(), IndexOps(), ObjectOps(), ControlOps()})
    for (const OpEntry& entry : family) all.emplace(entry.name, &entry);
  return all;
}

}  // namespace

std::unexpected<Error> Unsupported(std::string message) {
  return Fail(ErrorCode::kUnsupported, std::move(message));
}

Values One(Tensor x) { return {Value{x}}; }

const OpEntry* FindOp(std::string_view name) {
  static const auto ops = AllOps();
  const auto found = ops.find(name);
  return found == ops.end() ? nullptr : found->second;
}

bool HasEffect(std::string_view op) {
  return std::ranges::find(kEffects, op) != std::end(kEffects);
}

int OutputOffset(std::string_view op, std::string_view output) {
  for (const OutputNames& outputs : kOutputNames) {
    if (outputs.op != op) continue;
    for (int i = 0; i < static_cast<int>(std::size(outputs.names)); ++i)
      if (outputs.names[i] == output) return i;
  }
  return 0;
}

// ---- operands ----

Result<const Value*> Call::At(int operand) const {
  if (operand < 0 || operand >= count())
    return Fail(ErrorCode::kCorrupt, fmt::format("has {} operands", count()));
  return &inputs[static_cast<size_t>(operand)];
}

Result<Tensor> Call::In(int operand) {
  TRY_ASSIGN(const Value* value, At(operand));
  if (const auto* tensor = value->As<Tensor>()) return *tensor;
  if (const auto* view = value->As<PortView>()) return state.TensorOf(*view);
  if (value->As<StringLiteral>()) return Unsupported("computes with strings");
  if (value->As<Stored>()) return Unsupported("computes with values while they are restored");
  return Unsupported("computes with a resource");
}

Result<std::vector<Tensor>> Call::InRange(int first, int end) {
  std::vector<Tensor> tensors;
  for (int i = first; i < end; ++i) {
    TRY_ASSIGN(tensors.emplace_back(), In(i));
  }
  return tensors;
}

Result<std::vector<Size>> Call::Sizes(int operand, const char* what) {
  TRY_ASSIGN(const Tensor x, In(operand));
  auto sizes = b.KnownSizes(x);
  if (!sizes) return Unsupported(fmt::format("its {} is not known when the model is loaded", what));
  return *std::move(sizes);
}

Result<std::vector<int64_t>> Call::Integers(int operand, const char* what) {
  TRY_ASSIGN(const std::vector<Size> sizes, Sizes(operand, what));
  std::vector<int64_t> integers;
  for (const Size& size : sizes) {
    const auto constant = size.Constant();
    if (!constant) return Unsupported(fmt::format("its {} depends on {}", what, size.ToString()));
    integers.push_back(*constant);
  }
  return integers;
}

Result<int64_t> Call::Integer(int operand, const char* what) {
  TRY_ASSIGN(const std::vector<int64_t> integers, Integers(operand, what));
  if (integers.size() != 1)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("its {} is {} numbers", what, integers.size()));
  return integers[0];
}

Result<ir::Shape> Call::Shape(int operand, const char* what) {
  TRY_ASSIGN(const std::vector<Size> sizes, Sizes(operand, what));
  ir::Shape shape;
  for (const Size& size : sizes) {
    if (!size.IsMonotone() || size.Constant().value_or(1) < 1)
      return Unsupported(fmt::format("its {} has a dimension of {}", what, size.ToString()));
    shape.push_back(ir::DimOf(size));
  }
  if (shape.size() > ir::kMaxRank) return Unsupported("more than 8 dimensions");
  return shape;
}

Result<int> Call::Axis(int operand, int rank) {
  TRY_ASSIGN(const int64_t axis, Integer(operand, "axis"));
  return b.Axis(axis, rank);
}

Result<Handle> Call::Resource(int operand, bool is_table) {
  TRY_ASSIGN(const Value* value, At(operand));
  const auto* handle = value->As<Handle>();
  if (!handle || state.resource(handle->resource).is_table != is_table)
    return Unsupported(is_table ? "its table is not one of the graph's"
                                : "its variable is not one of the graph's");
  return *handle;
}

// ---- attributes ----

const tensorflow::Attribute* Call::Find(const char* name) const {
  const auto found = node.attr().find(name);
  return found == node.attr().end() ? nullptr : &found->second;
}

int64_t Call::IntOr(const char* name, int64_t otherwise) const {
  const auto* attribute = Find(name);
  return attribute && attribute->has_i() ? attribute->i() : otherwise;
}

bool Call::BoolOr(const char* name, bool otherwise) const {
  const auto* attribute = Find(name);
  return attribute && attribute->has_b() ? attribute->b() : otherwise;
}

double Call::FloatOr(const char* name, double otherwise) const {
  const auto* attribute = Find(name);
  return attribute && attribute->has_f() ? static_cast<double>(attribute->f()) : otherwise;
}

std::string Call::StringOr(const char* name, const char* otherwise) const {
  const auto* attribute = Find(name);
  return attribute && attribute->has_s() ? attribute->s() : otherwise;
}

std::vector<int64_t> Call::Ints(const char* name) const {
  const auto* attribute = Find(name);
  if (!attribute || !attribute->has_list()) return {};
  return {attribute->list().i().begin(), attribute->list().i().end()};
}

Result<DType> Call::Type(const char* name) const {
  const auto* attribute = Find(name);
  const int type = attribute && attribute->has_type() ? attribute->type() : 0;
  const auto dtype = DTypeOf(type);
  if (!dtype) return Unsupported(fmt::format("{} is {}", name, TypeName(type)));
  return *dtype;
}

DType Call::TypeOr(const char* name, DType otherwise) const {
  const auto* attribute = Find(name);
  if (!attribute || !attribute->has_type()) return otherwise;
  return DTypeOf(attribute->type()).value_or(otherwise);
}

Result<std::string> Call::FunctionName(const char* name) const {
  const auto* attribute = Find(name);
  if (!attribute || !attribute->has_func())
    return Fail(ErrorCode::kCorrupt, fmt::format("has no function '{}'", name));
  return attribute->func().name();
}

}  // namespace millpower::import
