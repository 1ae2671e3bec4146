// Element-wise operators: arithmetic, comparisons, activations, casts. Formulas are those of
// PyTorch's documentation (torch, torch.nn.functional).
#include <cmath>
#include <limits>
#include <numbers>

#include "import/torch/call.h"

namespace millpower::import::torch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// An expression of one operand under construction.
class Formula {
 public:
  explicit Formula(DType type) : type_(type), x(e_.Load(0, type)) {}

  int16_t Of(MapOp op, int16_t a) { return e_.Apply(op, type_, {a}); }
  int16_t Of(MapOp op, int16_t a, int16_t b) { return e_.Apply(op, type_, {a, b}); }
  int16_t Of(MapOp op, int16_t a, double b) { return Of(op, a, Number(b)); }
  int16_t Of(MapOp op, double a, int16_t b) { return Of(op, Number(a), b); }
  int16_t Is(MapOp op, int16_t a, double b) { return e_.Apply(op, DType::kBool, {a, Number(b)}); }
  int16_t Choose(int16_t condition, int16_t a, int16_t b) {
    return e_.Apply(MapOp::kSelect, type_, {condition, a, b});
  }
  int16_t Number(double value) { return e_.Constant(type_, value); }
  const Expression& expression() const { return e_; }

 private:
  Expression e_;
  DType type_;

 public:
  const int16_t x;  // the operand
};

// Whole numbers become f32, as everywhere in PyTorch where only reals make sense.
Result<Tensor> AsReal(TensorBuilder& b, Tensor x) {
  return IsFloat(b.dtype(x)) ? Result<Tensor>(x) : b.Cast(x, DType::kF32);
}

// The formula that `write` makes, whose last term is the result, of the argument `self`.
template <typename Write>
Result<Tensors> OfReal(Call& call, Write write) {
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(x, AsReal(call.b, x));
  Formula formula(call.b.dtype(x));
  write(formula);
  return One(call.b.Map(formula.expression(), std::span(&x, 1)));
}

template <MapOp... ops>
Result<Tensors> Real(Call& call) {
  return OfReal(call, [](Formula& f) {
    int16_t at = f.x;
    ((at = f.Of(ops, at)), ...);
  });
}

// Defined on whole numbers too.
template <MapOp op>
Result<Tensors> Same(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  return One(call.b.Unary(op, x));
}

// Whole numbers are their own floor.
template <MapOp op>
Result<Tensors> Rounding(Call& call) {
  TRY_ASSIGN(const int64_t decimals, call.Integer("decimals", 0));
  if (decimals != 0) return NotSupported("rounding to decimals");
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  if (!IsFloat(call.b.dtype(x))) return Tensors{x};
  return One(call.b.Unary(op, x));
}

template <MapOp op>
Result<Tensors> Predicate(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  if (!IsFloat(call.b.dtype(x))) return One(call.b.Fill(call.b.shape(x), DType::kBool, 0));
  return One(call.b.Unary(op, x));
}

