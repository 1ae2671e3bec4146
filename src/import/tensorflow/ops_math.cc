// Element-wise operators and reductions.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "import/tensorflow/call.h"

namespace millpower::import {
namespace {

// An expression on operands of one type, written the way formulas are.
class Formula {
 public:
  explicit Formula(DType type) : type_(type) {}

  int16_t Load(int operand) { return expression_.Load(operand, type_); }
  int16_t Number(double value) {
    return IsFloat(type_) ? expression_.Constant(type_, value)
                          : expression_.Constant(type_, static_cast<int64_t>(value));
  }
  int16_t Do(MapOp op, int16_t x) { return expression_.Apply(op, type_, {x}); }
  int16_t Do(MapOp op, int16_t x, int16_t y) { return expression_.Apply(op, type_, {x, y}); }
  int16_t Test(MapOp op, int16_t x) { return expression_.Apply(op, DType::kBool, {x}); }
  int16_t Test(MapOp op, int16_t x, int16_t y) {
    return expression_.Apply(op, DType::kBool, {x, y});
  }
  int16_t Choose(int16_t condition, int16_t x, int16_t y) {
    return expression_.Apply(MapOp::kSelect, type_, {condition, x, y});
  }
  const Expression& expression() const { return expression_; }

 private:
  DType type_;
  Expression expression_;
};

using Body = void (*)(Formula&, int16_t x);
using PairBody = void (*)(Formula&, int16_t x, int16_t y);

template <MapOp op>
Result<Tensor> Unary(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  return call.b.Unary(op, x);
}

template <MapOp op>
Result<Tensor> Binary(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Tensor y, call.In(1));
  return call.b.Binary(op, x, y);
}

template <Body body>
Result<Tensor> Of(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  Formula f(call.b.dtype(x));
  body(f, f.Load(0));
  return call.b.Map(f.expression(), std::span(&x, 1));
}

template <PairBody body>
Result<Tensor> OfPair(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> operands, call.InRange(0, 2));
  if (call.b.dtype(operands[0]) != call.b.dtype(operands[1]))
    return Fail(ErrorCode::kInvalidArgument, "operands of two types");
  Formula f(call.b.dtype(operands[0]));
  const int16_t x = f.Load(0);
  body(f, x, f.Load(1));
  return call.b.Map(f.expression(), operands);
}

void Square(Formula& f, int16_t x) { f.Do(MapOp::kMul, x, x); }
void Rsqrt(Formula& f, int16_t x) { f.Do(MapOp::kReciprocal, f.Do(MapOp::kSqrt, x)); }
void Softsign(Formula& f, int16_t x) {
  f.Do(MapOp::kDiv, x, f.Do(MapOp::kAdd, f.Do(MapOp::kAbs, x), f.Number(1)));
}
void Relu6(Formula& f, int16_t x) {
  f.Do(MapOp::kMin, f.Do(MapOp::kMax, x, f.Number(0)), f.Number(6));
}
void Erfc(Formula& f, int16_t x) { f.Do(MapOp::kSub, f.Number(1), f.Do(MapOp::kErf, x)); }
void IsFinite(Formula& f, int16_t x) {
  f.Test(MapOp::kLess, f.Do(MapOp::kAbs, x), f.Number(std::numeric_limits<double>::infinity()));
}

// log(1 + x) and exp(x) - 1 without losing small x: the error of u = 1 + x (or exp(x)) is made up
// for by a factor that has it, too (W. Kahan; N. Higham, Accuracy and Stability of Numerical
// Algorithms, 1.14).
void Log1p(Formula& f, int16_t x) {
  const int16_t u = f.Do(MapOp::kAdd, x, f.Number(1));
  const int16_t d = f.Do(MapOp::kSub, u, f.Number(1));
  const int16_t log = f.Do(MapOp::kLog, u);
  const int16_t bent = f.Do(MapOp::kDiv, f.Do(MapOp::kMul, log, x), d);
  const int16_t finite = f.Choose(f.Test(MapOp::kIsInfinite, u), log, bent);
  f.Choose(f.Test(MapOp::kEqual, d, f.Number(0)), x, finite);
}
void Expm1(Formula& f, int16_t x) {
  const int16_t u = f.Do(MapOp::kExp, x);
  const int16_t d = f.Do(MapOp::kSub, u, f.Number(1));
  const int16_t bent = f.Do(MapOp::kDiv, f.Do(MapOp::kMul, d, x), f.Do(MapOp::kLog, u));
  const int16_t large = f.Test(MapOp::kGreater, f.Do(MapOp::kAbs, x), f.Number(1));
  f.Choose(f.Test(MapOp::kEqual, d, f.Number(0)), x, f.Choose(large, d, bent));
}

