// Operators that make tensors of numbers: fills, ranges, masks.
#include <cmath>

#include "import/torch/call.h"

namespace millpower::import::torch {
namespace {

// The type that a number gives when none is said.
DType TypeOf(const Operand& number) { return number.dtype; }

Result<Tensor> Filled(Call& call, const ir::Shape& shape, const Operand& value, DType type) {
  TRY_ASSIGN(const Tensor scalar, call.As(value, type));
  const auto numbers = call.b.KnownReals(scalar);
  constexpr double kExact = 9007199254740992.0;  // 2^53: whole numbers that a double holds
  if (numbers && (IsFloat(type) || std::abs(numbers->front()) <= kExact))
    return call.b.Fill(shape, type, numbers->front());
  return call.b.Expand(scalar, shape);
}

Operand Number(int64_t value) { return {{}, DType::kI64, Size(value), {}}; }

// Of the shape `size`; without a type, f32, or for "new_..." the type of `self`.
Result<Tensors> FillOf(Call& call, const Operand& value, DType fallback) {
  TRY_ASSIGN(std::optional<DType> type, call.DTypeAt());
  if (!type && call.Has("self")) {
    TRY_ASSIGN(const Tensor like, call.TensorAt("self"));
    type = call.b.dtype(like);
  }
  TRY_ASSIGN(const ir::Shape shape, call.ShapeAt("size"));
  return One(Filled(call, shape, value, type.value_or(fallback)));
}
Result<Tensors> Full(Call& call) {
  TRY_ASSIGN(const Operand value, call.OperandAt("fill_value"));
  return FillOf(call, value, TypeOf(value));
}
template <int64_t value>
Result<Tensors> Constant(Call& call) {
  return FillOf(call, Number(value), DType::kF32);
}

Result<Tensors> FillLike(Call& call, const Operand& value) {
  TRY_ASSIGN(const Tensor like, call.TensorAt("self"));
  TRY_ASSIGN(const std::optional<DType> type, call.DTypeAt());
  return One(Filled(call, call.b.shape(like), value, type.value_or(call.b.dtype(like))));
}
Result<Tensors> FullLike(Call& call) {
  TRY_ASSIGN(const Operand value, call.OperandAt("fill_value"));
  return FillLike(call, value);
}
Result<Tensors> Fill(Call& call) {
  TRY_ASSIGN(const Operand value, call.OperandAt("value"));
  return FillLike(call, value);
}
template <int64_t value>
Result<Tensors> ConstantLike(Call& call) {
  return FillLike(call, Number(value));
}

Result<Tensors> ScalarTensor(Call& call) {
  TRY_ASSIGN(const Operand value, call.OperandAt("s"));
  TRY_ASSIGN(const std::optional<DType> type, call.DTypeAt());
  return One(call.As(value, type.value_or(DType::kF32)));
}

Result<Tensor> RealRange(TensorBuilder& b, double start, double end, double step, DType type) {
  const double count = std::ceil((end - start) / step);
  if (!(count >= 1) || count > static_cast<double>(kMaxKnown))
    return NotSupported("a range of no element or more than 4096 real numbers");
  std::vector<double> values;
  for (int i = 0; i < static_cast<int>(count); ++i) values.push_back(start + i * step);
  const auto length = static_cast<int64_t>(values.size());
  return b.Constant(type, {length}, ToBytes(type, values));
}

// How many of begin, begin + step ... lie before end.
std::optional<Size> Count(const Size& begin, const Size& end, int64_t step) {
  const auto length = end.Minus(begin);
  if (!length) return std::nullopt;
  const auto constant = length->Constant();
  if (!constant) return length->DividedBy(Size(step));
  const int64_t way = step > 0 ? 1 : -1;
  int64_t span = 0;
  if (step == INT64_MIN || __builtin_mul_overflow(*constant, way, &span)) return std::nullopt;
  return span <= 0 ? Size(0) : Size((span - 1) / (step * way) + 1);
}

Result<Tensors> Range(Call& call) {
  TensorBuilder& b = call.b;
  const Operand one = Number(1), zero = Number(0);
  Operand start = zero, step = one;
  if (call.Has("start")) {
    TRY_ASSIGN(start, call.OperandAt("start"));
  }
  if (call.Has("step")) {
    TRY_ASSIGN(step, call.OperandAt("step"));
  }
  TRY_ASSIGN(const Operand end, call.OperandAt("end"));
  TRY_ASSIGN(const std::optional<DType> said, call.DTypeAt());
  if (start.real || step.real || end.real) {
    TRY_ASSIGN(const double from, call.Real("start", 0));
    TRY_ASSIGN(const double to, call.Real("end"));
    TRY_ASSIGN(const double by, call.Real("step", 1));
    return One(RealRange(b, from, to, by, said.value_or(DType::kF32)));
  }
  const auto by = step.size->Constant();
  if (!by || *by == 0) return NotSupported("a step that is 0 or not constant");
  const auto count = Count(*start.size, *end.size, *by);
  if (!count) return NotSupported("a range whose length cannot be told");
  if (*count == Size(0)) return NotSupported("a range without elements");
  const auto begin = start.size->Constant();
  TRY_ASSIGN(Tensor range, b.Iota({ir::DimOf(*count)}, 0, begin.value_or(0), *by));
  if (!begin) {
    TRY_ASSIGN(range, b.Binary(MapOp::kAdd, range, b.SizeScalar(*start.size)));
  }
  TRY_ASSIGN(range, b.Cast(range, said.value_or(DType::kI64)));
  call.facts.ranges[range.id] = {*start.size, *by};
  return Tensors{range};
}

Result<Tensors> LinSpace(Call& call) {
  TRY_ASSIGN(const double start, call.Real("start"));
  TRY_ASSIGN(const double end, call.Real("end"));
  TRY_ASSIGN(const int64_t steps, call.Integer("steps"));
  TRY_ASSIGN(const std::optional<DType> said, call.DTypeAt());
  if (steps < 1 || steps > kMaxKnown) return NotSupported("so many steps");
  std::vector<double> values;
  for (int64_t i = 0; i < steps; ++i)
    values.push_back(steps == 1 ? start
                                : start + (end - start) * static_cast<double>(i) /
                                              static_cast<double>(steps - 1));
  const DType type = said.value_or(DType::kF32);
  return One(call.b.Constant(type, {steps}, ToBytes(type, values)));
}

Result<Tensors> Eye(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Size rows, call.SizeAt("n"));
  TRY_ASSIGN(const Size cols, call.SizeAt("m", rows));
  TRY_ASSIGN(const std::optional<DType> said, call.DTypeAt());
  const ir::Shape shape = {ir::DimOf(rows), ir::DimOf(cols)};
  TRY_ASSIGN(const Tensor row, b.Iota(shape, 0));
  TRY_ASSIGN(const Tensor col, b.Iota(shape, 1));
  TRY_ASSIGN(const Tensor is_equal, b.Binary(MapOp::kEqual, row, col));
  return One(b.Cast(is_equal, said.value_or(DType::kF32)));
}

// Where the lower (upper) triangle of a matrix lies: rows, then columns.
template <bool lower>
Result<Tensors> TriangleIndices(Call& call) {
  TRY_ASSIGN(const int64_t rows, call.Integer("row"));
  TRY_ASSIGN(const int64_t cols, call.Integer("col"));
  TRY_ASSIGN(const int64_t offset, call.Integer("offset", 0));
  TRY_ASSIGN(const std::optional<DType> said, call.DTypeAt());
  constexpr int64_t kMax = 2048;
  if (rows < 0 || cols < 0 || rows > kMax || cols > kMax || std::abs(offset) > kMax)
    return NotSupported("a triangle of more than 2048 rows or columns");
  std::vector<int64_t> places, columns;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < cols; ++col)
      if (lower ? col <= row + offset : col >= row + offset) {
        places.push_back(row);
        columns.push_back(col);
      }
  const auto count = static_cast<int64_t>(places.size());
  places.insert(places.end(), columns.begin(), columns.end());
  const DType type = said.value_or(DType::kI64);
  return One(call.b.Constant(type, {2, count}, ToBytes(type, places)));
}

