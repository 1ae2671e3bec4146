// Operators on elements.
#include <array>
#include <cmath>
#include <limits>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

template <MapOp op>
Result<Tensor> Unary(Node& n) {
  return n.b.Unary(op, n.in(0));
}

// Before operator set 7, the second operand's dimensions began at `axis` of the first.
Result<Tensor> Aligned(Node& n, Tensor a, Tensor b) {
  if (n.version() >= 7 || n.Int("broadcast", 0) == 0 || !n.HasAttribute("axis")) return b;
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(a)));
  const int behind = n.b.rank(a) - axis - n.b.rank(b);
  for (int i = 0; i < behind; ++i) {
    TRY_ASSIGN(b, n.b.Unsqueeze(b, n.b.rank(b)));
  }
  return b;
}

template <MapOp op>
Result<Tensor> Binary(Node& n) {
  TRY_ASSIGN(const Tensor b, Aligned(n, n.in(0), n.in(1)));
  return n.b.Binary(op, n.in(0), b);
}

// Max, Min, Sum and Mean of any number of operands.
template <MapOp op>
Result<Tensor> Fold(Node& n) {
  TRY_ASSIGN(const std::vector<Tensor> all, n.All());
  Tensor y = all[0];
  for (size_t i = 1; i < all.size(); ++i) {
    TRY_ASSIGN(y, n.b.Binary(op, y, all[i]));
  }
  return y;
}

Result<Tensor> Mean(Node& n) {
  TRY_ASSIGN(const Tensor sum, Fold<MapOp::kAdd>(n));
  return n.b.Binary(MapOp::kDiv, sum, static_cast<double>(n.input_count()));
}

Result<Tensor> Mod(Node& n) {
  return n.b.Binary(n.Int("fmod", 0) == 1 ? MapOp::kFmod : MapOp::kMod, n.in(0), n.in(1));
}

// The result has the base's type, whatever the exponent's.
Result<Tensor> Pow(Node& n) {
  const DType type = n.b.dtype(n.in(0));
  const DType exponent = n.b.dtype(n.in(1));
  if (type == exponent) return Binary<MapOp::kPow>(n);
  if (IsFloat(type) || IsInteger(exponent)) {
    TRY_ASSIGN(const Tensor cast, n.b.Cast(n.in(1), type));
    return n.b.Binary(MapOp::kPow, n.in(0), cast);
  }
  TRY_ASSIGN(const Tensor base, n.b.Cast(n.in(0), DType::kF64));
  TRY_ASSIGN(const Tensor power, n.b.Cast(n.in(1), DType::kF64));
  TRY_ASSIGN(const Tensor y, n.b.Binary(MapOp::kPow, base, power));
  return n.b.Cast(y, type);
}

Result<Tensor> BitShift(Node& n) {
  const std::string direction = n.Text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") return Invalid("direction is LEFT or RIGHT");
  return n.b.Binary(direction == "LEFT" ? MapOp::kShiftLeft : MapOp::kShiftRight, n.in(0), n.in(1));
}

Result<Tensor> Cast(Node& n) {
  if (n.version() < 6) return Unsupported("is read from operator set 6 on");
  TRY_ASSIGN(const DType type, n.TypeAttribute("to", DType::kF32));
  return n.b.Cast(n.in(0), type);
}

Result<Tensor> CastLike(Node& n) { return n.b.Cast(n.in(0), n.b.dtype(n.in(1))); }

Result<Tensor> Where(Node& n) { return n.b.Select(n.in(0), n.in(1), n.in(2)); }

// Bounds are attributes before operator set 11. The lower one goes first: max wins over min.
Result<Tensor> Clip(Node& n) {
  Tensor x = n.in(0);
  if (n.version() < 11) {
    const auto bound = [&](const char* name) {
      return n.HasAttribute(name) ? std::optional(n.Real(name, 0)) : std::nullopt;
    };
    return n.b.Clip(x, bound("min"), bound("max"));
  }
  if (n.has(1)) {
    TRY_ASSIGN(x, n.b.Binary(MapOp::kMax, x, n.in(1)));
  }
  if (n.has(2)) {
    TRY_ASSIGN(x, n.b.Binary(MapOp::kMin, x, n.in(2)));
  }
  return x;
}

Result<Tensor> IsInf(Node& n) {
  const bool positive = n.Int("detect_positive", 1) != 0;
  const bool negative = n.Int("detect_negative", 1) != 0;
  if (positive && negative) return n.b.Unary(MapOp::kIsInfinite, n.in(0));
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load();
  if (!positive && !negative) {
    f.Is(MapOp::kNotEqual, x, x);
    const auto no = f.NumberOf(DType::kBool, 0);
    f(MapOp::kLogicalAnd, no, no);
  } else {
    const double infinity = std::numeric_limits<double>::infinity();
    f.Is(MapOp::kEqual, x, f.Number(positive ? infinity : -infinity));
  }
  return f.Done();
}

// ---- activations ----