Result<Tensors> IsFinite(Call& call) {
  TRY_ASSIGN(Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(x, AsReal(call.b, x));
  TRY_ASSIGN(const Tensor magnitude, call.b.Unary(MapOp::kAbs, x));
  return One(call.b.Binary(MapOp::kLess, magnitude, kInfinity));
}

// log(1 + x) without what 1 + x rounds away: u = 1 + x, log(u) x / (u - 1) (Kahan).
Result<Tensors> Log1p(Call& call) {
  return OfReal(call, [](Formula& f) {
    const int16_t u = f.Of(MapOp::kAdd, f.x, 1.0);
    const int16_t is_tiny = f.Is(MapOp::kEqual, u, 1.0);
    const int16_t is_far = f.Is(MapOp::kEqual, u, kInfinity);
    const int16_t ratio = f.Of(MapOp::kDiv, f.x, f.Of(MapOp::kSub, u, 1.0));
    const int16_t log = f.Of(MapOp::kMul, f.Of(MapOp::kLog, u), ratio);
    f.Choose(is_tiny, f.x, f.Choose(is_far, u, log));
  });
}

// exp(x) - 1; near 0 as 2 t / (1 - t) with t = tanh(x / 2).
Result<Tensors> Expm1(Call& call) {
  return OfReal(call, [](Formula& f) {
    const int16_t t = f.Of(MapOp::kTanh, f.Of(MapOp::kMul, f.x, 0.5));
    const int16_t near = f.Of(MapOp::kDiv, f.Of(MapOp::kMul, t, 2.0), f.Of(MapOp::kSub, 1.0, t));
    const int16_t far = f.Of(MapOp::kSub, f.Of(MapOp::kExp, f.x), 1.0);
    const int16_t is_near = f.Is(MapOp::kLess, f.Of(MapOp::kAbs, f.x), 0.5);
    f.Choose(is_near, near, far);
  });
}

// f(scale x) and scale f(x).
template <MapOp op>
Result<Tensors> ScaledArgument(Call& call) {  // exp2
  return OfReal(call, [](Formula& f) { f.Of(op, f.Of(MapOp::kMul, f.x, std::numbers::ln2)); });
}
template <int base>
Result<Tensors> LogOfBase(Call& call) {
  return OfReal(call, [](Formula& f) {
    f.Of(MapOp::kMul, f.Of(MapOp::kLog, f.x), 1 / std::log(static_cast<double>(base)));
  });
}

Result<Tensors> Erfc(Call& call) {
  return OfReal(call, [](Formula& f) { f.Of(MapOp::kSub, 1.0, f.Of(MapOp::kErf, f.x)); });
}
Result<Tensors> Frac(Call& call) {
  return OfReal(call, [](Formula& f) { f.Of(MapOp::kSub, f.x, f.Of(MapOp::kTrunc, f.x)); });
}
Result<Tensors> Square(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  return One(call.b.Binary(MapOp::kMul, x, x));
}
Result<Tensors> LogSigmoid(Call& call) {  // -softplus(-x)
  return OfReal(
      call, [](Formula& f) { f.Of(MapOp::kNeg, f.Of(MapOp::kSoftplus, f.Of(MapOp::kNeg, f.x))); });
}

// ---- activations ----

Result<Tensors> HardSwish(Call& call) {  // x relu6(x + 3) / 6
  return OfReal(call, [](Formula& f) {
    const int16_t up = f.Of(MapOp::kMax, f.Of(MapOp::kAdd, f.x, 3.0), 0.0);
    f.Of(MapOp::kDiv, f.Of(MapOp::kMul, f.x, f.Of(MapOp::kMin, up, 6.0)), 6.0);
  });
}
Result<Tensors> HardSigmoid(Call& call) {  // relu6(x + 3) / 6
  return OfReal(call, [](Formula& f) {
    const int16_t up = f.Of(MapOp::kMax, f.Of(MapOp::kAdd, f.x, 3.0), 0.0);
    f.Of(MapOp::kDiv, f.Of(MapOp::kMin, up, 6.0), 6.0);
  });
}
Result<Tensors> Mish(Call& call) {  // x tanh(softplus(x))
  return OfReal(call, [](Formula& f) {
    f.Of(MapOp::kMul, f.x, f.Of(MapOp::kTanh, f.Of(MapOp::kSoftplus, f.x)));
  });
}
Result<Tensors> Softplus(Call& call) {  // log(1 + exp(beta x)) / beta; x beyond the threshold
  TRY_ASSIGN(const double beta, call.Real("beta", 1));
  TRY_ASSIGN(const double threshold, call.Real("threshold", 20));
  return OfReal(call, [&](Formula& f) {
    const int16_t scaled = f.Of(MapOp::kMul, f.x, beta);
    const int16_t soft = f.Of(MapOp::kDiv, f.Of(MapOp::kSoftplus, scaled), beta);
    f.Choose(f.Is(MapOp::kGreater, scaled, threshold), f.x, soft);
  });
}
Result<Tensors> Relu6(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  return One(call.b.Clip(x, 0.0, 6.0));
}
Result<Tensors> HardTanh(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const double min, call.Real("min_val", -1));
  TRY_ASSIGN(const double max, call.Real("max_val", 1));
  return One(call.b.Clip(x, min, max));
}
Result<Tensors> Silu(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  return One(call.b.Silu(x));
}
Result<Tensors> Gelu(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const int approximate, call.Choice("approximate", {"none", "tanh"}));
  return One(call.b.Gelu(x, approximate == 1));
}
Result<Tensors> LeakyRelu(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const double slope, call.Real("negative_slope", 0.01));
  return One(call.b.LeakyRelu(x, slope));
}
Result<Tensors> RRelu(Call& call) {  // outside of training the mean of the slopes
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const bool training, call.Flag("training", false));
  if (training) return NotSupported("training");
  TRY_ASSIGN(const double lower, call.Real("lower", 1.0 / 8));
  TRY_ASSIGN(const double upper, call.Real("upper", 1.0 / 3));
  return One(call.b.LeakyRelu(x, (lower + upper) / 2));
}
// scale (x > 0 ? x : alpha (exp(input_scale x) - 1))
Result<Tensors> EluOf(Call& call, double alpha, double scale, double input_scale) {
  return OfReal(call, [&](Formula& f) {
    const int16_t inner = input_scale == 1 ? f.x : f.Of(MapOp::kMul, f.x, input_scale);
    const int16_t below = f.Of(MapOp::kSub, f.Of(MapOp::kExp, inner), 1.0);
    const int16_t bent = f.Of(MapOp::kMul, below, alpha * scale);
    const int16_t above = scale == 1 ? f.x : f.Of(MapOp::kMul, f.x, scale);
    f.Choose(f.Is(MapOp::kGreater, f.x, 0), above, bent);
  });
}
Result<Tensors> Elu(Call& call) {
  TRY_ASSIGN(const double alpha, call.Real("alpha", 1));
  TRY_ASSIGN(const double scale, call.Real("scale", 1));
  TRY_ASSIGN(const double input_scale, call.Real("input_scale", 1));
  return EluOf(call, alpha, scale, input_scale);
}
Result<Tensors> Celu(Call& call) {
  TRY_ASSIGN(const double alpha, call.Real("alpha", 1));
  return EluOf(call, alpha, 1, 1 / alpha);
}
Result<Tensors> Selu(Call& call) {  // Klambauer et al., 2017
  return EluOf(call, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1);
}
Result<Tensors> Prelu(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor slope, call.TensorAt("weight"));
  if (b.rank(slope) == 1 && b.rank(x) > 1 && b.dim(slope, 0) != Size(1)) {  // by channel
    ir::Shape by_channel(static_cast<size_t>(b.rank(x)), ir::Constant(1));
    by_channel[1] = b.shape(slope)[0];
    TRY_ASSIGN(slope, b.Reshape(slope, by_channel));
  }
  TRY_ASSIGN(const Tensor scaled, b.Binary(MapOp::kMul, x, slope));
  TRY_ASSIGN(const Tensor is_positive, b.Binary(MapOp::kGreater, x, 0));
  return One(b.Select(is_positive, x, scaled));
}
Result<Tensors> Threshold(Call& call) {
  TRY_ASSIGN(const double threshold, call.Real("threshold"));
  TRY_ASSIGN(const double value, call.Real("value"));
  return OfReal(call, [&](Formula& f) {
    f.Choose(f.Is(MapOp::kLessEqual, f.x, threshold), f.Number(value), f.x);
  });
}
Result<Tensors> HardShrink(Call& call) {
  TRY_ASSIGN(const double lambda, call.Real("lambd", 0.5));
  return OfReal(call, [&](Formula& f) {
    f.Choose(f.Is(MapOp::kLessEqual, f.Of(MapOp::kAbs, f.x), lambda), f.Number(0), f.x);
  });
}
Result<Tensors> SoftShrink(Call& call) {  // x - clamp(x, -lambda, lambda)
  TRY_ASSIGN(const double lambda, call.Real("lambd", 0.5));
  return OfReal(call, [&](Formula& f) {
    f.Of(MapOp::kSub, f.x, f.Of(MapOp::kMin, f.Of(MapOp::kMax, f.x, -lambda), lambda));
  });
}
Result<Tensors> Logit(Call& call) {  // log(x / (1 - x)), x clamped to [eps, 1 - eps]
  const bool clamps = call.Has("eps");
  TRY_ASSIGN(const double eps, call.Real("eps", 0));
  return OfReal(call, [&](Formula& f) {
    int16_t x = f.x;
    if (clamps) x = f.Of(MapOp::kMin, f.Of(MapOp::kMax, x, eps), 1 - eps);
    f.Of(MapOp::kLog, f.Of(MapOp::kDiv, x, f.Of(MapOp::kSub, 1.0, x)));
  });
}
Result<Tensors> NanToNum(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  if (!IsFloat(b.dtype(x))) return Tensors{x};
  const bool is_half = b.dtype(x) == DType::kF16;
  double largest = is_half ? 65504.0 : std::numeric_limits<float>::max();
  if (b.dtype(x) == DType::kF64) largest = std::numeric_limits<double>::max();
  if (b.dtype(x) == DType::kBf16) largest = 3.3895313892515355e38;
  TRY_ASSIGN(const double nan, call.Real("nan", 0));
  TRY_ASSIGN(const double above, call.Real("posinf", largest));
  TRY_ASSIGN(const double below, call.Real("neginf", -largest));
  TRY_ASSIGN(const Tensor is_nan, b.Unary(MapOp::kIsNan, x));
  TRY_ASSIGN(Tensor y, b.Select(is_nan, b.Scalar(b.dtype(x), nan), x));
  TRY_ASSIGN(const Tensor is_above, b.Binary(MapOp::kEqual, x, kInfinity));
  TRY_ASSIGN(y, b.Select(is_above, b.Scalar(b.dtype(x), above), y));
  TRY_ASSIGN(const Tensor is_below, b.Binary(MapOp::kEqual, x, -kInfinity));
  return One(b.Select(is_below, b.Scalar(b.dtype(x), below), y));
}