void SquaredDifference(Formula& f, int16_t x, int16_t y) {
  const int16_t d = f.Do(MapOp::kSub, x, y);
  f.Do(MapOp::kMul, d, d);
}
void DivNoNan(Formula& f, int16_t x, int16_t y) {
  f.Choose(f.Test(MapOp::kEqual, y, f.Number(0)), f.Number(0), f.Do(MapOp::kDiv, x, y));
}
void MulNoNan(Formula& f, int16_t x, int16_t y) {
  f.Choose(f.Test(MapOp::kEqual, y, f.Number(0)), f.Number(0), f.Do(MapOp::kMul, x, y));
}
void Xdivy(Formula& f, int16_t x, int16_t y) {
  f.Choose(f.Test(MapOp::kEqual, x, f.Number(0)), f.Number(0), f.Do(MapOp::kDiv, x, y));
}
void Xlogy(Formula& f, int16_t x, int16_t y) {
  const int16_t log = f.Do(MapOp::kMul, x, f.Do(MapOp::kLog, y));
  f.Choose(f.Test(MapOp::kEqual, x, f.Number(0)), f.Number(0), log);
}
void Xlog1py(Formula& f, int16_t x, int16_t y) {
  const int16_t zero = f.Test(MapOp::kEqual, x, f.Number(0));
  Log1p(f, y);
  const int16_t log = static_cast<int16_t>(f.expression().terms.size() - 1);
  f.Choose(zero, f.Number(0), f.Do(MapOp::kMul, x, log));
}

// x + n and x < 0 are remembered: Keras makes negative ids count from the end with them.
Result<Tensor> Add(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Tensor y, call.In(1));
  TRY_ASSIGN(const Tensor sum, call.b.Binary(MapOp::kAdd, x, y));
  const auto by = call.b.KnownIntegers(y);
  if (by && by->size() == 1 && call.b.shape(sum) == call.b.shape(x))
    call.state.shifts[sum.id] = {x.id, by->front()};
  return sum;
}

Result<Tensor> Less(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Tensor y, call.In(1));
  TRY_ASSIGN(const Tensor less, call.b.Binary(MapOp::kLess, x, y));
  const auto bound = call.b.KnownIntegers(y);
  if (bound && bound->size() == 1 && bound->front() == 0 && call.b.shape(less) == call.b.shape(x))
    call.state.negative_tests[less.id] = x.id;
  return less;
}

Result<Tensor> SelectV2(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> x, call.InRange(0, 3));
  TRY_ASSIGN(const Tensor chosen, call.b.Select(x[0], x[1], x[2]));
  const auto test = call.state.negative_tests.find(x[0].id);
  const auto shift = call.state.shifts.find(x[1].id);
  if (test != call.state.negative_tests.end() && shift != call.state.shifts.end() &&
      test->second == x[2].id && shift->second.source == x[2].id)
    call.state.wrapped[chosen.id] = shift->second;
  return chosen;
}

// The older form: a condition of one dimension chooses rows.
Result<Tensor> Select(Call& call) {
  TRY_ASSIGN(std::vector<Tensor> x, call.InRange(0, 3));
  const int rank = call.b.rank(x[1]);
  if (call.b.rank(x[0]) == 1 && rank > 1) {
    ir::Shape rows(static_cast<size_t>(rank), ir::Constant(1));
    rows[0] = call.b.shape(x[0])[0];
    TRY_ASSIGN(x[0], call.b.Reshape(x[0], rows));
  }
  return call.b.Select(x[0], x[1], x[2]);
}

Result<Tensor> AddN(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> terms, call.InRange(0, call.count()));
  if (terms.empty()) return Fail(ErrorCode::kInvalidArgument, "has no operands");
  Tensor sum = terms[0];
  for (size_t i = 1; i < terms.size(); ++i) {
    TRY_ASSIGN(sum, call.b.Binary(MapOp::kAdd, sum, terms[i]));
  }
  return sum;
}

Result<Tensor> Cast(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const DType to, call.Type("DstT"));
  return call.b.Cast(x, to);
}

Result<Tensor> ClipByValue(Call& call) {
  TRY_ASSIGN(const std::vector<Tensor> x, call.InRange(0, 3));
  TRY_ASSIGN(const Tensor low, call.b.Binary(MapOp::kMin, x[0], x[2]));
  return call.b.Binary(MapOp::kMax, low, x[1]);
}

