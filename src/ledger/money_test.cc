#include "ledger/money.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/rng.h"

namespace millpower::ledger {
namespace {

TEST(Money, ReadsWhatIsWritten) {
  EXPECT_EQ(ParseMoney("12"), 12 * kMicrosPerUnit);
  EXPECT_EQ(ParseMoney("12.5"), 12'500'000);
  EXPECT_EQ(ParseMoney("-0.000001"), -1);
  EXPECT_EQ(ParseMoney("0"), 0);
  EXPECT_EQ(ParseMoney("007.10"), 7'100'000);
  EXPECT_EQ(ParseMoney("1000000000"), kMaxMicros);
  EXPECT_EQ(ParseMoney("-1000000000.000000"), -kMaxMicros);
}

TEST(Money, RefusesWhatIsNone) {
  for (const char* text :
       {"", "-", ".", "1.", ".5", "--1", "+1", "1e3", "1,5", " 1", "1 ", "0x10", "1.0000001",
        "1000000000.000001", "99999999999999999999999999", "1.2.3", "nan", "1-", "\xd9\xa1"}) {
    const auto amount = ParseMoney(text);
    ASSERT_FALSE(amount) << text;
    EXPECT_EQ(amount.error().code, ErrorCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(ParseMoney(std::string(1'000'000, '9')));
  EXPECT_TRUE(ParseMoney(std::string(1'000'000, '0')));
}

TEST(Money, WritesAtLeastTwoDecimals) {
  EXPECT_EQ(FormatMoney(12'500'000), "12.50");
  EXPECT_EQ(FormatMoney(-1), "-0.000001");
  EXPECT_EQ(FormatMoney(0), "0.00");
  EXPECT_EQ(FormatMoney(1'234'500), "1.2345");
  EXPECT_EQ(FormatMoney(INT64_MIN), "-9223372036854.775808");
}

TEST(Money, RoundTrips) {
  const uint64_t seed = 20261124;
  Rng rng(seed);
  for (int i = 0; i < 100'000; ++i) {
    // Of every size.
    const Micros most = kMaxMicros >> rng.Below(50);
    Micros amount = static_cast<Micros>(rng.Below(static_cast<uint64_t>(most) + 1));
    if (rng.Below(2)) amount = -amount;
    const auto read = ParseMoney(FormatMoney(amount));
    ASSERT_TRUE(read) << amount;
    ASSERT_EQ(*read, amount) << "seed " << seed << " draw " << i;
  }
}

TEST(CostOf, RoundsUpToAWholeMicroUnit) {
  EXPECT_EQ(CostOf(0, kMaxMicros), 0);
  EXPECT_EQ(CostOf(5, 0), 0);
  EXPECT_EQ(CostOf(1, 1), 1);
  EXPECT_EQ(CostOf(1'000'000, 1), 1);
  EXPECT_EQ(CostOf(1'000'001, 1), 2);
  EXPECT_EQ(CostOf(3, 1'500'000), 5);
  EXPECT_EQ(CostOf(1'000'000, 2'500'000), 2'500'000);
  EXPECT_EQ(CostOf(INT64_MAX, kMaxMicros), kMaxMicros);
  EXPECT_EQ(CostOf(INT64_MAX, INT64_MAX), kMaxMicros);
}

// The properties that holds rest on: never less than exact, by less than one; it grows with the
// quantity; and parts cost together at least the whole, less than one more for each.
TEST(CostOf, GrowsAndIsExactToAMicroUnit) {
  const uint64_t seed = 5;
  Rng rng(seed);
  for (int i = 0; i < 100'000; ++i) {
    const auto rate = static_cast<Micros>(rng.Below(uint64_t{1} << rng.Below(40)));
    const auto a = static_cast<int64_t>(rng.Below(uint64_t{1} << rng.Below(28)));
    const auto b = static_cast<int64_t>(rng.Below(uint64_t{1} << rng.Below(28)));
    const Micros cost = CostOf(a, rate), whole = CostOf(a + b, rate);
    if (whole == kMaxMicros) continue;
    const __int128 exact = static_cast<__int128>(a) * rate;
    const __int128 over = static_cast<__int128>(cost) * kMicrosPerUnit - exact;
    ASSERT_TRUE(over >= 0 && over < kMicrosPerUnit) << "seed " << seed << " draw " << i;
    ASSERT_LE(cost, whole) << "seed " << seed << " draw " << i;
    const Micros parts = cost + CostOf(b, rate);
    ASSERT_TRUE(parts >= whole && parts <= whole + 1) << "seed " << seed << " draw " << i;
  }
}

}  // namespace
}  // namespace millpower::ledger