// ---- two operands ----

struct Pair {
  Tensor a, b;
  DType type = DType::kF32;
};

// Two arguments as tensors of the type that both promote to; `least_real`: whole numbers become
// f32.
Result<Pair> PairOf(Call& call, std::string_view first, std::string_view second,
                    bool least_real = false) {
  TRY_ASSIGN(const Operand a, call.OperandAt(first));
  TRY_ASSIGN(const Operand b, call.OperandAt(second));
  const Operand operands[] = {a, b};
  TRY_ASSIGN(DType type, ResultType(call.b, operands));
  if (least_real && !IsFloat(type)) type = DType::kF32;
  Pair pair;
  pair.type = type;
  TRY_ASSIGN(pair.a, call.As(a, type));
  TRY_ASSIGN(pair.b, call.As(b, type));
  return pair;
}

// Of bools, sums are "or", products "and".
MapOp OnType(MapOp op, DType type) {
  if (type != DType::kBool) return op;
  if (op == MapOp::kAdd || op == MapOp::kMax || op == MapOp::kBitOr) return MapOp::kLogicalOr;
  if (op == MapOp::kMul || op == MapOp::kMin || op == MapOp::kBitAnd) return MapOp::kLogicalAnd;
  if (op == MapOp::kBitXor) return MapOp::kLogicalXor;
  return op;
}

