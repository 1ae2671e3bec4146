#include "base/size.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/rng.h"

namespace millpower {
namespace {

constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

Size SizeOf(const char* text) {
  const auto size = Size::Parse(text);
  EXPECT_TRUE(size) << text;
  return size ? *size : Size();
}

TEST(Size, HasOneText) {
  for (const auto& [text, canonical] : std::initializer_list<std::pair<const char*, const char*>>{
           {"0", "0"},
           {"007", "7"},
           {"-7", "-7"},
           {"batch", "batch"},
           {"batch*26", "26*batch"},
           {"1+batch", "batch+1"},
           {"-1+batch", "batch-1"},
           {"seq*batch+batch*seq", "2*batch*seq"},
           {"b*2*c*3-6*c*b", "0"},
           {"-a", "-a"},
           {"a*a-1*b", "-b+a*a"},
           {"s.0_x*2", "2*s.0_x"},
       }) {
    EXPECT_EQ(SizeOf(text).ToString(), canonical);
    EXPECT_EQ(SizeOf(canonical).ToString(), canonical);
    EXPECT_EQ(SizeOf(canonical), SizeOf(text));
  }
}

TEST(Size, RefusesWhatIsNone) {
  for (const char* text : {"", "+", "-", "+a", "a+", "a++b", "a--b", "2a", "a b", "a*", "*a",
                           "a-b c", "(a)", "a/2", "9223372036854775808", "a[0]", "\xc3\xa4"})
    EXPECT_FALSE(Size::Parse(text)) << text;
  EXPECT_FALSE(Size::Parse(std::string(1025, 'a')));
  EXPECT_FALSE(Size::Parse("9223372036854775807+1"));
  EXPECT_FALSE(Size::Parse("4611686018427387904*2*a"));
  std::string degrees = "a";  // more factors than a product may have
  for (int i = 0; i < 20; ++i) degrees += "*a";
  EXPECT_FALSE(Size::Parse(degrees));
}

TEST(Size, KnowsWhatItIs) {
  EXPECT_EQ(SizeOf("5").Constant(), 5);
  EXPECT_EQ(Size().Constant(), 0);
  EXPECT_EQ(SizeOf("a-a").Constant(), 0);
  EXPECT_EQ(SizeOf("a").Constant(), std::nullopt);
  EXPECT_EQ(SizeOf("a+1").Constant(), std::nullopt);
  EXPECT_TRUE(SizeOf("2*a*b-7").IsMonotone());
  EXPECT_FALSE(SizeOf("a-b").IsMonotone());
  EXPECT_EQ(SizeOf("b*a+c").Symbols(), (std::vector<std::string>{"a", "b", "c"}));
}

TEST(Size, DividesExactlyOrNotAtAll) {
  EXPECT_EQ(SizeOf("8*a*b+4*a").DividedBy(SizeOf("4*a")), SizeOf("2*b+1"));
  EXPECT_EQ(SizeOf("a*a").DividedBy(SizeOf("a")), SizeOf("a"));
  EXPECT_EQ(SizeOf("a").DividedBy(SizeOf("a*a")), std::nullopt);
  EXPECT_EQ(SizeOf("6*a+3").DividedBy(2), std::nullopt);
  EXPECT_EQ(SizeOf("6*a").DividedBy(SizeOf("a+1")), std::nullopt);
  EXPECT_EQ(SizeOf("6*a").DividedBy(0), std::nullopt);
  EXPECT_EQ(Size(kMin).DividedBy(-1), std::nullopt);
}

TEST(Size, OverflowIsNoValue) {
  EXPECT_EQ(Size(kMax).Plus(1), std::nullopt);
  EXPECT_EQ(Size(kMin).Minus(1), std::nullopt);
  EXPECT_EQ(Size(0).Minus(kMin), std::nullopt);
  EXPECT_EQ(Size(kMax).Times(2), std::nullopt);
  const auto huge = [](const std::string&) { return kMax; };
  EXPECT_EQ(SizeOf("2*a").Evaluate(huge), std::nullopt);
  EXPECT_EQ(SizeOf("a*b").Evaluate(huge), std::nullopt);
  EXPECT_EQ(SizeOf("a+1").Evaluate(huge), std::nullopt);
  EXPECT_EQ(SizeOf("a-1").Evaluate(huge), kMax - 1);
  EXPECT_EQ(SizeOf("a").Evaluate([](const std::string&) { return std::nullopt; }), std::nullopt);
  // More terms than a size may have.
  Size a(1), b(1);
  for (int i = 0; i < 10; ++i) {
    a = *a.Plus(Size::Symbol("a" + std::to_string(i)));
    b = *b.Plus(Size::Symbol("b" + std::to_string(i)));
  }
  EXPECT_EQ(a.Times(b), std::nullopt);
}

// Arithmetic on sizes is arithmetic on their values.
TEST(Size, AgreesWithNumbers) {
  constexpr uint64_t kSeed = 6;
  Rng rng(kSeed);
  const auto value_of = [](const std::string& name) -> std::optional<int64_t> {
    return name[0] - 'a' + 2;
  };
  const auto random = [&] {
    Size size(static_cast<int64_t>(rng.Below(9)) - 4);
    for (uint64_t terms = rng.Below(4); terms > 0; --terms) {
      Size term(static_cast<int64_t>(rng.Below(9)) - 4);
      for (uint64_t factors = rng.Below(3); factors > 0; --factors)
        term = *term.Times(Size::Symbol(std::string(1, static_cast<char>('a' + rng.Below(3)))));
      size = *size.Plus(term);
    }
    return size;
  };
  for (int i = 0; i < 2000; ++i) {
    const Size a = random(), b = random();
    const int64_t x = *a.Evaluate(value_of), y = *b.Evaluate(value_of);
    EXPECT_EQ(a.Plus(b)->Evaluate(value_of), x + y) << a.ToString() << " + " << b.ToString();
    EXPECT_EQ(a.Minus(b)->Evaluate(value_of), x - y);
    EXPECT_EQ(a.Times(b)->Evaluate(value_of), x * y) << a.ToString() << " * " << b.ToString();
    EXPECT_EQ(SizeOf(a.ToString().c_str()), a) << a.ToString();
    EXPECT_EQ(*a.Plus(b)->Minus(b), a);
    const auto quotient = a.DividedBy(b);
    EXPECT_EQ(quotient ? quotient->Times(b) : a, a);
  }
}

}  // namespace
}  // namespace millpower