Result<Tensor> LeakyRelu(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  return call.b.LeakyRelu(x, call.FloatOr("alpha", 0.2));
}

Result<Tensor> Elu(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  return call.b.Elu(x, 1);
}

// Klambauer et al., 2017: the constants with which activations keep mean 0 and variance 1.
Result<Tensor> Selu(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  return call.b.Elu(x, 1.6732632423543772, 1.0507009873554805);
}

template <bool log>
Result<Tensor> Softmax(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  if (call.b.rank(x) == 0) return Fail(ErrorCode::kInvalidArgument, "of a scalar");
  return call.b.Softmax(x, call.b.rank(x) - 1, log);
}

// How many boundaries are at or below x.
Result<Tensor> Bucketize(Call& call) {
  TRY_ASSIGN(Tensor x, call.In(0));
  const auto* list = call.Find("boundaries");
  const int count = list && list->has_list() ? list->list().f_size() : 0;
  if (count < 1 || count > kMaxKnown) return Unsupported(fmt::format("{} boundaries", count));
  const std::vector<double> values(list->list().f().begin(), list->list().f().end());
  TRY_ASSIGN(x, call.b.Cast(x, DType::kF32));
  TRY_ASSIGN(x, call.b.Unsqueeze(x, call.b.rank(x)));
  TRY_ASSIGN(const Tensor boundaries,
             call.b.Constant(DType::kF32, {count}, ToBytes(DType::kF32, values)));
  TRY_ASSIGN(const Tensor above, call.b.Binary(MapOp::kGreaterEqual, x, boundaries));
  TRY_ASSIGN(const Tensor ones, call.b.Cast(above, DType::kI32));
  return call.b.Reduce(Reduction::kSum, ones, {call.b.rank(ones) - 1}, false);
}

// ---- reductions ----

Result<std::vector<int>> ReducedAxes(Call& call, int rank) {
  TRY_ASSIGN(const std::vector<int64_t> listed, call.Integers(1, "list of axes"));
  std::vector<int> axes;
  for (const int64_t axis : listed) {
    TRY_ASSIGN(axes.emplace_back(), call.b.Axis(axis, rank));
  }
  return axes;
}

template <Reduction kind>
Result<Tensor> Reduce(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<int> axes, ReducedAxes(call, call.b.rank(x)));
  if (axes.empty()) return x;  // not all of them, as elsewhere
  return call.b.Reduce(kind, x, axes, call.BoolOr("keep_dims", false));
}

Result<Tensor> EuclideanNorm(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const std::vector<int> axes, ReducedAxes(call, call.b.rank(x)));
  if (axes.empty()) return call.b.Unary(MapOp::kAbs, x);
  TRY_ASSIGN(const Tensor squares, call.b.Binary(MapOp::kMul, x, x));
  TRY_ASSIGN(const Tensor sum,
             call.b.Reduce(Reduction::kSum, squares, axes, call.BoolOr("keep_dims", false)));
  return call.b.Unary(MapOp::kSqrt, sum);
}

template <Reduction kind>
Result<Tensor> ArgReduce(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const int axis, call.Axis(1, call.b.rank(x)));
  TRY_ASSIGN(const Tensor place, call.b.Reduce(kind, x, {axis}, false));
  return call.b.Cast(place, call.TypeOr("output_type", DType::kI64));
}

template <Reduction kind>
Result<Tensor> Cumulate(Call& call) {
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const int axis, call.Axis(1, call.b.rank(x)));
  return call.b.Cumulate(kind, x, axis, call.BoolOr("exclusive", false),
                         call.BoolOr("reverse", false));
}