template <MapOp op>
Result<Tensors> Arithmetic(Call& call) {
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "other"));
  return One(call.b.Binary(OnType(op, pair.type), pair.a, pair.b));
}

template <MapOp op>
Result<Tensors> RealArithmetic(Call& call) {
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "other", true));
  return One(call.b.Binary(op, pair.a, pair.b));
}

Result<Tensor> Scaled(Call& call, Tensor x, std::string_view factor) {
  if (!call.Has(factor)) return x;
  TRY_ASSIGN(const Operand by, call.OperandAt(factor));
  if (by.size == Size(1) || by.real == 1.0) return x;
  TRY_ASSIGN(const Tensor scale, call.As(by, call.b.dtype(x)));
  return call.b.Binary(MapOp::kMul, x, scale);
}

template <MapOp op>
Result<Tensors> AddScaled(Call& call) {  // self op alpha * other
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "other"));
  TRY_ASSIGN(const Tensor scaled, Scaled(call, pair.b, "alpha"));
  return One(call.b.Binary(OnType(op, pair.type), pair.a, scaled));
}
Result<Tensors> ReverseSub(Call& call) {  // other - alpha * self
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "other"));
  TRY_ASSIGN(const Tensor scaled, Scaled(call, pair.a, "alpha"));
  return One(call.b.Binary(MapOp::kSub, pair.b, scaled));
}

