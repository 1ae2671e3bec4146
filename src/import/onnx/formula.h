// Writing an element-wise expression down: one map for what an operator computes of an element.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "base/expression.h"
#include "import/tensor/builder.h"

namespace millpower::import::onnx {

// Numbers of terms stand for what they compute. All arithmetic is of the first operand's type
// unless a term is said to be of another.
class Formula {
 public:
  using Id = int16_t;

  Formula(TensorBuilder& builder, std::vector<Tensor> operands)
      : builder_(builder), operands_(std::move(operands)), type_(builder.dtype(operands_[0])) {}

  Id Load(int operand = 0) {
    return expression_.Load(operand, builder_.dtype(operands_[static_cast<size_t>(operand)]));
  }
  Id Number(double value) { return NumberOf(type_, value); }
  Id NumberOf(DType type, double value) {
    return IsFloat(type) ? expression_.Constant(type, value)
                         : expression_.Constant(type, static_cast<int64_t>(value));
  }
  Id Index(int axis) { return expression_.Index(axis); }

  // Of the arguments' type.
  Id operator()(MapOp op, Id a) { return expression_.Apply(op, TypeOf(a), {a}); }
  Id operator()(MapOp op, Id a, Id b) { return expression_.Apply(op, TypeOf(a), {a, b}); }
  // A condition of `a` and `b`.
  Id Is(MapOp op, Id a, Id b) { return expression_.Apply(op, DType::kBool, {a, b}); }
  Id Is(MapOp op, Id a) { return expression_.Apply(op, DType::kBool, {a}); }
  Id Select(Id condition, Id a, Id b) {
    return expression_.Apply(MapOp::kSelect, TypeOf(a), {condition, a, b});
  }
  Id Cast(Id a, DType type) {
    return TypeOf(a) == type ? a : expression_.Apply(MapOp::kCast, type, {a});
  }
  Id Clamp(Id a, double min, double max) {
    return (*this)(MapOp::kMin, (*this)(MapOp::kMax, a, NumberOf(TypeOf(a), min)),
                   NumberOf(TypeOf(a), max));
  }

  // The last term is the result.
  Result<Tensor> Done() const { return builder_.Map(expression_, operands_); }

 private:
  DType TypeOf(Id id) const { return expression_.terms[static_cast<size_t>(id)].type; }

  TensorBuilder& builder_;
  std::vector<Tensor> operands_;
  DType type_;
  Expression expression_;
};

}  // namespace millpower::import::onnx
