#include "ledger/book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/rng.h"
#include "ledger/tariff.h"

namespace millpower::ledger {
namespace {

using ::testing::HasSubstr;

constexpr Micros kUnit = kMicrosPerUnit;

int64_t At(int year, unsigned month, unsigned day, int64_t second = 0) {
  using namespace std::chrono;
  const sys_days date = std::chrono::year(year) / std::chrono::month(month) / std::chrono::day(day);
  return date.time_since_epoch().count() * int64_t{86'400} + second;
}

TEST(PeriodIndex, ChangesAtMidnightUtcAndOnTheFirst) {
  EXPECT_EQ(PeriodIndex(Period::kDay, 0), 0);
  EXPECT_EQ(PeriodIndex(Period::kDay, -1), -1);
  EXPECT_EQ(PeriodIndex(Period::kDay, 86'399), 0);
  EXPECT_EQ(PeriodIndex(Period::kDay, 86'400), 1);
  const int64_t leap = At(2028, 2, 29);
  EXPECT_EQ(PeriodIndex(Period::kMonth, leap), PeriodIndex(Period::kMonth, At(2028, 2, 1)));
  EXPECT_EQ(PeriodIndex(Period::kMonth, leap + 86'400), PeriodIndex(Period::kMonth, leap) + 1);
  EXPECT_EQ(PeriodIndex(Period::kMonth, At(2027, 1, 1)),
            PeriodIndex(Period::kMonth, At(2026, 12, 31, 86'399)) + 1);
  EXPECT_EQ(PeriodIndex(Period::kTotal, leap), PeriodIndex(Period::kTotal, 0));
}

// A tenant (1) with a project (2) and two keys (3, 4).
StoredState Stored() {
  StoredState state;
  state.currency = "USD";
  state.tenants.push_back({.number = 1, .id = "ten_1", .name = "acme", .credit_line = 0});
  state.projects.push_back({.number = 2, .id = "proj_2", .name = "web", .tenant = 1});
  for (const Number number : {3, 4}) {
    state.keys.push_back({.number = number,
                          .id = "key",
                          .name = number == 3 ? "ci" : "prod",
                          .tenant = 1,
                          .project = 2});
  }
  state.balances[{AccountKind::kCredit, 1}] = 100;
  state.balances[{AccountKind::kPayments, 0}] = -100;
  return state;
}

Directory DirectoryOf(const StoredState& state) {
  return Directory(state.currency, state.tenants, state.projects, state.keys, {}, {});
}

Charge ChargeOfKey(Number key, Micros money, int64_t tokens, int64_t at = 0) {
  return {.tenant = 1, .project = 2, .key = key, .at = at, .most = {money, tokens}};
}

TEST(Book, SaysWhichCapAndWhatIsLeft) {
  StoredState state = Stored();
  state.balances = {};
  state.tenants[0].credit_line = 100 * kUnit;
  state.keys[0].bounds.caps = {{Period::kDay, Measure::kMoney, 5 * kUnit}};
  state.projects[0].bounds.caps = {{Period::kMonth, Measure::kTokens, 1000}};
  const Directory directory = DirectoryOf(state);
  Book book = *Book::Load(state);
  book.Reserve(ChargeOfKey(3, 4'990'000, 10));
  Charge next = ChargeOfKey(3, 20'000, 10);
  auto refused = book.Check(directory, {&next, 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kQuotaExceeded);
  EXPECT_EQ(refused.error().message,
            "the day cap of key 'ci' (5.00 USD) has 0.01 left; this request needs 0.02");
  next = ChargeOfKey(4, 20'000, 991);
  refused = book.Check(directory, {&next, 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            "the month cap of project 'web' (1000 tokens) has 990 left; this request needs 991");
  next = ChargeOfKey(4, 96 * kUnit, 1);
  refused = book.Check(directory, {&next, 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            "the credit of tenant 'acme' has 95.01 USD left; this request needs 96.00");
}

TEST(Book, AddsUpWhatIsAskedTogether) {
  StoredState state = Stored();
  state.projects[0].bounds.caps = {{Period::kDay, Measure::kTokens, 10}};
  const Directory directory = DirectoryOf(state);
  const Book book = *Book::Load(state);
  const Charge both[] = {ChargeOfKey(3, 1, 5), ChargeOfKey(4, 1, 5)};
  EXPECT_TRUE(book.Check(directory, both));
  const Charge more[] = {ChargeOfKey(3, 1, 5), ChargeOfKey(4, 1, 6)};
  EXPECT_FALSE(book.Check(directory, more));
  const Charge dear[] = {ChargeOfKey(3, 50, 1), ChargeOfKey(4, 51, 1)};
  EXPECT_FALSE(book.Check(directory, dear)) << "credit";
}

TEST(Book, NothingIsCoveredByWhatIsOverdrawn) {
  StoredState state = Stored();
  state.keys[0].bounds.caps = {{Period::kDay, Measure::kMoney, 50}};
  Book book = *Book::Load(state);
  book.Reserve(ChargeOfKey(3, 60, 1));
  const Directory directory = DirectoryOf(state);
  const Charge one = ChargeOfKey(3, 1, 1), free = ChargeOfKey(3, 0, 1);
  const auto refused = book.Check(directory, {&one, 1});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("has 0.00 left"));
  EXPECT_TRUE(book.Check(directory, {&free, 1})) << "what costs nothing needs no money";
}

TEST(Book, CountsToThePeriodOfAdmission) {
  const StoredState state = Stored();
  Book book = *Book::Load(state);
  const int64_t late = At(2026, 11, 30, 86'399), early = At(2026, 12, 1);
  const Charge charge = ChargeOfKey(3, 10, 7, late);
  book.Reserve(charge);
  book.Settle(charge, {4, 3});
  const auto posted = [&](Period period, int64_t at) {
    return book.StateOf(Subject::kKey, 3, period, at).posted;
  };
  EXPECT_EQ(posted(Period::kDay, late), (Totals{4, 3}));
  EXPECT_EQ(posted(Period::kDay, early), (Totals{}));
  EXPECT_EQ(posted(Period::kMonth, early), (Totals{}));
  EXPECT_EQ(posted(Period::kMonth, At(2026, 11, 1)), (Totals{4, 3}));
  EXPECT_EQ(posted(Period::kTotal, early), (Totals{4, 3}));
  EXPECT_EQ(book.StateOf(Subject::kTenant, 1, Period::kDay, late).posted, (Totals{4, 3}));
  EXPECT_EQ(book.StateOf(Subject::kProject, 2, Period::kDay, late).held, (Totals{}));
  EXPECT_EQ(book.StateOf(Subject::kKey, 4, Period::kTotal, late).posted, (Totals{}));
  EXPECT_EQ(book.Balance({AccountKind::kCredit, 1}), 96);
  EXPECT_EQ(book.Balance({AccountKind::kRevenue, 0}), 4);
}

TEST(Book, LoadsWhatWasSpent) {
  StoredState state = Stored();
  state.spent = {
      {.key = 3, .day = PeriodIndex(Period::kDay, At(2026, 11, 30)), .money = 5, .tokens = 50},
      {.key = 4, .day = PeriodIndex(Period::kDay, At(2026, 12, 1)), .money = 7, .tokens = 70}};
  state.leases.push_back(
      {.number = 9, .id = "lease_9", .tenant = 1, .amount = 20, .created_at = At(2026, 12, 2)});
  state.balances[{AccountKind::kRevenue, 0}] = 32;
  state.balances[{AccountKind::kCredit, 1}] = 68;
  const auto book = Book::Load(state);
  ASSERT_TRUE(book) << book.error().message;
  const auto posted = [&](Subject subject, Number number, Period period, int64_t at) {
    return book->StateOf(subject, number, period, at).posted;
  };
  EXPECT_EQ(posted(Subject::kKey, 3, Period::kMonth, At(2026, 11, 1)), (Totals{5, 50}));
  EXPECT_EQ(posted(Subject::kKey, 3, Period::kMonth, At(2026, 12, 1)), (Totals{}));
  EXPECT_EQ(posted(Subject::kProject, 2, Period::kTotal, 0), (Totals{12, 120}));
  EXPECT_EQ(posted(Subject::kTenant, 1, Period::kMonth, At(2026, 12, 9)), (Totals{27, 70}));
}

TEST(Book, RefusesBooksThatDoNotAddUp) {
  const auto fault = [](const std::function<void(StoredState&)>& damage) -> std::string {
    StoredState state = Stored();
    damage(state);
    const auto book = Book::Load(state);
    if (book) return "sound";
    EXPECT_EQ(book.error().code, ErrorCode::kCorrupt);
    return book.error().message;
  };
  EXPECT_EQ(fault([](StoredState&) {}), "sound");
  EXPECT_THAT(fault([](StoredState& state) { state.balances[{AccountKind::kCredit, 1}] += 1; }),
              HasSubstr("add up to 0.000001"));
  EXPECT_THAT(fault([](StoredState& state) { state.balances[{AccountKind::kCredit, 7}] = 0; }),
              HasSubstr("credit account of tenant 7"));
  EXPECT_THAT(fault([](StoredState& state) {
                state.balances[{AccountKind::kCredit, 1}] -= 5;
                state.balances[{AccountKind::kHeld, 1}] += 5;
              }),
              HasSubstr("held account of tenant 1 has 0.000005, its open holds have 0.00"));
  EXPECT_THAT(fault([](StoredState& state) {
                state.balances[{AccountKind::kCredit, 1}] -= 5;
                state.balances[{AccountKind::kRevenue, 0}] += 5;
              }),
              HasSubstr("revenue account has 0.000005"));
  EXPECT_THAT(fault([](StoredState& state) {
                state.holds.push_back({.request_id = "r", .tenant = 1, .project = 2, .key = 8});
              }),
              HasSubstr("the hold of request 'r' is of key 8"));
  EXPECT_THAT(fault([](StoredState& state) { state.spent = {{.key = 8, .day = 3}}; }),
              HasSubstr("key 8 spent on day 3"));
}

// Whatever is used within what is held costs no more than was held; and what is held is no
// more than the dearest use costs (of prompts that are short enough for all splits to be tried).
TEST(Tariff, HoldsCoverEveryUse) {
  const uint64_t seed = 77;
  Rng rng(seed);
  for (int i = 0; i < 300; ++i) {
    std::vector<Price> prices;
    for (const Unit unit : {Unit::kInputToken, Unit::kCachedToken, Unit::kOutputToken}) {
      const auto rate = static_cast<Micros>(rng.Below(uint64_t{1} << rng.Below(24)));
      prices.push_back({.number = static_cast<Number>(prices.size()) + 1,
                        .model = "*",
                        .unit = unit,
                        .rate = rng.Below(4) == 0 ? rate * kUnit : rate});
    }
    const Directory directory("USD", {}, {}, {}, prices, {});
    Quantities most{};
    most[0] = static_cast<int64_t>(rng.Below(40));
    most[2] = static_cast<int64_t>(rng.Below(1000));
    const auto tariff = Tariff::Find(directory, "m", Tier::kOnDemand, 0, most);
    ASSERT_TRUE(tariff);
    const Micros held = tariff->MostOf(most);
    Micros dearest = 0;
    for (int64_t cached = 0; cached <= most[0]; ++cached) {
      Quantities used = most;
      used[0] -= cached;
      used[1] = cached;
      ASSERT_TRUE(tariff->IsWithin(used, most));
      Micros amount = 0;
      for (const UsageLine& line : tariff->Lines(used)) amount += line.amount;
      ASSERT_LE(amount, held) << "seed " << seed << " draw " << i << " cached " << cached;
      dearest = std::max(dearest, amount);
    }
    ASSERT_EQ(dearest, held) << "seed " << seed << " draw " << i;
  }
}

TEST(Tariff, ChargesWhatWasHeldAndNeedsItsPrices) {
  const Directory directory("USD", {}, {}, {},
                            {{.number = 1, .model = "*", .unit = Unit::kInputToken, .rate = kUnit},
                             {.number = 2, .model = "*", .unit = Unit::kChipSecond, .rate = kUnit}},
                            {});
  Quantities most{};
  most[static_cast<size_t>(Unit::kOutputToken)] = 1;
  const auto refused = Tariff::Find(directory, "m", Tier::kOnDemand, 0, most);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(refused.error().message,
            "no price is set for output_token of model 'm' at tier on_demand");

  Quantities time{}, used{};
  time[static_cast<size_t>(Unit::kChipSecond)] = 100;
  used = time;
  used[static_cast<size_t>(Unit::kJoule)] = 5;
  const auto tariff = Tariff::Find(directory, "m", Tier::kOnDemand, 0, time);
  ASSERT_TRUE(tariff);
  EXPECT_TRUE(tariff->IsWithin(used, time)) << "what is not charged for is not bounded";
  EXPECT_EQ(tariff->Lines(used).size(), 1u);
  used[static_cast<size_t>(Unit::kChipSecond)] = 101;
  EXPECT_FALSE(tariff->IsWithin(used, time));
  used = time;
  used[static_cast<size_t>(Unit::kOutputToken)] = 1;
  EXPECT_FALSE(tariff->IsWithin(used, time)) << "tokens are counted in any case";
}

}  // namespace
}  // namespace millpower::ledger