Result<Tensors> Divide(Call& call) {
  TRY_ASSIGN(const int mode, call.Choice("rounding_mode", {"", "floor", "trunc"}));
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "other", mode == 0));
  if (mode == 1) return One(call.b.Binary(MapOp::kFloorDiv, pair.a, pair.b));
  TRY_ASSIGN(const Tensor quotient, call.b.Binary(MapOp::kDiv, pair.a, pair.b));
  if (mode == 0 || !IsFloat(pair.type)) return Tensors{quotient};
  return One(call.b.Unary(MapOp::kTrunc, quotient));
}

// self ^ exponent; small whole exponents are products.
Result<Tensors> Power(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Operand exponent, call.OperandAt("exponent"));
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "exponent"));
  const Tensor x = pair.a;
  std::optional<double> power = exponent.real;
  if (exponent.size && exponent.size->Constant())
    power = static_cast<double>(*exponent.size->Constant());
  if (power == 1.0) return Tensors{x};
  if (power == 2.0) return One(b.Binary(MapOp::kMul, x, x));
  if (power == 3.0) {
    TRY_ASSIGN(const Tensor square, b.Binary(MapOp::kMul, x, x));
    return One(b.Binary(MapOp::kMul, square, x));
  }
  if (IsFloat(pair.type) && power == 0.5) return One(b.Unary(MapOp::kSqrt, x));
  if (IsFloat(pair.type) && power == -1.0) return One(b.Unary(MapOp::kReciprocal, x));
  if (IsFloat(pair.type) && power == -0.5) {
    TRY_ASSIGN(const Tensor root, b.Unary(MapOp::kSqrt, x));
    return One(b.Unary(MapOp::kReciprocal, root));
  }
  return One(b.Binary(MapOp::kPow, x, pair.b));
}

// Unlike maximum, a number wins over a NaN.
template <MapOp op>
Result<Tensors> IgnoringNan(Call& call) {
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "other"));
  TRY_ASSIGN(Tensor y, b.Binary(OnType(op, pair.type), pair.a, pair.b));
  if (!IsFloat(pair.type)) return Tensors{y};
  TRY_ASSIGN(const Tensor a_is_nan, b.Unary(MapOp::kIsNan, pair.a));
  TRY_ASSIGN(const Tensor b_is_nan, b.Unary(MapOp::kIsNan, pair.b));
  TRY_ASSIGN(y, b.Select(b_is_nan, pair.a, y));
  return One(b.Select(a_is_nan, pair.b, y));
}

Result<Tensor> Truth(TensorBuilder& b, Tensor x) {
  return b.dtype(x) == DType::kBool ? Result<Tensor>(x) : b.Binary(MapOp::kNotEqual, x, 0);
}

template <MapOp op>
Result<Tensors> Logical(Call& call) {
  TRY_ASSIGN(const Tensor self, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor other, call.TensorAt("other"));
  TRY_ASSIGN(const Tensor a, Truth(call.b, self));
  TRY_ASSIGN(const Tensor b, Truth(call.b, other));
  return One(call.b.Binary(op, a, b));
}
Result<Tensors> LogicalNot(Call& call) {
  TRY_ASSIGN(const Tensor self, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor truth, Truth(call.b, self));
  return One(call.b.Unary(MapOp::kLogicalNot, truth));
}
Result<Tensors> BitNot(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  return One(
      call.b.Unary(call.b.dtype(x) == DType::kBool ? MapOp::kLogicalNot : MapOp::kBitNot, x));
}

// ---- choosing, clamping, mixing ----