Result<Tensor> Gelu(Node& n) { return n.b.Gelu(n.in(0), n.Text("approximate", "none") == "tanh"); }
Result<Tensor> Elu(Node& n) { return n.b.Elu(n.in(0), n.Real("alpha", 1)); }
Result<Tensor> Selu(Node& n) {
  return n.b.Elu(n.in(0), n.Real("alpha", 1.67326319217681884765625),
                 n.Real("gamma", 1.05070102214813232421875));
}
Result<Tensor> LeakyRelu(Node& n) { return n.b.LeakyRelu(n.in(0), n.Real("alpha", 0.01)); }

// max(0, x) + min(0, alpha (exp(x / alpha) - 1))
Result<Tensor> Celu(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load(), zero = f.Number(0), alpha = f.Number(n.Real("alpha", 1));
  const auto grown = f(MapOp::kExp, f(MapOp::kDiv, x, alpha));
  const auto below = f(MapOp::kMul, alpha, f(MapOp::kSub, grown, f.Number(1)));
  f(MapOp::kAdd, f(MapOp::kMax, zero, x), f(MapOp::kMin, zero, below));
  return f.Done();
}

// x tanh(log(1 + exp(x)))
Result<Tensor> Mish(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load();
  f(MapOp::kMul, x, f(MapOp::kTanh, f(MapOp::kSoftplus, x)));
  return f.Done();
}

// max(0, min(1, alpha x + beta))
Result<Tensor> HardSigmoid(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto scaled = f(MapOp::kMul, f.Load(), f.Number(n.Real("alpha", 0.2)));
  f.Clamp(f(MapOp::kAdd, scaled, f.Number(n.Real("beta", 0.5))), 0, 1);
  return f.Done();
}

// x max(0, min(1, x / 6 + 1 / 2))
Result<Tensor> HardSwish(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load();
  const auto scaled = f(MapOp::kMul, x, f.Number(1.0 / 6));
  f(MapOp::kMul, x, f.Clamp(f(MapOp::kAdd, scaled, f.Number(0.5)), 0, 1));
  return f.Done();
}

// x sigmoid(alpha x)
Result<Tensor> Swish(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load();
  f(MapOp::kMul, x, f(MapOp::kSigmoid, f(MapOp::kMul, x, f.Number(n.Real("alpha", 1)))));
  return f.Done();
}

Result<Tensor> ThresholdedRelu(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load();
  f.Select(f.Is(MapOp::kGreater, x, f.Number(n.Real("alpha", 1))), x, f.Number(0));
  return f.Done();
}

Result<Tensor> Softsign(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load();
  f(MapOp::kDiv, x, f(MapOp::kAdd, f.Number(1), f(MapOp::kAbs, x)));
  return f.Done();
}

// Zero near zero, and drawn towards it by `bias` elsewhere.
Result<Tensor> Shrink(Node& n) {
  Formula f(n.b, {n.in(0)});
  const double lambda = n.Real("lambd", 0.5);
  const auto x = f.Load(), bias = f.Number(n.Real("bias", 0));
  const auto above = f.Is(MapOp::kGreater, x, f.Number(lambda));
  const auto below = f.Is(MapOp::kLess, x, f.Number(-lambda));
  const auto positive = f.Select(above, f(MapOp::kSub, x, bias), f.Number(0));
  f.Select(below, f(MapOp::kAdd, x, bias), positive);
  return f.Done();
}

// A slope by channel, before operator set 7, was a list.
Result<Tensor> PRelu(Node& n) {
  Tensor slope = n.in(1);
  if (n.version() < 7 && n.b.rank(slope) == 1) {
    for (int i = 2; i < n.b.rank(n.in(0)); ++i) {
      TRY_ASSIGN(slope, n.b.Unsqueeze(slope, n.b.rank(slope)));
    }
  }
  Formula f(n.b, {n.in(0), slope});
  const auto x = f.Load(0);
  const auto scaled = f(MapOp::kMul, f.Load(1), x);
  f.Select(f.Is(MapOp::kLess, x, f.Number(0)), scaled, x);
  return f.Done();
}

Result<Tensor> Binarizer(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto above = f.Is(MapOp::kGreater, f.Load(), f.Number(n.Real("threshold", 0)));
  f.Select(above, f.Number(1), f.Number(0));
  return f.Done();
}

Result<Tensor> BiasGelu(Node& n) {
  TRY_ASSIGN(const Tensor x, n.b.Binary(MapOp::kAdd, n.in(0), n.in(1)));
  return n.b.Gelu(x, false);
}

Result<Tensor> FastGelu(Node& n) {
  Tensor x = n.in(0);
  if (n.has(1)) {
    TRY_ASSIGN(x, n.b.Binary(MapOp::kAdd, x, n.in(1)));
  }
  return n.b.Gelu(x, true);
}

Result<Tensor> QuickGelu(Node& n) {
  Formula f(n.b, {n.in(0)});
  const auto x = f.Load();
  f(MapOp::kMul, x, f(MapOp::kSigmoid, f(MapOp::kMul, x, f.Number(n.Real("alpha", 1.702)))));
  return f.Done();
}

constexpr const char* kMicrosoft = "com.microsoft";

