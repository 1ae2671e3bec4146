// Every term in every type against a reference of its own, in exact integers or long double.
#include "kernels/tensor/elements.h"

#include <algorithm>

#include "base/expression.h"
#include "kernels/tensor/map.h"
#include "kernels/tensor/test_values.h"

namespace millpower::kernels {
namespace {

bool IsComparison(MapOp op) { return op >= MapOp::kEqual && op <= MapOp::kGreaterEqual; }

// ---- The reference ----

Integer FloorOf(Integer a, Integer b) {
  const Integer quotient = a / b;
  return quotient - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

// Modulo 2^128, which is enough: what comes of it wraps into 64 bits or fewer.
Integer Times(Integer a, Integer b) {
  using Unsigned = unsigned __int128;
  return static_cast<Integer>(static_cast<Unsigned>(a) * static_cast<Unsigned>(b));
}

Integer MixOf(Integer x) { return static_cast<Integer>(Mix64(static_cast<uint64_t>(x))); }

// Before it wraps into the type.
Integer IntegerTerm(MapOp op, Integer a, Integer b, DType type) {
  switch (op) {
    case MapOp::kNeg:
      return -a;
    case MapOp::kAbs:
      return a < 0 ? -a : a;
    case MapOp::kSign:
      return a > 0 ? 1 : a < 0 ? -1 : 0;
    case MapOp::kRelu:
      return std::max<Integer>(a, 0);
    case MapOp::kBitNot:
      return -a - 1;
    case MapOp::kMix:
      return MixOf(a);
    case MapOp::kAdd:
      return a + b;
    case MapOp::kSub:
      return a - b;
    case MapOp::kMul:
      return Times(a, b);
    case MapOp::kDiv:
      return b == 0 ? 0 : a / b;
    case MapOp::kFloorDiv:
      return b == 0 ? 0 : FloorOf(a, b);
    case MapOp::kMod:
      return b == 0 ? 0 : a - b * FloorOf(a, b);
    case MapOp::kFmod:
      return b == 0 ? 0 : a % b;
    case MapOp::kPow: {
      if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 == 0 ? 1 : -1) : 0;
      // An even base is 0 modulo 2^64 beyond the 64th power; powers of an odd one come round.
      Integer result = 1;
      const Integer times = a % 2 == 0 ? std::min<Integer>(b, 64) : b % 64 + (b < 64 ? 0 : 64);
      if (a % 2 != 0 && b >= 128) {  // by squaring, independent of the type's width
        Integer base = a, left = b;
        for (; left > 0; left /= 2) {
          if (left % 2 == 1) result = Wrap(Times(result, base), DType::kI64);
          base = Wrap(Times(base, base), DType::kI64);
        }
        return result;
      }
      for (Integer i = 0; i < (a % 2 != 0 ? b : times); ++i)
        result = Wrap(Times(result, a), DType::kI64);
      return result;
    }
    case MapOp::kMin:
      return std::min(a, b);
    case MapOp::kMax:
      return std::max(a, b);
    case MapOp::kBitAnd:
      return a & b;
    case MapOp::kBitOr:
      return a | b;
    case MapOp::kBitXor:
      return a ^ b;
    case MapOp::kShiftLeft:
      return b < 0 || b >= Bits(type) ? 0 : a << static_cast<int>(b);
    case MapOp::kShiftRight:
      return b < 0 || b >= Bits(type) ? (a < 0 ? -1 : 0) : a >> static_cast<int>(b);
    default:
      ADD_FAILURE() << Info(op).name;
      return 0;
  }
}

long double PythonMod(long double a, long double b) {
  const long double r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

long double RealTerm(MapOp op, long double a, long double b) {
  switch (op) {
    case MapOp::kNeg:
      return -a;
    case MapOp::kAbs:
      return std::abs(a);
    case MapOp::kSign:
      return std::isnan(a) ? a : a > 0 ? 1 : a < 0 ? -1 : 0;
    case MapOp::kFloor:
      return std::floor(a);
    case MapOp::kCeil:
      return std::ceil(a);
    case MapOp::kRound:
      return std::nearbyint(a);
    case MapOp::kTrunc:
      return std::trunc(a);
    case MapOp::kSqrt:
      return std::sqrt(a);
    case MapOp::kReciprocal:
      return 1 / a;
    case MapOp::kExp:
      return std::exp(a);
    case MapOp::kLog:
      return std::log(a);
    case MapOp::kSin:
      return std::sin(a);
    case MapOp::kCos:
      return std::cos(a);
    case MapOp::kTan:
      return std::tan(a);
    case MapOp::kAsin:
      return std::asin(a);
    case MapOp::kAcos:
      return std::acos(a);
    case MapOp::kAtan:
      return std::atan(a);
    case MapOp::kSinh:
      return std::sinh(a);
    case MapOp::kCosh:
      return std::cosh(a);
    case MapOp::kTanh:
      return std::tanh(a);
    case MapOp::kAsinh:
      return std::asinh(a);
    case MapOp::kAcosh:
      return std::acosh(a);
    case MapOp::kAtanh:
      return std::atanh(a);
    case MapOp::kErf:
      return std::erf(a);
    case MapOp::kSigmoid:
      return 1 / (1 + std::exp(-a));
    case MapOp::kRelu:
      return a < 0 ? 0 : a;
    case MapOp::kSoftplus:
      return a > 60 ? a : std::log1p(std::exp(a));
    case MapOp::kAdd:
      return a + b;
    case MapOp::kSub:
      return a - b;
    case MapOp::kMul:
      return a * b;
    case MapOp::kDiv:
      return a / b;
    case MapOp::kFloorDiv:
      return b == 0 ? a / b : std::round((a - PythonMod(a, b)) / b);
    case MapOp::kMod:
      return PythonMod(a, b);
    case MapOp::kFmod:
      return std::fmod(a, b);
    case MapOp::kPow:
      // glibc's powl is wrong where the exponent leaves 64 bits.
      return std::abs(b) < 0x1p62L ? std::pow(a, b)
                                   : static_cast<long double>(
                                         std::pow(static_cast<double>(a), static_cast<double>(b)));
    case MapOp::kMin:
      return std::isnan(a) || std::isnan(b) ? a + b : std::min(a, b);
    case MapOp::kMax:
      return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b);
    case MapOp::kAtan2:
      return std::atan2(a, b);
    default:
      ADD_FAILURE() << Info(op).name;
      return 0;
  }
}

template <typename T>
bool Compare(MapOp op, T a, T b) {
  switch (op) {
    case MapOp::kEqual:
      return a == b;
    case MapOp::kNotEqual:
      return a != b;
    case MapOp::kLess:
      return a < b;
    case MapOp::kLessEqual:
      return a <= b;
    case MapOp::kGreater:
      return a > b;
    default:
      return a >= b;
  }
}

Number CastTo(const Number& x, DType type) {
  if (type == DType::kBool) return Number::Of(Integer{x.is_real ? !(x.real == 0) : x.integer != 0});
  if (IsReal(type)) return Number::Of(x.AsReal());
  if (!x.is_real) return Number::Of(Wrap(x.integer, type));
  if (std::isnan(x.real)) return Number::Of(Integer{0});
  if (x.real >= static_cast<long double>(Highest(type))) return Number::Of(Highest(type));
  if (x.real <= static_cast<long double>(Lowest(type))) return Number::Of(Lowest(type));
  return Number::Of(static_cast<Integer>(x.real));
}

// Real results are exact, or nearly: the caller rounds.
Number Reference(MapOp op, DType type, const std::vector<Number>& x) {
  const Number& a = x[0];
  const Number& b = x.size() > 1 ? x[1] : x[0];
  if (op == MapOp::kCast) return CastTo(a, type);
  if (op == MapOp::kSelect) return a.integer != 0 ? x[1] : x[2];
  if (op == MapOp::kIsNan) return Number::Of(Integer{std::isnan(a.real)});
  if (op == MapOp::kIsInfinite) return Number::Of(Integer{std::isinf(a.real)});
  if (IsComparison(op))
    return Number::Of(
        Integer{a.is_real ? Compare(op, a.real, b.real) : Compare(op, a.integer, b.integer)});
  if (op == MapOp::kLogicalNot) return Number::Of(Integer{a.integer == 0});
  if (op == MapOp::kLogicalAnd) return Number::Of(Integer{a.integer != 0 && b.integer != 0});
  if (op == MapOp::kLogicalOr) return Number::Of(Integer{a.integer != 0 || b.integer != 0});
  if (op == MapOp::kLogicalXor) return Number::Of(Integer{(a.integer != 0) != (b.integer != 0)});
  if (IsReal(type)) return Number::Of(RealTerm(op, a.real, b.real));
  return Number::Of(Wrap(IntegerTerm(op, a.integer, b.integer, type), type));
}

// ---- The terms of the table ----

// One term over operands; `argument` is the type of its last argument.
struct Case {
  MapOp op;
  DType type, argument;
  std::vector<DType> operands;
  Expression expression;
  std::string Describe() const {
    return std::string(Info(op).name) + " of " + Name(argument) + " to " + Name(type);
  }
};

// Whether the table takes the types is what Decode says.
std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (int number = 0; number < kMapOpCount; ++number) {
    const auto op = static_cast<MapOp>(number);
    const int arity = Info(op).arity;
    if (arity == 0) continue;
    for (const DType type : kElementTypes)
      for (const DType argument : kElementTypes) {
        Case one{op, type, argument, {}, {}};
        for (int i = 0; i < arity; ++i)
          one.operands.push_back(op == MapOp::kSelect && i == 0 ? DType::kBool : argument);
        for (int i = 0; i < arity; ++i)
          one.expression.Load(i, one.operands[static_cast<size_t>(i)]);
        Term term{.op = op, .type = type};
        for (int16_t i = 0; i < arity; ++i) term.arguments[i] = i;
        one.expression.terms.push_back(term);
        if (Expression::Decode(one.expression.Encode(), one.operands, 1, 0)) cases.push_back(one);
      }
  }
  return cases;
}

TestTensor Compute(const ElementKernels& set, const Case& one, const std::vector<TestTensor>& x) {
  const int64_t count = x[0].count();
  TestTensor y(one.type, count);
  MapTensors tensors{.rank = 1, .dims = {count}, .y = y.data(), .y_strides = {1}};
  for (size_t i = 0; i < x.size(); ++i) {
    tensors.x[i] = x[i].data();
    tensors.x_strides[i] = {1};
  }
  MapKernel(set, one.expression).Run(tensors, {}, 0, count);
  return y;
}

// All edge values with each other, then random ones.
std::vector<TestTensor> Operands(const Case& one, Rng& rng) {
  const std::vector<Number> edges = EdgeValues(one.operands.back());
  const auto n = static_cast<int64_t>(edges.size());
  const int64_t count = n * n + 700;
  std::vector<TestTensor> x;
  for (size_t operand = 0; operand < one.operands.size(); ++operand) {
    TestTensor tensor = RandomTensor(rng, one.operands[operand], count);
    const bool slow = operand + 2 == one.operands.size();
    if (one.operands[operand] == one.operands.back())
      for (int64_t i = 0; i < n * n; ++i)
        tensor.Set(i, edges[static_cast<size_t>(slow ? i / n : i % n)]);
    x.push_back(std::move(tensor));
  }
  return x;
}

// How many units in the last place a result may be off; a little over 0.5: rounded once, but for
// the reference's own rounding.
long double Tolerance(const Case& one) {
  if (one.op >= MapOp::kExp && one.op <= MapOp::kSigmoid) return one.type == DType::kF64 ? 8 : 3;
  switch (one.op) {
    case MapOp::kSoftplus:
    case MapOp::kPow:
    case MapOp::kAtan2:
      return 3;
    case MapOp::kMod:  // r + b rounds
    case MapOp::kFloorDiv:
      return 1;
    default:
      return 0.51L;
  }
}

TEST(Terms, TableHasThemAll) {
  const std::vector<Case> cases = AllCases();
  EXPECT_EQ(std::ranges::count(cases, MapOp::kCast, &Case::op), 13 * 13);
  EXPECT_EQ(std::ranges::count(cases, MapOp::kAdd, &Case::op), 12);
  EXPECT_EQ(std::ranges::count(cases, MapOp::kSin, &Case::op), 4);
  EXPECT_EQ(std::ranges::count(cases, MapOp::kShiftLeft, &Case::op), 8);
}

TEST(Terms, AgreeWithTheReference) {
  for (const Case& one : AllCases()) {
    SCOPED_TRACE(one.Describe());
    Rng rng(7);
    const std::vector<TestTensor> x = Operands(one, rng);
    const TestTensor y = Compute(ElementKernelsOf(ScalarKernels()), one, x);
    for (int64_t i = 0; i < y.count(); ++i) {
      std::vector<Number> arguments;
      for (const TestTensor& operand : x) arguments.push_back(operand.at(i));
      const Number expected = Reference(one.op, one.type, arguments);
      std::string input;
      for (const Number& argument : arguments)
        input += std::to_string(static_cast<double>(argument.AsReal())) + " ";
      if (!IsReal(one.type)) {
        ASSERT_TRUE(y.at(i).integer == expected.integer)
            << input << "gives " << static_cast<double>(y.at(i).AsReal()) << ", not "
            << static_cast<double>(expected.AsReal());
        continue;
      }
      if (one.op == MapOp::kFloorDiv && std::abs(expected.real) > 1e6L) continue;
      ASSERT_LE(UlpsApart(y.at(i), expected.real, one.type), Tolerance(one))
          << input << "gives " << static_cast<double>(y.at(i).real) << ", not "
          << static_cast<double>(expected.real);
    }
  }
}

TEST(Terms, AllSetsGiveTheSameBits) {
  const ElementKernels& scalar = ElementKernelsOf(ScalarKernels());
  for (const Case& one : AllCases()) {
    SCOPED_TRACE(one.Describe());
    Rng rng(11);
    const std::vector<TestTensor> x = Operands(one, rng);
    const TestTensor expected = Compute(scalar, one, x);
    ForEachElementSet([&](const ElementKernels& set) {
      const TestTensor y = Compute(set, one, x);
      for (int64_t i = 0; i < y.count(); ++i) ASSERT_TRUE(SameElement(y, expected, i)) << i;
    });
  }
}

// An element's value depends on nothing but its arguments: not on where in the list it stands, nor
// on how many follow it.
TEST(Terms, DoNotDependOnThePlace) {
  ForEachElementSet([&](const ElementKernels& set) {
    for (const MapOp op : {MapOp::kExp, MapOp::kTanh, MapOp::kErf, MapOp::kLog, MapOp::kSigmoid}) {
      const TermFunction term = set.find_term(op, DType::kF32, DType::kF32);
      std::vector<float> x(67), y(67);
      Rng rng(5);
      for (float& value : x) value = rng.Uniform(-4, 4);
      const auto* arguments = reinterpret_cast<const std::byte*>(x.data());
      term(&arguments, reinterpret_cast<std::byte*>(y.data()), 67);
      for (size_t i = 0; i < x.size(); ++i) {
        const auto* argument = reinterpret_cast<const std::byte*>(&x[i]);
        float alone = 0;
        term(&argument, reinterpret_cast<std::byte*>(&alone), 1);
        if (std::isnan(alone) && std::isnan(y[i])) continue;
        ASSERT_EQ(std::bit_cast<uint32_t>(alone), std::bit_cast<uint32_t>(y[i])) << i;
      }
    }
  });
}

// ---- Accuracy over the whole range ----

long double WorstUlps(MapOp op, const std::vector<float>& x) {
  const ElementKernels& set = *[] { return &ElementKernelsOf(*AvailableKernels().front()); }();
  std::vector<float> y(x.size());
  const auto* argument = reinterpret_cast<const std::byte*>(x.data());
  set.find_term(op, DType::kF32, DType::kF32)(&argument, reinterpret_cast<std::byte*>(y.data()),
                                              static_cast<int64_t>(x.size()));
  long double worst = 0;
  for (size_t i = 0; i < x.size(); ++i)
    worst =
        std::max(worst, UlpsApart(Number::Of(static_cast<long double>(y[i])),
                                  RealTerm(op, static_cast<long double>(x[i]), 0), DType::kF32));
  return worst;
}

std::vector<float> Range(float from, float to, int count) {
  std::vector<float> x;
  for (int i = 0; i <= count; ++i)
    x.push_back(from + (to - from) * static_cast<float>(i) / static_cast<float>(count));
  return x;
}
// Every magnitude, both signs.
std::vector<float> Magnitudes(float least, float most) {
  std::vector<float> x;
  for (float v = least; v < most; v = std::max(v * 1.0007f, std::nextafter(v, most))) {
    x.push_back(v);
    x.push_back(-v);
  }
  return x;
}

TEST(Accuracy, OfFunctionsInF32) {
  EXPECT_LT(WorstUlps(MapOp::kExp, Range(-104, 90, 200000)), 1.5L);
  EXPECT_LT(WorstUlps(MapOp::kExp, Magnitudes(1e-20f, 1)), 1.0L);
  EXPECT_LT(WorstUlps(MapOp::kTanh, Magnitudes(1e-30f, 20)), 2.5L);
  EXPECT_LT(WorstUlps(MapOp::kTanh, Range(-10, 10, 200000)), 2.5L);
  EXPECT_LT(WorstUlps(MapOp::kErf, Magnitudes(1e-30f, 10)), 1.5L);
  EXPECT_LT(WorstUlps(MapOp::kErf, Range(-5, 5, 200000)), 1.5L);
  EXPECT_LT(WorstUlps(MapOp::kSigmoid, Range(-86, 86, 200000)), 2.5L);
  std::vector<float> positive = Range(0.25f, 4, 200000);
  for (const float v : Magnitudes(1e-44f, 3e38f))
    if (v > 0) positive.push_back(v);
  EXPECT_LT(WorstUlps(MapOp::kLog, positive), 1.5L);
}

TEST(RoundToOdd, LetsHalvesRoundOnce) {
  // 1 + 2^-11 lies between two f16; a little more must round up, though f32 cannot tell.
  EXPECT_EQ(F32ToF16(RoundToOdd(1 + 0x1p-11 + 0x1p-40)), 0x3c01);
  EXPECT_EQ(F32ToF16(RoundToOdd(1 + 0x1p-11)), 0x3c00);
  EXPECT_EQ(F32ToF16(RoundToOdd(1e300)), 0x7c00);
  EXPECT_EQ(F32ToF16(RoundToOdd(-1e-300)), 0x8000);
  EXPECT_TRUE(std::isnan(RoundToOdd(NAN)));
  Rng rng(3);
  for (int i = 0; i < 20000; ++i) {
    const double x = static_cast<double>(rng.Uniform(-70000, 70000)) * (1 + rng.Uniform() * 1e-8);
    // The two halves around x, and which is nearer.
    const double near = static_cast<double>(F16ToF32(F32ToF16(RoundToOdd(x))));
    if (std::isinf(near)) continue;
    const uint16_t bits = F32ToF16(static_cast<float>(near));
    for (const int step : {-1, 1})
      EXPECT_LE(std::abs(x - near),
                std::abs(x - static_cast<double>(F16ToF32(static_cast<uint16_t>(bits + step)))));
  }
}

TEST(Halves, ConvertAsTheirTypesDo) {
  ForEachElementSet([&](const ElementKernels& set) {
    std::vector<uint16_t> halves(65536), back(65536);
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
    std::vector<float> wide(65536);
    set.widen_f16(halves.data(), wide.data(), 65536);
    for (size_t i = 0; i < wide.size(); ++i) {
      const float expected = F16ToF32(halves[i]);
      ASSERT_TRUE(std::isnan(expected) ? std::isnan(wide[i]) : wide[i] == expected) << i;
    }
    Rng rng(9);
    for (float& x : wide)
      x = std::bit_cast<float>(static_cast<uint32_t>(rng.Next())) * (rng.Below(2) ? 1 : 1e-3f);
    for (size_t i = 0; i < 2000; ++i) wide[i] = rng.Uniform(-1, 1) * 1e-4f;
    set.narrow_f16(wide.data(), back.data(), 65536);
    for (size_t i = 0; i < wide.size(); ++i)
      ASSERT_TRUE(std::isnan(wide[i]) || back[i] == F32ToF16(wide[i])) << wide[i];
    set.narrow_bf16(wide.data(), back.data(), 65536);
    for (size_t i = 0; i < wide.size(); ++i)
      ASSERT_TRUE(std::isnan(wide[i]) || back[i] == F32ToBf16(wide[i])) << wide[i];
  });
}

}  // namespace
}  // namespace millpower::kernels