constexpr OpEntry kOps[] = {
    {"Neg", Unary<MapOp::kNeg>},
    {"Abs", Unary<MapOp::kAbs>},
    {"Sign", Unary<MapOp::kSign>},
    {"Floor", Unary<MapOp::kFloor>},
    {"Ceil", Unary<MapOp::kCeil>},
    {"Round", Unary<MapOp::kRound>},
    {"Rint", Unary<MapOp::kRound>},
    {"Sqrt", Unary<MapOp::kSqrt>},
    {"Rsqrt", Of<Rsqrt>},
    {"Reciprocal", Unary<MapOp::kReciprocal>},
    {"Inv", Unary<MapOp::kReciprocal>},
    {"Exp", Unary<MapOp::kExp>},
    {"Expm1", Of<Expm1>},
    {"Log", Unary<MapOp::kLog>},
    {"Log1p", Of<Log1p>},
    {"Sin", Unary<MapOp::kSin>},
    {"Cos", Unary<MapOp::kCos>},
    {"Tan", Unary<MapOp::kTan>},
    {"Asin", Unary<MapOp::kAsin>},
    {"Acos", Unary<MapOp::kAcos>},
    {"Atan", Unary<MapOp::kAtan>},
    {"Sinh", Unary<MapOp::kSinh>},
    {"Cosh", Unary<MapOp::kCosh>},
    {"Tanh", Unary<MapOp::kTanh>},
    {"Asinh", Unary<MapOp::kAsinh>},
    {"Acosh", Unary<MapOp::kAcosh>},
    {"Atanh", Unary<MapOp::kAtanh>},
    {"Erf", Unary<MapOp::kErf>},
    {"Erfc", Of<Erfc>},
    {"Sigmoid", Unary<MapOp::kSigmoid>},
    {"Relu", Unary<MapOp::kRelu>},
    {"Relu6", Of<Relu6>},
    {"LeakyRelu", LeakyRelu},
    {"Elu", Elu},
    {"Selu", Selu},
    {"Softplus", Unary<MapOp::kSoftplus>},
    {"Softsign", Of<Softsign>},
    {"Square", Of<Square>},
    {"LogicalNot", Unary<MapOp::kLogicalNot>},
    {"Invert", Unary<MapOp::kBitNot>},
    {"IsNan", Unary<MapOp::kIsNan>},
    {"IsInf", Unary<MapOp::kIsInfinite>},
    {"IsFinite", Of<IsFinite>},
    {"Add", Add},
    {"AddV2", Add},
    {"AddN", AddN},
    {"AccumulateNV2", AddN},
    {"Sub", Binary<MapOp::kSub>},
    {"Mul", Binary<MapOp::kMul>},
    {"RealDiv", Binary<MapOp::kDiv>},
    {"Div", Binary<MapOp::kDiv>},
    {"TruncateDiv", Binary<MapOp::kDiv>},
    {"FloorDiv", Binary<MapOp::kFloorDiv>},
    {"FloorMod", Binary<MapOp::kMod>},
    {"Mod", Binary<MapOp::kFmod>},
    {"TruncateMod", Binary<MapOp::kFmod>},
    {"Pow", Binary<MapOp::kPow>},
    {"Minimum", Binary<MapOp::kMin>},
    {"Maximum", Binary<MapOp::kMax>},
    {"Atan2", Binary<MapOp::kAtan2>},
    {"SquaredDifference", OfPair<SquaredDifference>},
    {"DivNoNan", OfPair<DivNoNan>},
    {"MulNoNan", OfPair<MulNoNan>},
    {"Xdivy", OfPair<Xdivy>},
    {"Xlogy", OfPair<Xlogy>},
    {"Xlog1py", OfPair<Xlog1py>},
    {"BitwiseAnd", Binary<MapOp::kBitAnd>},
    {"BitwiseOr", Binary<MapOp::kBitOr>},
    {"BitwiseXor", Binary<MapOp::kBitXor>},
    {"LeftShift", Binary<MapOp::kShiftLeft>},
    {"RightShift", Binary<MapOp::kShiftRight>},
    {"Less", Less},
    {"LessEqual", Binary<MapOp::kLessEqual>},
    {"Greater", Binary<MapOp::kGreater>},
    {"GreaterEqual", Binary<MapOp::kGreaterEqual>},
    {"LogicalAnd", Binary<MapOp::kLogicalAnd>},
    {"LogicalOr", Binary<MapOp::kLogicalOr>},
    {"Select", Select},
    {"SelectV2", SelectV2},
    {"Cast", Cast},
    {"ClipByValue", ClipByValue},
    {"Softmax", Softmax<false>},
    {"LogSoftmax", Softmax<true>},
    {"Bucketize", Bucketize},
    {"Sum", Reduce<Reduction::kSum>},
    {"Mean", Reduce<Reduction::kMean>},
    {"Prod", Reduce<Reduction::kProduct>},
    {"Max", Reduce<Reduction::kMax>},
    {"Min", Reduce<Reduction::kMin>},
    {"Any", Reduce<Reduction::kAny>},
    {"All", Reduce<Reduction::kAll>},
    {"EuclideanNorm", EuclideanNorm},
    {"ArgMax", ArgReduce<Reduction::kArgMax>},
    {"ArgMin", ArgReduce<Reduction::kArgMin>},
    {"Cumsum", Cumulate<Reduction::kSum>},
    {"Cumprod", Cumulate<Reduction::kProduct>},
};

}  // namespace

std::span<const OpEntry> MathOps() { return kOps; }

}  // namespace millpower::import