Result<Tensors> Where(Call& call) {
  TRY_ASSIGN(const Tensor condition, call.TensorAt("condition"));
  TRY_ASSIGN(const Tensor truth, Truth(call.b, condition));
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "other"));
  return One(call.b.Select(truth, pair.a, pair.b));
}

Result<Tensors> MaskedFill(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor mask, call.TensorAt("mask"));
  TRY_ASSIGN(const Operand value, call.OperandAt("value"));
  TRY_ASSIGN(const Tensor filling, call.As(value, call.b.dtype(x)));
  return One(call.b.Select(mask, filling, x));
}

Result<Tensors> Clamp(Call& call) {
  TensorBuilder& b = call.b;
  std::vector<Operand> operands;
  for (const char* name : {"self", "min", "max"})
    if (call.Has(name)) {
      TRY_ASSIGN(operands.emplace_back(), call.OperandAt(name));
    }
  TRY_ASSIGN(const DType type, ResultType(b, operands));
  TRY_ASSIGN(const Operand self, call.OperandAt("self"));
  TRY_ASSIGN(Tensor x, call.As(self, type));
  for (const auto& [name, op] : {std::pair("min", MapOp::kMax), std::pair("max", MapOp::kMin)}) {
    if (!call.Has(name)) continue;
    TRY_ASSIGN(const Operand bound, call.OperandAt(name));
    TRY_ASSIGN(const Tensor limit, call.As(bound, type));
    TRY_ASSIGN(x, b.Binary(op, x, limit));
  }
  return Tensors{x};
}

Result<Tensors> Lerp(Call& call) {  // self + weight (end - self)
  TensorBuilder& b = call.b;
  TRY_ASSIGN(const Pair pair, PairOf(call, "self", "end"));
  TRY_ASSIGN(const Operand weight, call.OperandAt("weight"));
  TRY_ASSIGN(const Tensor w, call.As(weight, pair.type));
  TRY_ASSIGN(const Tensor way, b.Binary(MapOp::kSub, pair.b, pair.a));
  TRY_ASSIGN(const Tensor part, b.Binary(MapOp::kMul, way, w));
  return One(b.Binary(MapOp::kAdd, pair.a, part));
}

template <MapOp op>
Result<Tensors> AddCombined(Call& call) {  // self + value * (tensor1 op tensor2)
  TRY_ASSIGN(const Tensor self, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor a, call.TensorAt("tensor1"));
  TRY_ASSIGN(const Tensor b, call.TensorAt("tensor2"));
  TRY_ASSIGN(Tensor combined, call.b.Binary(op, a, b));
  TRY_ASSIGN(combined, Scaled(call, combined, "value"));
  return One(call.b.Binary(MapOp::kAdd, self, combined));
}

// ---- casts and copies ----

Result<Tensors> To(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const std::optional<DType> dtype, call.DTypeAt());
  return One(call.b.Cast(x, dtype.value_or(call.b.dtype(x))));
}
Result<Tensors> ToTypeOf(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(const Tensor other, call.TensorAt("other"));
  return One(call.b.Cast(x, call.b.dtype(other)));
}
Result<Tensors> Identity(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  return Tensors{x};
}
Result<Tensors> Dropout(Call& call) {
  TRY_ASSIGN(const Tensor x, call.TensorAt("input"));
  TRY_ASSIGN(const bool train, call.Flag("train"));
  if (train) return NotSupported("training; export the model after eval()");
  return Tensors{x};
}
Result<Tensors> Copy(Call& call) {  // src in self's type and shape
  TRY_ASSIGN(const Tensor x, call.TensorAt("self"));
  TRY_ASSIGN(Tensor source, call.TensorAt("src"));
  TRY_ASSIGN(source, call.b.Cast(source, call.b.dtype(x)));
  return One(call.b.Expand(source, call.b.shape(x)));
}

