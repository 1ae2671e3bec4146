#include "base/expression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "base/rng.h"

namespace millpower {
namespace {

using testing::HasSubstr;
using enum DType;

// clamp(x0 * 2.5 + cast(index 1), size 0, inf) in f32, and whether it is not x1.
Expression Example() {
  Expression e;
  const auto x = e.Load(0, kF32), scale = e.Constant(kF32, 2.5);
  const auto product = e.Apply(MapOp::kMul, kF32, {x, scale});
  const auto index = e.Apply(MapOp::kCast, kF32, {e.Index(1)});
  const auto sum = e.Apply(MapOp::kAdd, kF32, {product, index});
  const auto least = e.Apply(MapOp::kCast, kF32, {e.Size(0)});
  const auto clamped = e.Apply(MapOp::kMax, kF32, {sum, least});
  e.Apply(MapOp::kNotEqual, kBool, {clamped, e.Load(1, kF32)});
  return e;
}

constexpr DType kTypes[] = {kF32, kF32};

Result<Expression> DecodeAs(const Expression& e, std::span<const DType> types = kTypes) {
  return Expression::Decode(e.Encode(), types, 2, 1);
}

TEST(Expression, OperatorsHaveNames) {
  for (int i = 0; i < kMapOpCount; ++i) {
    const MapOpInfo& info = Info(static_cast<MapOp>(i));
    EXPECT_EQ(static_cast<int>(info.op), i);
    EXPECT_EQ(MapOpFromName(info.name), info.op);
  }
  EXPECT_EQ(MapOpFromName("nothing"), std::nullopt);
}

TEST(Expression, CodeAndTextHoldAllOfIt) {
  const Expression e = Example();
  const auto decoded = DecodeAs(e);
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, e);
  EXPECT_EQ(e.ToString(),
            "t0=x0:f32;t1=const:f32(2.5);t2=mul:f32(t0,t1);t3=index:i64(1);t4=cast:f32(t3);"
            "t5=add:f32(t2,t4);t6=size:i64(0);t7=cast:f32(t6);t8=max:f32(t5,t7);t9=x1:f32;"
            "t10=not_equal:bool(t8,t9)");
  const auto parsed = Expression::Parse(e.ToString());
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(*parsed, e);
}

TEST(Expression, ConstantsComeBackToTheBit) {
  Expression e;
  for (const double value :
       {0.0, -0.0, 0.1, -1e-310, 1e308, std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity(), std::nan(""), -std::nan("1")})
    e.Constant(kF64, value);
  for (const int64_t value : {std::numeric_limits<int64_t>::min(), int64_t{-1}, int64_t{0},
                              std::numeric_limits<int64_t>::max()})
    for (const DType type : {kI64, kU64}) e.Constant(type, value);
  e.Constant(kBool, int64_t{1});
  e.Constant(kU8, int64_t{255});
  e.Constant(kI8, int64_t{-128});
  const auto decoded = Expression::Decode(e.Encode(), {}, 0, 0);
  ASSERT_TRUE(decoded) << decoded.error().message;
  const auto parsed = Expression::Parse(e.ToString());
  ASSERT_TRUE(parsed) << e.ToString();
  EXPECT_EQ(*parsed, e);
}

TEST(Expression, RefusesConstantsThatTheTypeHasNot) {
  for (const auto& [type, value] :
       std::initializer_list<std::pair<DType, int64_t>>{{kBool, 2},
                                                        {kBool, -1},
                                                        {kU8, 256},
                                                        {kU8, -1},
                                                        {kI8, 128},
                                                        {kI8, -129},
                                                        {kI32, int64_t{1} << 31},
                                                        {kU32, int64_t{1} << 32},
                                                        {kF32, 0x7ff8000000000001},
                                                        {kF64, -1}}) {
    Expression e;
    e.terms.push_back({.op = MapOp::kConstant, .type = type, .immediate = value});
    const auto decoded = Expression::Decode(e.Encode(), {}, 0, 0);
    ASSERT_FALSE(decoded) << Name(type) << " " << value;
    EXPECT_THAT(decoded.error().message, HasSubstr("its type has not"));
  }
}

TEST(Expression, NamesTheTermThatIsWrong) {
  const auto error_of = [](const std::function<void(Expression&)>& spoil,
                           std::span<const DType> types = kTypes) {
    Expression e = Example();
    spoil(e);
    const auto decoded = DecodeAs(e, types);
    EXPECT_FALSE(decoded) << e.ToString();
    return decoded ? "" : decoded.error().message;
  };
  const auto with = [&](size_t term, const auto& change) {
    return error_of([&](Expression& e) { change(e.terms[term]); });
  };
  EXPECT_EQ(with(2, [](Term& t) { t.arguments[1] = 2; }),
            "term 2 has an argument that is not an earlier term");
  EXPECT_THAT(with(2, [](Term& t) { t.arguments[0] = -1; }), HasSubstr("term 2 has an argument"));
  EXPECT_THAT(with(2, [](Term& t) { t.arguments[2] = 0; }), HasSubstr("term 2 has an argument"));
  EXPECT_THAT(with(2, [](Term& t) { t.immediate = 1; }), HasSubstr("means nothing"));
  EXPECT_THAT(with(2, [](Term& t) { t.type = kF64; }), HasSubstr("(mul) does not fit"));
  EXPECT_THAT(with(2, [](Term& t) { t.op = static_cast<MapOp>(kMapOpCount); }),
              HasSubstr("operator that does not exist"));
  EXPECT_THAT(with(2, [](Term& t) { t.type = static_cast<DType>(kDTypeCount); }),
              HasSubstr("type that does not exist"));
  EXPECT_THAT(with(0, [](Term& t) { t.immediate = 2; }), HasSubstr("operand that is not there"));
  EXPECT_THAT(with(0, [](Term& t) { t.immediate = -1; }), HasSubstr("operand that is not there"));
  EXPECT_THAT(with(3, [](Term& t) { t.immediate = 2; }), HasSubstr("axis that is not there"));
  EXPECT_THAT(with(6, [](Term& t) { t.immediate = 1; }), HasSubstr("size that is not there"));
  EXPECT_THAT(with(1, [](Term& t) { t.type = kQ8_0; }), HasSubstr("(const) does not fit"));
  EXPECT_THAT(with(10, [](Term& t) { t.type = kF32; }), HasSubstr("(not_equal) does not fit"));
  constexpr DType kOther[] = {kF64, kF32};
  EXPECT_THAT(error_of([](Expression&) {}, kOther), HasSubstr("operand of another type"));
  EXPECT_THAT(error_of([](Expression& e) { e.terms.clear(); }), HasSubstr("1 to 64 terms"));
  EXPECT_THAT(error_of([](Expression& e) {
                for (int i = 0; i < kMaxTerms; ++i) e.Index(0);
              }),
              HasSubstr("1 to 64 terms"));
  std::vector<int64_t> odd = Example().Encode();
  odd.pop_back();
  EXPECT_FALSE(Expression::Decode(odd, kTypes, 2, 1));
}

TEST(Expression, ParseRefusesWhatIsNoTerm) {
  for (const char* text : {"t0", "t0=", "t0=x0", "t0=x0:f99", "t1=x0:f32", "t0=x0:f32(t0)",
                           "t0=add:f32(t0)", "t0=add:f32", "t0=const:f32", "t0=const:f32(a)",
                           "t0=const:i32(1.5)", "t0=index:i64(1", "t0=nothing:f32(1)", "t0=x:f32",
                           "t0=neg:f32(x0)", "t0=neg:f32(t99999)", ";", "t0=x0:f32;;"})
    EXPECT_FALSE(Expression::Parse(text)) << text;
}

// Whatever the bytes say: an error, or an expression that both forms hold.
TEST(Expression, DecodesAnyBytes) {
  constexpr uint64_t kSeed = 17;
  Rng rng(kSeed);
  const std::vector<int64_t> sound = Example().Encode();
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<int64_t> code = sound;
    auto* bytes = reinterpret_cast<uint8_t*>(code.data());
    for (uint64_t changes = 1 + rng.Below(2); changes > 0; --changes)
      bytes[rng.Below(code.size() * 8)] = static_cast<uint8_t>(rng.Below(256));
    const auto decoded = Expression::Decode(code, kTypes, 2, 1);
    if (!decoded) continue;
    ++accepted;
    EXPECT_EQ(decoded->Encode(), code);
    const auto parsed = Expression::Parse(decoded->ToString());
    ASSERT_TRUE(parsed) << decoded->ToString();
    EXPECT_EQ(*parsed, *decoded) << decoded->ToString();
  }
  EXPECT_GT(accepted, 20);
  EXPECT_LT(accepted, 15000);
}

}  // namespace
}  // namespace millpower
