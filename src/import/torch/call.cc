#include "import/torch/call.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "import/torch/strided.h"

namespace millpower::import::torch {
namespace {

// "-Infinity" and such are text, as JSON has no numbers for them.
std::optional<double> RealOf(const ProgramJson& json) {
  if (json.is_number()) return json.get<double>();
  if (!json.is_string()) return std::nullopt;
  const std::string& text = json.get_ref<const std::string&>();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  return std::nullopt;
}

enum Kind { kBoolKind, kWholeKind, kRealKind };
Kind KindOf(DType type) {
  if (type == DType::kBool) return kBoolKind;
  return IsFloat(type) ? kRealKind : kWholeKind;
}

// c10/core/ScalarType.cpp, promoteTypes, among whole numbers.
Result<DType> PromoteWhole(DType a, DType b) {
  if (SizeBytes(a) > SizeBytes(b)) std::swap(a, b);
  if (IsSignedInteger(a) == IsSignedInteger(b)) return b;
  if (IsUnsignedInteger(a) && a != DType::kU8 && b != DType::kU8)
    return NotSupported(std::string("promotion of ") + Name(a) + " and " + Name(b));
  if (IsSignedInteger(b) && SizeBytes(b) > SizeBytes(a)) return b;
  if (a == DType::kU8 || b == DType::kU8) {
    if (SizeBytes(b) == 1) return DType::kI16;
  }
  return NotSupported(std::string("promotion of ") + Name(a) + " and " + Name(b));
}

}  // namespace

Result<DType> Promote(DType a, DType b) {
  if (a == b) return a;
  if (KindOf(a) > KindOf(b)) std::swap(a, b);
  if (KindOf(a) < KindOf(b)) return b;
  if (KindOf(a) == kWholeKind) return PromoteWhole(a, b);
  if (SizeBytes(a) == SizeBytes(b)) return DType::kF32;  // f16 and bf16
  return SizeBytes(a) > SizeBytes(b) ? a : b;
}

Result<DType> ResultType(const TensorBuilder& b, std::span<const Operand> operands) {
  std::optional<DType> levels[3];  // with dimensions, without, numbers
  for (const Operand& operand : operands) {
    size_t level = 2;
    if (operand.tensor.present()) level = b.rank(operand.tensor) > 0 ? 0 : 1;
    if (!levels[level]) {
      levels[level] = operand.dtype;
      continue;
    }
    TRY_ASSIGN(levels[level], Promote(*levels[level], operand.dtype));
  }
  std::optional<DType> result;
  for (const std::optional<DType>& level : levels) {
    if (!level) continue;
    if (!result) {
      result = level;
    } else if (KindOf(*level) > KindOf(*result)) {
      TRY_ASSIGN(result, Promote(*result, *level));
    }
  }
  return result.value_or(DType::kF32);
}

size_t Call::output_count() const {
  size_t count = 0;
  for (const ProgramArgument& output : node_.outputs)
    count += output.value->is_array() ? output.value->size() : 1;
  return count;
}

const ProgramArgument* Call::Find(std::string_view name) const {
  const auto found = std::ranges::find(
      node_.inputs, name, [](const auto& input) { return std::string_view(input.first); });
  if (found == node_.inputs.end() || found->second.type == "as_none") return nullptr;
  if (found->second.type == "as_optional_tensor" && found->second.value->contains("as_none"))
    return nullptr;
  return &found->second;
}

Result<const ProgramArgument*> Call::Need(std::string_view name) const {
  if (const ProgramArgument* found = Find(name)) return found;
  return Fail(ErrorCode::kCorrupt, "argument '" + std::string(name) + "' is missing");
}

std::unexpected<Error> Call::Wrong(std::string_view name, const char* expected) const {
  const ProgramArgument* found = Find(name);
  return Fail(ErrorCode::kCorrupt, "argument '" + std::string(name) + "' is " +
                                       std::string(found ? found->type : "missing") + ", not " +
                                       expected);
}

Result<Tensor> Call::TensorAt(std::string_view name) {
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  const ProgramJson* value = argument->value;
  if (argument->type == "as_optional_tensor") {
    TRY_ASSIGN(value, FieldOf(*value, "as_tensor"));
  } else if (argument->type != "as_tensor") {
    return Wrong(name, "a tensor");
  }
  TRY_ASSIGN(const std::string value_name, TextOf(*value, "name"));
  return names_.FindTensor(value_name);
}

Result<Tensor> Call::OptionalTensor(std::string_view name) {
  if (!Has(name)) return Tensor{};
  return TensorAt(name);
}

Result<std::vector<Tensor>> Call::Tensors(std::string_view name) {
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  const bool may_be_none = argument->type == "as_optional_tensors";
  if ((!may_be_none && argument->type != "as_tensors") || !argument->value->is_array())
    return Wrong(name, "a list of tensors");
  std::vector<Tensor> tensors;
  for (const ProgramJson& item : *argument->value) {
    const ProgramJson* named = &item;
    if (may_be_none) {
      TRY_ASSIGN(const ProgramArgument choice, UnionOf(item));
      named = choice.type == "as_tensor" ? choice.value : nullptr;
    }
    if (named == nullptr) {
      tensors.emplace_back();
      continue;
    }
    TRY_ASSIGN(const std::string value_name, TextOf(*named, "name"));
    TRY_ASSIGN(tensors.emplace_back(), names_.FindTensor(value_name));
  }
  return tensors;
}

Result<Operand> Call::OperandAt(std::string_view name) {
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  Operand operand;
  if (argument->type == "as_tensor" || argument->type == "as_optional_tensor") {
    TRY_ASSIGN(operand.tensor, TensorAt(name));
    operand.dtype = b.dtype(operand.tensor);
    return operand;
  }
  if (argument->type == "as_float") {
    operand.real = RealOf(*argument->value);
    if (!operand.real) return Wrong(name, "a number");
    return operand;
  }
  if (argument->type == "as_bool") {
    TRY_ASSIGN(const bool flag, Flag(name));
    operand.dtype = DType::kBool;
    operand.size = Size(flag ? 1 : 0);
    return operand;
  }
  TRY_ASSIGN(operand.size, SizeOf(*argument, name));
  operand.dtype = DType::kI64;
  return operand;
}

// as_int; as_sym_int and its like in lists, {"as_name": ...} or {"as_int": ...}.
Result<Size> Call::SizeOf(const ProgramArgument& argument, std::string_view name) {
  if (argument.type == "as_int") {
    TRY_ASSIGN(const int64_t value, IntegerOf(*argument.value));
    return Size(value);
  }
  if (argument.type == "as_name" && argument.value->is_string())
    return names_.FindSize(argument.value->get<std::string>());
  if (argument.type == "as_sym_int") {
    TRY_ASSIGN(const ProgramArgument inner, UnionOf(*argument.value));
    if (inner.type != "as_sym_int") return SizeOf(inner, name);
  }
  return Wrong(name, "a whole number");
}

Result<Size> Call::SizeAt(std::string_view name, std::optional<Size> fallback) {
  if (!Has(name) && fallback) return *fallback;
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  return SizeOf(*argument, name);
}

Result<int64_t> Call::Integer(std::string_view name, std::optional<int64_t> fallback) {
  if (!Has(name) && fallback) return *fallback;
  TRY_ASSIGN(const Size size, SizeAt(name));
  if (const auto value = size.Constant()) return *value;
  return NotSupported("'" + std::string(name) +
                      "' depends on the input's sizes: " + size.ToString());
}

Result<std::vector<Size>> Call::Sizes(std::string_view name,
                                      std::optional<std::vector<Size>> fallback) {
  if (!Has(name) && fallback) return *fallback;
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  if (argument->type == "as_int" || argument->type == "as_sym_int") {
    TRY_ASSIGN(Size size, SizeOf(*argument, name));
    return std::vector{std::move(size)};
  }
  if (!argument->value->is_array()) return Wrong(name, "a list of whole numbers");
  std::vector<Size> sizes;
  for (const ProgramJson& item : *argument->value) {
    ProgramArgument one{"as_int", &item};
    if (argument->type == "as_sym_ints") {
      TRY_ASSIGN(one, UnionOf(item));
    } else if (argument->type != "as_ints") {
      return Wrong(name, "a list of whole numbers");
    }
    TRY_ASSIGN(sizes.emplace_back(), SizeOf(one, name));
  }
  return sizes;
}

Result<std::vector<int64_t>> Call::Integers(std::string_view name,
                                            std::optional<std::vector<int64_t>> fallback) {
  if (!Has(name) && fallback) return *fallback;
  TRY_ASSIGN(const std::vector<Size> sizes, Sizes(name));
  std::vector<int64_t> integers;
  for (const Size& size : sizes) {
    const auto value = size.Constant();
    if (!value) return NotSupported("'" + std::string(name) + "' depends on the input's sizes");
    integers.push_back(*value);
  }
  return integers;
}

Result<double> Call::Real(std::string_view name, std::optional<double> fallback) {
  if (!Has(name) && fallback) return *fallback;
  TRY_ASSIGN(const Operand number, OperandAt(name));
  if (number.real) return *number.real;
  const auto whole = number.size ? number.size->Constant() : std::nullopt;
  if (whole) return static_cast<double>(*whole);
  return NotSupported("'" + std::string(name) + "' is not a constant number");
}

Result<bool> Call::Flag(std::string_view name, std::optional<bool> fallback) {
  if (!Has(name) && fallback) return *fallback;
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  if (argument->type != "as_bool" || !argument->value->is_boolean())
    return Wrong(name, "true or false");
  return argument->value->get<bool>();
}

Result<std::string> Call::Text(std::string_view name, const char* fallback) {
  if (!Has(name) && fallback != nullptr) return std::string(fallback);
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  if (argument->type != "as_string" || !argument->value->is_string()) return Wrong(name, "a text");
  return argument->value->get<std::string>();
}

Result<int> Call::Choice(std::string_view name, std::initializer_list<std::string_view> texts) {
  if (!Has(name)) return 0;
  TRY_ASSIGN(const std::string text, Text(name));
  const auto* found = std::ranges::find(texts, text);
  if (found != texts.end()) return static_cast<int>(found - texts.begin());
  return NotSupported(std::string(name) + " '" + text.substr(0, 64) + "'");
}

Result<std::vector<double>> Call::Reals(std::string_view name) {
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  if (!argument->value->is_array()) return Wrong(name, "a list of numbers");
  std::vector<double> reals;
  for (const ProgramJson& item : *argument->value) {
    const std::optional<double> value = RealOf(item);
    if (!value) return Wrong(name, "a list of numbers");
    reals.push_back(*value);
  }
  return reals;
}

Result<std::optional<DType>> Call::DTypeAt(std::string_view name) {
  if (!Has(name)) return std::nullopt;
  TRY_ASSIGN(const ProgramArgument* const argument, Need(name));
  if (argument->type != "as_scalar_type" && argument->type != "as_int")
    return Wrong(name, "a type");
  TRY_ASSIGN(const int64_t number, IntegerOf(*argument->value));
  const std::optional<DType> dtype = DTypeOfScalarType(number);
  if (!dtype) return NotSupported("type " + ScalarTypeName(number));
  return dtype;
}

Result<int> Call::Axis(std::string_view name, int rank, std::optional<int64_t> fallback) {
  TRY_ASSIGN(const int64_t axis, Integer(name, fallback));
  return b.Axis(axis, std::max(rank, 1));
}

Result<std::vector<int>> Call::Axes(std::string_view name, int rank) {
  TRY_ASSIGN(const std::vector<int64_t> axes, Integers(name, std::vector<int64_t>{}));
  std::vector<int> places;
  if (rank == 0) return places;  // all of a scalar's axes are none
  for (const int64_t axis : axes) {
    TRY_ASSIGN(places.emplace_back(), b.Axis(axis, rank));
  }
  return places;
}

Result<ir::Shape> Call::ShapeAt(std::string_view name) {
  TRY_ASSIGN(const std::vector<Size> sizes, Sizes(name));
  if (sizes.size() > ir::kMaxRank) return NotSupported("a shape of more than 8 dimensions");
  ir::Shape shape;
  for (const Size& size : sizes) {
    const auto constant = size.Constant();
    if (constant && *constant < 0) return Invalid("a shape has a negative size");
    shape.push_back(ir::DimOf(size));
  }
  return shape;
}

Result<Tensor> Call::As(const Operand& operand, DType dtype) {
  if (operand.tensor.present()) return b.Cast(operand.tensor, dtype);
  if (operand.real) return b.Scalar(dtype, *operand.real);
  const auto constant = operand.size->Constant();
  if (constant && IsFloat(dtype)) return b.Scalar(dtype, static_cast<double>(*constant));
  if (constant && dtype == DType::kBool) return b.Scalar(dtype, *constant != 0 ? 1 : 0);
  if (constant) return b.SizeScalar(*operand.size, dtype);
  return b.Cast(b.SizeScalar(*operand.size), dtype);
}

Handler FindOperator(std::string_view name) {
  static const std::map<std::string, Handler, std::less<>> operators = [] {
    std::map<std::string, Handler, std::less<>> all;
    for (const std::span<const Operator> family :
         {ArithmeticOperators(), CreationOperators(), IndexedOperators(), NetworkOperators(),
          ReductionOperators(), ResamplingOperators(), ShapeOperators()})
      for (const Operator& row : family) {
        std::string_view rest = row.overloads;
        for (size_t comma = 0; comma != std::string_view::npos;) {
          comma = rest.find(',');
          all.emplace(std::string(row.name) + "." + std::string(rest.substr(0, comma)),
                      row.handler);
          if (comma != std::string_view::npos) rest.remove_prefix(comma + 1);
        }
      }
    return all;
  }();
  const auto found = operators.find(name);
  return found == operators.end() ? nullptr : found->second;
}

}  // namespace millpower::import::torch