Result<Tensors> OneHot(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int64_t classes, call.Integer("num_classes", -1));
  if (classes < 1) return NotSupported("a number of classes that depends on the data");
  TRY_ASSIGN(const Tensor raised, b.Unsqueeze(x, b.rank(x)));
  TRY_ASSIGN(Tensor kinds, b.Iota({ir::Constant(classes)}, 0));
  TRY_ASSIGN(kinds, b.Cast(kinds, b.dtype(x)));
  TRY_ASSIGN(const Tensor is_equal, b.Binary(MapOp::kEqual, raised, kinds));
  return One(b.Cast(is_equal, DType::kI64));
}

constexpr Operator kOperators[] = {
    {"arange", "default,start,start_step", Range},
    {"empty", "memory_format", Constant<0>},
    {"empty_like", "default", ConstantLike<0>},
    {"eye", "default,m", Eye},
    {"fill", "Scalar,Tensor", Fill},
    {"full", "default", Full},
    {"full_like", "default", FullLike},
    {"linspace", "default", LinSpace},
    {"new_empty", "default", Constant<0>},
    {"new_full", "default", Full},
    {"new_ones", "default", Constant<1>},
    {"new_zeros", "default", Constant<0>},
    {"one_hot", "default", OneHot},
    {"ones", "default", Constant<1>},
    {"ones_like", "default", ConstantLike<1>},
    {"scalar_tensor", "default", ScalarTensor},
    {"tril_indices", "default", TriangleIndices<true>},
    {"triu_indices", "default", TriangleIndices<false>},
    {"zero", "default", ConstantLike<0>},
    {"zeros", "default", Constant<0>},
    {"zeros_like", "default", ConstantLike<0>},
};

}  // namespace

std::span<const Operator> CreationOperators() { return kOperators; }

}  // namespace millpower::import::torch