constexpr Operator kOperators[] = {
    {"", "Abs", One<Unary<MapOp::kAbs>>},
    {"", "Neg", One<Unary<MapOp::kNeg>>},
    {"", "Sign", One<Unary<MapOp::kSign>>},
    {"", "Floor", One<Unary<MapOp::kFloor>>},
    {"", "Ceil", One<Unary<MapOp::kCeil>>},
    {"", "Round", One<Unary<MapOp::kRound>>},
    {"", "Sqrt", One<Unary<MapOp::kSqrt>>},
    {"", "Reciprocal", One<Unary<MapOp::kReciprocal>>},
    {"", "Exp", One<Unary<MapOp::kExp>>},
    {"", "Log", One<Unary<MapOp::kLog>>},
    {"", "Sin", One<Unary<MapOp::kSin>>},
    {"", "Cos", One<Unary<MapOp::kCos>>},
    {"", "Tan", One<Unary<MapOp::kTan>>},
    {"", "Asin", One<Unary<MapOp::kAsin>>},
    {"", "Acos", One<Unary<MapOp::kAcos>>},
    {"", "Atan", One<Unary<MapOp::kAtan>>},
    {"", "Sinh", One<Unary<MapOp::kSinh>>},
    {"", "Cosh", One<Unary<MapOp::kCosh>>},
    {"", "Tanh", One<Unary<MapOp::kTanh>>},
    {"", "Asinh", One<Unary<MapOp::kAsinh>>},
    {"", "Acosh", One<Unary<MapOp::kAcosh>>},
    {"", "Atanh", One<Unary<MapOp::kAtanh>>},
    {"", "Erf", One<Unary<MapOp::kErf>>},
    {"", "Sigmoid", One<Unary<MapOp::kSigmoid>>},
    {"", "Relu", One<Unary<MapOp::kRelu>>},
    {"", "Softplus", One<Unary<MapOp::kSoftplus>>},
    {"", "Not", One<Unary<MapOp::kLogicalNot>>},
    {"", "BitwiseNot", One<Unary<MapOp::kBitNot>>},
    {"", "IsNaN", One<Unary<MapOp::kIsNan>>},
    {"", "IsInf", One<IsInf>},
    {"", "Add", One<Binary<MapOp::kAdd>>, 2},
    {"", "Sub", One<Binary<MapOp::kSub>>, 2},
    {"", "Mul", One<Binary<MapOp::kMul>>, 2},
    {"", "Div", One<Binary<MapOp::kDiv>>, 2},
    {"", "Mod", One<Mod>, 2},
    {"", "Pow", One<Pow>, 2},
    {"", "And", One<Binary<MapOp::kLogicalAnd>>, 2},
    {"", "Or", One<Binary<MapOp::kLogicalOr>>, 2},
    {"", "Xor", One<Binary<MapOp::kLogicalXor>>, 2},
    {"", "Equal", One<Binary<MapOp::kEqual>>, 2},
    {"", "Less", One<Binary<MapOp::kLess>>, 2},
    {"", "LessOrEqual", One<Binary<MapOp::kLessEqual>>, 2},
    {"", "Greater", One<Binary<MapOp::kGreater>>, 2},
    {"", "GreaterOrEqual", One<Binary<MapOp::kGreaterEqual>>, 2},
    {"", "BitwiseAnd", One<Binary<MapOp::kBitAnd>>, 2},
    {"", "BitwiseOr", One<Binary<MapOp::kBitOr>>, 2},
    {"", "BitwiseXor", One<Binary<MapOp::kBitXor>>, 2},
    {"", "BitShift", One<BitShift>, 2},
    {"", "Max", One<Fold<MapOp::kMax>>},
    {"", "Min", One<Fold<MapOp::kMin>>},
    {"", "Sum", One<Fold<MapOp::kAdd>>},
    {"", "Mean", One<Mean>},
    {"", "Cast", One<Cast>},
    {"", "CastLike", One<CastLike>, 2},
    {"", "Where", One<Where>, 3},
    {"", "Clip", One<Clip>},
    {"", "Gelu", One<Gelu>},
    {"", "Elu", One<Elu>},
    {"", "Selu", One<Selu>},
    {"", "Celu", One<Celu>},
    {"", "LeakyRelu", One<LeakyRelu>},
    {"", "Mish", One<Mish>},
    {"", "HardSigmoid", One<HardSigmoid>},
    {"", "HardSwish", One<HardSwish>},
    {"", "Swish", One<Swish>},
    {"", "ThresholdedRelu", One<ThresholdedRelu>},
    {"", "Softsign", One<Softsign>},
    {"", "Shrink", One<Shrink>},
    {"", "PRelu", One<PRelu>, 2},
    {"ai.onnx.ml", "Binarizer", One<Binarizer>},
    {kMicrosoft, "Gelu", One<Gelu>},
    {kMicrosoft, "BiasGelu", One<BiasGelu>, 2},
    {kMicrosoft, "FastGelu", One<FastGelu>},
    {kMicrosoft, "QuickGelu", One<QuickGelu>},
};

}  // namespace

std::span<const Operator> ElementwiseOperators() { return kOperators; }

}  // namespace millpower::import::onnx