constexpr Operator kOperators[] = {
    {"abs", "default", Same<MapOp::kAbs>},
    {"acos", "default", Real<MapOp::kAcos>},
    {"acosh", "default", Real<MapOp::kAcosh>},
    {"add", "Tensor,Scalar", AddScaled<MapOp::kAdd>},
    {"addcdiv", "default", AddCombined<MapOp::kDiv>},
    {"addcmul", "default", AddCombined<MapOp::kMul>},
    {"alias", "default", Identity},
    {"alpha_dropout", "default", Dropout},
    {"asin", "default", Real<MapOp::kAsin>},
    {"asinh", "default", Real<MapOp::kAsinh>},
    {"atan", "default", Real<MapOp::kAtan>},
    {"atan2", "default", RealArithmetic<MapOp::kAtan2>},
    {"atanh", "default", Real<MapOp::kAtanh>},
    {"bitwise_and", "Tensor,Scalar", Arithmetic<MapOp::kBitAnd>},
    {"__and__", "Tensor,Scalar", Arithmetic<MapOp::kBitAnd>},
    {"bitwise_left_shift", "Tensor,Tensor_Scalar", Arithmetic<MapOp::kShiftLeft>},
    {"__lshift__", "Tensor,Scalar", Arithmetic<MapOp::kShiftLeft>},
    {"bitwise_not", "default", BitNot},
    {"bitwise_or", "Tensor,Scalar", Arithmetic<MapOp::kBitOr>},
    {"__or__", "Tensor,Scalar", Arithmetic<MapOp::kBitOr>},
    {"bitwise_right_shift", "Tensor,Tensor_Scalar", Arithmetic<MapOp::kShiftRight>},
    {"__rshift__", "Tensor,Scalar", Arithmetic<MapOp::kShiftRight>},
    {"bitwise_xor", "Tensor,Scalar", Arithmetic<MapOp::kBitXor>},
    {"__xor__", "Tensor,Scalar", Arithmetic<MapOp::kBitXor>},
    {"ceil", "default", Rounding<MapOp::kCeil>},
    {"celu", "default", Celu},
    {"clamp", "default,Tensor", Clamp},
    {"clamp_max", "default,Tensor", Clamp},
    {"clamp_min", "default,Tensor", Clamp},
    {"clip", "default,Tensor", Clamp},
    {"clone", "default", Identity},
    {"contiguous", "default", Identity},
    {"copy", "default", Copy},
    {"cos", "default", Real<MapOp::kCos>},
    {"cosh", "default", Real<MapOp::kCosh>},
    {"detach", "default", Identity},
    {"detach_copy", "default", Identity},
    {"div", "Tensor,Scalar,Tensor_mode,Scalar_mode", Divide},
    {"divide", "Tensor,Scalar,Tensor_mode,Scalar_mode", Divide},
    {"dropout", "default", Dropout},
    {"elu", "default", Elu},
    {"eq", "Tensor,Scalar", Arithmetic<MapOp::kEqual>},
    {"erf", "default", Real<MapOp::kErf>},
    {"erfc", "default", Erfc},
    {"exp", "default", Real<MapOp::kExp>},
    {"exp2", "default", ScaledArgument<MapOp::kExp>},
    {"expm1", "default", Expm1},
    {"feature_dropout", "default", Dropout},
    {"floor", "default", Rounding<MapOp::kFloor>},
    {"floor_divide", "default,Scalar", Arithmetic<MapOp::kFloorDiv>},
    {"fmax", "default", IgnoringNan<MapOp::kMax>},
    {"fmin", "default", IgnoringNan<MapOp::kMin>},
    {"fmod", "Tensor,Scalar", Arithmetic<MapOp::kFmod>},
    {"frac", "default", Frac},
    {"ge", "Tensor,Scalar", Arithmetic<MapOp::kGreaterEqual>},
    {"gelu", "default", Gelu},
    {"gt", "Tensor,Scalar", Arithmetic<MapOp::kGreater>},
    {"hardshrink", "default", HardShrink},
    {"hardsigmoid", "default", HardSigmoid},
    {"hardswish", "default", HardSwish},
    {"hardtanh", "default", HardTanh},
    {"isfinite", "default", IsFinite},
    {"isinf", "default", Predicate<MapOp::kIsInfinite>},
    {"isnan", "default", Predicate<MapOp::kIsNan>},
    {"le", "Tensor,Scalar", Arithmetic<MapOp::kLessEqual>},
    {"leaky_relu", "default", LeakyRelu},
    {"lerp", "Scalar,Tensor", Lerp},
    {"lift_fresh", "default", Identity},
    {"lift_fresh_copy", "default", Identity},
    {"log", "default", Real<MapOp::kLog>},
    {"log10", "default", LogOfBase<10>},
    {"log1p", "default", Log1p},
    {"log2", "default", LogOfBase<2>},
    {"log_sigmoid", "default", LogSigmoid},
    {"logical_and", "default", Logical<MapOp::kLogicalAnd>},
    {"logical_not", "default", LogicalNot},
    {"logical_or", "default", Logical<MapOp::kLogicalOr>},
    {"logical_xor", "default", Logical<MapOp::kLogicalXor>},
    {"logit", "default", Logit},
    {"lt", "Tensor,Scalar", Arithmetic<MapOp::kLess>},
    {"masked_fill", "Scalar,Tensor", MaskedFill},
    {"max", "other", Arithmetic<MapOp::kMax>},
    {"maximum", "default", Arithmetic<MapOp::kMax>},
    {"min", "other", Arithmetic<MapOp::kMin>},
    {"minimum", "default", Arithmetic<MapOp::kMin>},
    {"mish", "default", Mish},
    {"mul", "Tensor,Scalar", Arithmetic<MapOp::kMul>},
    {"multiply", "Tensor,Scalar", Arithmetic<MapOp::kMul>},
    {"nan_to_num", "default", NanToNum},
    {"ne", "Tensor,Scalar", Arithmetic<MapOp::kNotEqual>},
    {"neg", "default", Same<MapOp::kNeg>},
    {"positive", "default", Identity},
    {"pow", "Tensor_Tensor,Tensor_Scalar,Scalar", Power},
    {"prelu", "default", Prelu},
    {"_prelu_kernel", "default", Prelu},
    {"reciprocal", "default", Real<MapOp::kReciprocal>},
    {"relu", "default", Same<MapOp::kRelu>},
    {"relu6", "default", Relu6},
    {"remainder", "Tensor,Scalar,Scalar_Tensor", Arithmetic<MapOp::kMod>},
    {"requires_grad", "default", Identity},
    {"round", "default,decimals", Rounding<MapOp::kRound>},
    {"rrelu", "default", RRelu},
    {"rsqrt", "default", Real<MapOp::kSqrt, MapOp::kReciprocal>},
    {"rsub", "Tensor,Scalar", ReverseSub},
    {"selu", "default", Selu},
    {"sgn", "default", Same<MapOp::kSign>},
    {"sigmoid", "default", Real<MapOp::kSigmoid>},
    {"sign", "default", Same<MapOp::kSign>},
    {"silu", "default", Silu},
    {"sin", "default", Real<MapOp::kSin>},
    {"sinh", "default", Real<MapOp::kSinh>},
    {"softplus", "default", Softplus},
    {"softshrink", "default", SoftShrink},
    {"sqrt", "default", Real<MapOp::kSqrt>},
    {"square", "default", Square},
    {"sub", "Tensor,Scalar", AddScaled<MapOp::kSub>},
    {"subtract", "Tensor,Scalar", AddScaled<MapOp::kSub>},
    {"tan", "default", Real<MapOp::kTan>},
    {"tanh", "default", Real<MapOp::kTanh>},
    {"threshold", "default", Threshold},
    {"to", "dtype,dtype_layout,device,prim_Device,prim_dtype", To},
    {"to", "other", ToTypeOf},
    {"_to_copy", "default", To},
    {"true_divide", "Tensor,Scalar", RealArithmetic<MapOp::kDiv>},
    {"trunc", "default", Rounding<MapOp::kTrunc>},
    {"fix", "default", Rounding<MapOp::kTrunc>},
    {"type_as", "default", ToTypeOf},
    {"where", "self,ScalarOther,ScalarSelf,Scalar", Where},
};

}  // namespace

std::span<const Operator> ArithmeticOperators() { return kOperators; }

}  // namespace millpower::import::torch
