// Element-wise operations.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "import/tensor/builder.h"
#include "import/tensor/known.h"

namespace millpower::import {
namespace {

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

int64_t ElementsIn(std::span<const int64_t> sizes) {
  int64_t elements = 1;
  for (const int64_t size : sizes) elements *= size;
  return elements;
}

bool IsComparison(MapOp op) { return op >= MapOp::kEqual && op <= MapOp::kGreaterEqual; }

}  // namespace

Result<ir::Shape> TensorBuilder::BroadcastShape(std::span<const Tensor> operands) const {
  ir::Shape all;
  for (const Tensor operand : operands) {
    const ir::Shape& shape = entry(operand).shape;
    if (shape.size() > all.size())
      all.insert(all.begin(), shape.size() - all.size(), ir::Constant(1));
    for (size_t i = 0; i < shape.size(); ++i) {
      const ir::Dim& dim = shape[shape.size() - 1 - i];
      ir::Dim& target = all[all.size() - 1 - i];
      if (dim == target || dim == ir::Constant(1)) continue;
      if (target != ir::Constant(1))
        return Misfit("shapes " + ir::ToString(all) + " and " + ir::ToString(shape) +
                      " do not broadcast");
      target = dim;
    }
  }
  return all;
}

std::optional<Tensor> TensorBuilder::FoldMap(const Expression& expression,
                                             std::span<const Tensor> operands,
                                             const ir::Shape& shape) {
  std::vector<int64_t> sizes;
  for (const ir::Dim& dim : shape) {
    if (!dim.symbol.empty()) return std::nullopt;
    sizes.push_back(dim.size);
  }
  const int64_t elements = ElementsIn(sizes);
  if (elements > kMaxKnown) return std::nullopt;
  for (const Tensor operand : operands)
    if (!entry(operand).sizes && !entry(operand).reals) return std::nullopt;

  const DType type = expression.type();
  std::vector<Size> integers;
  std::vector<double> reals;
  std::vector<int64_t> coordinates(sizes.size(), 0);
  std::vector<Known> loaded(operands.size());
  for (int64_t at = 0; at < elements; ++at) {
    int64_t rest = at;
    for (size_t i = sizes.size(); i-- > 0; rest /= sizes[i]) coordinates[i] = rest % sizes[i];
    for (size_t i = 0; i < operands.size(); ++i) {
      const Entry& operand = entry(operands[i]);
      size_t index = 0;
      const size_t skipped = sizes.size() - operand.shape.size();
      for (size_t j = 0; j < operand.shape.size(); ++j) {
        const auto size = static_cast<size_t>(operand.shape[j].size);
        index = index * size + (size == 1 ? 0 : static_cast<size_t>(coordinates[skipped + j]));
      }
      if (operand.reals) {
        loaded[i] = (*operand.reals)[index];
      } else {
        loaded[i] = (*operand.sizes)[index];
      }
    }
    const std::optional<Known> value = Evaluate(expression, loaded, coordinates);
    if (!value) return std::nullopt;
    if (IsFloat(type)) {
      reals.push_back(std::get<double>(*value));
    } else {
      integers.push_back(std::get<Size>(*value));
    }
  }
  if (IsFloat(type)) return AddKnown(type, shape, std::move(reals));
  return AddKnown(type, shape, std::move(integers));
}

// Operands that are one known number become terms; the others are numbered anew.
Result<Tensor> TensorBuilder::Map(const Expression& expression, std::span<const Tensor> operands) {
  TRY_ASSIGN(const ir::Shape shape, BroadcastShape(operands));
  return MapTo(shape, expression, operands);
}

Result<Tensor> TensorBuilder::MapTo(const ir::Shape& shape, Expression expression,
                                    std::span<const Tensor> operands) {
  if (const auto folded = FoldMap(expression, operands, shape)) return *folded;
  std::vector<Tensor> loaded;
  ir::Shape sizes;
  std::vector<int64_t> numbers(operands.size(), -1);
  for (Term& term : expression.terms) {
    if (term.op != MapOp::kLoad) continue;
    const auto operand = static_cast<size_t>(term.immediate);
    const Entry& known = entry(operands[operand]);
    const bool is_scalar =
        known.shape.empty() ||
        std::ranges::all_of(known.shape, [](const auto& d) { return d == ir::Constant(1); });
    if (known.reals && is_scalar) {
      term.op = MapOp::kConstant;
      term.immediate = std::bit_cast<int64_t>(known.reals->front());
    } else if (known.sizes && is_scalar && known.sizes->front().IsConstant()) {
      term.op = MapOp::kConstant;
      term.immediate = *known.sizes->front().Constant();
    } else if (known.sizes && is_scalar && known.dtype == DType::kI64) {
      term.op = MapOp::kSize;
      term.immediate = static_cast<int64_t>(sizes.size());
      sizes.push_back(ir::DimOf(known.sizes->front()));
    } else {
      if (numbers[operand] < 0) {
        numbers[operand] = static_cast<int64_t>(loaded.size());
        loaded.push_back(operands[operand]);
      }
      term.immediate = numbers[operand];
    }
  }
  return Node(ir::Op::kMap, loaded,
              {{"code", expression.Encode()}, {"sizes", sizes}, {"shape", shape}});
}

Result<Tensor> TensorBuilder::Unary(MapOp op, Tensor x) {
  Expression expression;
  const int16_t loaded = expression.Load(0, dtype(x));
  const bool is_predicate = op == MapOp::kIsNan || op == MapOp::kIsInfinite;
  expression.Apply(op, is_predicate ? DType::kBool : dtype(x), {loaded});
  return Map(expression, std::span(&x, 1));
}

Result<Tensor> TensorBuilder::Binary(MapOp op, Tensor a, Tensor b) {
  if (dtype(a) != dtype(b))
    return Misfit(std::string(Info(op).name) + " of " + Name(dtype(a)) + " and " + Name(dtype(b)));
  Expression expression;
  const int16_t x = expression.Load(0, dtype(a));
  const int16_t y = expression.Load(1, dtype(b));
  expression.Apply(op, IsComparison(op) ? DType::kBool : dtype(a), {x, y});
  const Tensor operands[] = {a, b};
  return Map(expression, operands);
}

Result<Tensor> TensorBuilder::Binary(MapOp op, Tensor x, double value) {
  return Binary(op, x, Scalar(dtype(x), value));
}

Result<Tensor> TensorBuilder::Select(Tensor condition, Tensor a, Tensor b) {
  if (dtype(condition) != DType::kBool || dtype(a) != dtype(b))
    return Misfit(std::string("select by ") + Name(dtype(condition)) + " of " + Name(dtype(a)) +
                  " and " + Name(dtype(b)));
  Expression expression;
  const int16_t c = expression.Load(0, DType::kBool);
  const int16_t x = expression.Load(1, dtype(a));
  const int16_t y = expression.Load(2, dtype(b));
  expression.Apply(MapOp::kSelect, dtype(a), {c, x, y});
  const Tensor operands[] = {condition, a, b};
  return Map(expression, operands);
}

Result<Tensor> TensorBuilder::Cast(Tensor x, DType to) {
  if (dtype(x) == to) return x;
  if (!IsElementType(dtype(x)) || !IsElementType(to))
    return Fail(ErrorCode::kUnsupported,
                std::string("a cast from ") + Name(dtype(x)) + " to " + Name(to));
  Expression expression;
  expression.Apply(MapOp::kCast, to, {expression.Load(0, dtype(x))});
  return Map(expression, std::span(&x, 1));
}

Result<Tensor> TensorBuilder::Fill(const ir::Shape& shape, DType type, double value) {
  Expression expression;
  if (IsFloat(type)) {
    expression.Constant(type, value);
  } else {
    expression.Constant(type, static_cast<int64_t>(value));
  }
  return MapTo(shape, std::move(expression), {});
}

Result<Tensor> TensorBuilder::Iota(const ir::Shape& shape, int axis, int64_t begin, int64_t step) {
  Expression expression;
  const int16_t index = expression.Index(axis);
  const int16_t scaled =
      expression.Apply(MapOp::kMul, DType::kI64, {index, expression.Constant(DType::kI64, step)});
  expression.Apply(MapOp::kAdd, DType::kI64, {scaled, expression.Constant(DType::kI64, begin)});
  return MapTo(shape, std::move(expression), {});
}

// ---- recurring compositions ----

// Gaussian error linear unit (Hendrycks and Gimpel, 2016), exact or by their tanh approximation.
Result<Tensor> TensorBuilder::Gelu(Tensor x, bool tanh_approximation) {
  const DType type = dtype(x);
  Expression e;
  const int16_t in = e.Load(0, type);
  const auto number = [&](double value) { return e.Constant(type, value); };
  int16_t inner = -1;
  if (tanh_approximation) {
    const int16_t square = e.Apply(MapOp::kMul, type, {in, in});
    const int16_t cube = e.Apply(MapOp::kMul, type, {square, in});
    const int16_t bent = e.Apply(MapOp::kMul, type, {cube, number(0.044715)});
    const int16_t sum = e.Apply(MapOp::kAdd, type, {in, bent});
    const int16_t scaled =
        e.Apply(MapOp::kMul, type, {sum, number(std::sqrt(2 / std::numbers::pi))});
    inner = e.Apply(MapOp::kTanh, type, {scaled});
  } else {
    const int16_t scaled = e.Apply(MapOp::kMul, type, {in, number(1 / std::numbers::sqrt2)});
    inner = e.Apply(MapOp::kErf, type, {scaled});
  }
  const int16_t shifted = e.Apply(MapOp::kAdd, type, {inner, number(1)});
  const int16_t half = e.Apply(MapOp::kMul, type, {in, number(0.5)});
  e.Apply(MapOp::kMul, type, {half, shifted});
  return Map(e, std::span(&x, 1));
}

Result<Tensor> TensorBuilder::Silu(Tensor x) {
  Expression e;
  const int16_t in = e.Load(0, dtype(x));
  e.Apply(MapOp::kMul, dtype(x), {in, e.Apply(MapOp::kSigmoid, dtype(x), {in})});
  return Map(e, std::span(&x, 1));
}

Result<Tensor> TensorBuilder::Clip(Tensor x, std::optional<double> min, std::optional<double> max) {
  if (min) {
    TRY_ASSIGN(x, Binary(MapOp::kMax, x, *min));
  }
  if (max) {
    TRY_ASSIGN(x, Binary(MapOp::kMin, x, *max));
  }
  return x;
}

Result<Tensor> TensorBuilder::LeakyRelu(Tensor x, double slope) {
  const DType type = dtype(x);
  Expression e;
  const int16_t in = e.Load(0, type);
  const int16_t is_negative = e.Apply(MapOp::kLess, DType::kBool, {in, e.Constant(type, 0.0)});
  const int16_t scaled = e.Apply(MapOp::kMul, type, {in, e.Constant(type, slope)});
  e.Apply(MapOp::kSelect, type, {is_negative, scaled, in});
  return Map(e, std::span(&x, 1));
}

Result<Tensor> TensorBuilder::Elu(Tensor x, double alpha, double scale) {
  const DType type = dtype(x);
  Expression e;
  const int16_t in = e.Load(0, type);
  const int16_t is_negative = e.Apply(MapOp::kLess, DType::kBool, {in, e.Constant(type, 0.0)});
  const int16_t below =
      e.Apply(MapOp::kSub, type, {e.Apply(MapOp::kExp, type, {in}), e.Constant(type, 1.0)});
  const int16_t bent = e.Apply(MapOp::kMul, type, {below, e.Constant(type, alpha)});
  const int16_t chosen = e.Apply(MapOp::kSelect, type, {is_negative, bent, in});
  if (scale != 1) e.Apply(MapOp::kMul, type, {chosen, e.Constant(type, scale)});
  return Map(e, std::span(&x, 1));
}

}  // namespace millpower::import
