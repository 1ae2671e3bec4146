// Caps and credit under many streams at a time: never exceeded by a micro-unit, and nothing refused
// that they cover. What is right is worked out here again, in the plainest way.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <map>
#include <mutex>
#include <thread>

#include "base/rng.h"
#include "ledger/test_ledger.h"

namespace millpower::ledger {
namespace {

constexpr int kStreams = 64;

// ceil(quantity * rate / 1e6)
int64_t Cost(int64_t quantity, Micros rate) {
  const __int128 product = static_cast<__int128>(quantity) * rate;
  return static_cast<int64_t>(product / 1'000'000 + (product % 1'000'000 != 0));
}

std::string PeriodOf(Period period, int64_t at) {
  if (period == Period::kTotal) return "";
  const time_t time = at;
  tm parts{};
  gmtime_r(&time, &parts);
  char text[16];
  strftime(text, sizeof text, period == Period::kDay ? "%Y-%m-%d" : "%Y-%m", &parts);
  return text;
}

// One request as the oracle sees it.
struct Known {
  std::string id;
  size_t key = 0;
  int64_t at = 0;
  int64_t prompt = 0, output = 0;  // held
  Micros money = 0;                // held, then posted
  int64_t tokens = 0;
  bool is_open = true;
};

struct Oracle {
  Micros input = 0, output = 0;  // rates; cached tokens cost as much as input, or nothing
  Micros cached = 0;
  Micros credit = 0;
  std::vector<Cap> tenant_caps, project_caps;
  std::vector<std::vector<Cap>> key_caps;
  std::vector<Known> all;

  Micros MoneyOf(int64_t prompt, int64_t out) const {
    return Cost(prompt, input) + Cost(out, output);
  }

  int64_t Left(const std::vector<Cap>& caps, Measure measure, int64_t at,
               std::optional<size_t> key) const {
    int64_t left = INT64_MAX;
    for (const Cap& cap : caps) {
      if (cap.measure != measure) continue;
      int64_t used = 0;
      for (const Known& one : all) {
        if (key && one.key != *key) continue;
        if (PeriodOf(cap.period, one.at) != PeriodOf(cap.period, at)) continue;
        used += measure == Measure::kMoney ? one.money : one.tokens;
      }
      left = std::min(left, cap.limit - used);
    }
    return left;
  }
  int64_t Left(Measure measure, size_t key, int64_t at) const {
    int64_t left =
        std::min({Left(tenant_caps, measure, at, {}), Left(project_caps, measure, at, {}),
                  Left(key_caps[key], measure, at, key)});
    if (measure == Measure::kTokens) return left;
    Micros used = 0;
    for (const Known& one : all) used += one.money;
    return std::min(left, credit - used);
  }
};

class CapsRound {
 public:
  explicit CapsRound(uint64_t seed) : seed_(seed), rng_(seed) {}

  void Run() {
    SCOPED_TRACE("seed " + std::to_string(seed_));
    Start();
    const int steps = 60;
    for (int step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      if (rng_.Below(8) == 0) MoveClock();
      std::vector<size_t> open;
      for (size_t i = 0; i < oracle_.all.size(); ++i) {
        if (oracle_.all[i].is_open) open.push_back(i);
      }
      const uint64_t what = rng_.Below(10);
      if (open.empty() || (what < 4 && open.size() < kStreams)) {
        Hold();
      } else if (Known& one = oracle_.all[open[rng_.Below(open.size())]]; what < 7) {
        Extend(one);
      } else {
        Close(one, what == 9);
      }
    }
    for (Known& one : oracle_.all) {
      if (one.is_open && !::testing::Test::HasFailure()) Close(one, false);
    }
    test_.ExpectBalanced();
  }

 private:
  std::vector<Cap> RandomCaps() {
    std::vector<Cap> caps;
    for (const Period period : {Period::kDay, Period::kMonth, Period::kTotal}) {
      for (const Measure measure : {Measure::kMoney, Measure::kTokens}) {
        if (rng_.Below(4) == 0)
          caps.push_back({period, measure, static_cast<int64_t>(rng_.Below(400))});
      }
    }
    return caps;
  }

  void Start() {
    // Prices at which the dearest use of a prompt is that of all its tokens at one price, so that
    // the plain sum is what must be held.
    const bool is_whole = rng_.Below(2) != 0;
    oracle_.input =
        static_cast<Micros>(is_whole ? rng_.Below(4) * 1'000'000 : rng_.Below(3'000'000));
    oracle_.cached = is_whole && rng_.Below(2) ? oracle_.input : 0;
    oracle_.output = static_cast<Micros>(rng_.Below(3'000'000));
    const int64_t now = test_.clock.unix_s;
    test_.clock.unix_s = 1;  // in effect however far back the clock jumps
    test_.SetPrices(oracle_.input, oracle_.cached, oracle_.output);
    test_.clock.unix_s = now;
    oracle_.tenant_caps = RandomCaps();
    oracle_.project_caps = RandomCaps();
    oracle_.key_caps = {RandomCaps(), RandomCaps()};
    oracle_.credit = static_cast<Micros>(1 + rng_.Below(2000));
    test_.MakeTenant(oracle_.credit, {.caps = oracle_.tenant_caps}, {.caps = oracle_.project_caps},
                     {.caps = oracle_.key_caps[0]});
    keys_ = {test_.key.number};
    const auto second = test_.ledger->CreateKey("test", {.name = "second",
                                                         .project = test_.project.number,
                                                         .bounds = {.caps = oracle_.key_caps[1]}});
    ASSERT_TRUE(second);
    keys_.push_back(second->key.number);
  }

  void MoveClock() {
    constexpr int64_t kDay = 86'400;
    int64_t now = test_.clock.unix_s;
    switch (rng_.Below(5)) {
      case 0:  // to the last second of the day
        now += kDay - 1 - now % kDay;
        break;
      case 1:
        now += 1;
        break;
      case 2:
        now += static_cast<int64_t>(rng_.Below(40)) * kDay;
        break;
      case 3:  // back, as a clock that is set does
        now -= static_cast<int64_t>(rng_.Below(40)) * kDay;
        break;
      default: {  // to the last second of the month
        const std::string month = PeriodOf(Period::kMonth, now);
        while (PeriodOf(Period::kMonth, now + 1) == month)
          now += kDay - now % kDay - 1 + (now % kDay == kDay - 1);
        break;
      }
    }
    test_.clock.unix_s = now;
  }

  void Hold() {
    Known one{.id = "r" + std::to_string(oracle_.all.size()) + "-" + std::to_string(tries_++),
              .key = rng_.Below(2),
              .at = test_.clock.unix_s,
              .prompt = static_cast<int64_t>(rng_.Below(30)),
              .output = static_cast<int64_t>(rng_.Below(20))};
    one.money = oracle_.MoneyOf(one.prompt, one.output);
    one.tokens = one.prompt + one.output;
    HoldRequest request = test_.Request(one.id, one.prompt, one.output);
    request.key = keys_[one.key];
    const auto covers = [&](Measure measure, int64_t needed) {
      return needed == 0 || needed <= oracle_.Left(measure, one.key, one.at);
    };
    const bool is_covered =
        covers(Measure::kMoney, one.money) && covers(Measure::kTokens, one.tokens);
    const Result<void> held = test_.Hold({request});
    ASSERT_EQ(held.has_value(), is_covered)
        << one.id << " needs " << one.money << " and " << one.tokens << " tokens of "
        << oracle_.Left(Measure::kMoney, one.key, one.at) << " and "
        << oracle_.Left(Measure::kTokens, one.key, one.at);
    if (held) {
      oracle_.all.push_back(one);
    } else {
      ASSERT_EQ(held.error().code, ErrorCode::kQuotaExceeded);
    }
  }

  void Extend(Known& one) {
    const auto wanted = static_cast<int64_t>(1 + rng_.Below(30));
    const Micros money_left = oracle_.Left(Measure::kMoney, one.key, one.at);
    const int64_t tokens_left = oracle_.Left(Measure::kTokens, one.key, one.at);
    int64_t most = wanted;
    const auto more = [&](int64_t count) {
      return oracle_.MoneyOf(one.prompt, one.output + count) - one.money;
    };
    while (most > 0 && (most > tokens_left || (more(most) > 0 && more(most) > money_left))) --most;
    const Result<int64_t> granted = test_.Extend(one.id, wanted);
    ASSERT_EQ(granted.value_or(0), most) << one.id << " wants " << wanted << " with " << money_left
                                         << " and " << tokens_left << " left";
    if (!granted) {
      ASSERT_EQ(granted.error().code, ErrorCode::kQuotaExceeded);
    }
    one.money += more(most);
    one.output += most;
    one.tokens += most;
  }

  void Close(Known& one, bool is_void) {
    one.is_open = false;
    if (is_void) {
      one.money = one.tokens = 0;
      ASSERT_TRUE(test_.Void(one.id));
      return;
    }
    const auto prompt = static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(one.prompt) + 1));
    const auto cached = static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(prompt) + 1));
    const auto output = static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(one.output) + 1));
    ASSERT_TRUE(test_.Post(one.id, Tokens(prompt - cached, cached, output)));
    one.money = Cost(prompt - cached, oracle_.input) + Cost(cached, oracle_.cached) +
                Cost(output, oracle_.output);
    one.tokens = prompt + output;
  }

  const uint64_t seed_;
  Rng rng_;
  TestLedger test_;
  Oracle oracle_;
  std::vector<Number> keys_;
  int tries_ = 0;
};

TEST(LedgerCaps, AreExactWhateverStreamsAndClocksDo) {
  for (uint64_t seed = 1; seed <= 2000 && !HasFailure(); ++seed) CapsRound(seed).Run();
}

// Real threads. Decisions are made inside the calls, in the order in which the test lets them in;
// what a post or void gives back counts somewhere between its call and its callback. So a decision
// is right if it lies between the room without what may not yet have been given back and the room
// with it.
class Race {
 public:
  Race(TestLedger& test, Micros cap, Micros rate)
      : test_(test), least_(cap), most_(cap), rate_(rate) {}

  void Stream(int number, uint64_t seed, int requests) {
    Rng rng(seed * 1000 + static_cast<uint64_t>(number));
    for (int i = 0; i < requests; ++i) {
      const std::string id =
          std::to_string(seed) + "-" + std::to_string(number) + "-" + std::to_string(i);
      const auto prompt = static_cast<int64_t>(1 + rng.Below(6));
      int64_t output = static_cast<int64_t>(rng.Below(4));
      if (!Decide(Cost(prompt, rate_) + Cost(output, rate_), [&](std::promise<bool>& told) {
            test_.ledger->Hold({test_.Request(id, prompt, output)},
                               [&](Result<void> held) { told.set_value(held.has_value()); });
          }))
        continue;
      Micros held = Cost(prompt, rate_) + Cost(output, rate_);
      for (uint64_t slices = rng.Below(3); slices > 0; --slices) {
        const Micros more = Cost(output + 1, rate_) - Cost(output, rate_);
        if (!Decide(more, [&](std::promise<bool>& told) {
              test_.ledger->Extend(
                  id, 1, [&](Result<int64_t> granted) { told.set_value(granted.has_value()); });
            }))
          break;
        ++output;
        held += more;
      }
      const bool is_void = rng.Below(4) == 0;
      const auto used = static_cast<int64_t>(rng.Below(static_cast<uint64_t>(output) + 1));
      const Micros back = held - (is_void ? 0 : Cost(prompt, rate_) + Cost(used, rate_));
      {
        const std::lock_guard lock(mutex_);
        most_ += back;
      }
      ASSERT_TRUE(is_void ? test_.Void(id) : test_.Post(id, Tokens(prompt, 0, used)));
      const std::lock_guard lock(mutex_);
      least_ += back;
      if (!is_void) posted_ += held - back;
    }
  }

  Micros posted() const { return posted_; }
  int64_t accepted() const { return accepted_; }
  int64_t refused() const { return refused_; }

 private:
  template <typename Call>
  bool Decide(Micros needed, const Call& call) {
    std::promise<bool> told;
    std::future<bool> outcome = told.get_future();
    Micros least, most;
    // One decision at a time: which is let in before another is known only so. What is given back
    // goes on meanwhile.
    const std::lock_guard deciding(deciding_);
    {
      const std::lock_guard lock(mutex_);
      least = least_;
    }
    call(told);
    {
      const std::lock_guard lock(mutex_);
      most = most_;
    }
    const bool is_granted = outcome.get();
    (is_granted ? accepted_ : refused_) += 1;
    if (is_granted) {
      EXPECT_LE(needed, most) << "the cap was exceeded";
      const std::lock_guard lock(mutex_);
      least_ -= needed;
      most_ -= needed;
    } else {
      EXPECT_GT(needed, least) << "it was covered";
    }
    return is_granted;
  }

  TestLedger& test_;
  std::mutex deciding_;
  std::mutex mutex_;
  Micros least_, most_;
  const Micros rate_;
  Micros posted_ = 0;
  int64_t accepted_ = 0, refused_ = 0;
};

// MILLPOWER_RACE_ROUNDS: how many races (20).
TEST(LedgerCaps, HoldUnderThreads) {
  const char* const asked = std::getenv("MILLPOWER_RACE_ROUNDS");
  const uint64_t rounds = asked == nullptr ? 20 : std::strtoull(asked, nullptr, 10);
  for (uint64_t seed = 1; seed <= rounds && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto cap = static_cast<Micros>(40 + RandomBits(seed, 0) % 400);
    const auto rate = static_cast<Micros>(500'000 + RandomBits(seed, 1) % 2'000'000);
    TestLedger test;
    test.SetPrices(rate, 0, rate);
    test.MakeTenant(kMaxMicros / 2, {}, {}, {.caps = {{Period::kTotal, Measure::kMoney, cap}}});
    Race race(test, cap, rate);
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < kStreams; ++i)
        threads.emplace_back([&race, i, seed] { race.Stream(i, seed, 12); });
    }
    EXPECT_LE(race.posted(), cap);
    const auto caps = test.ledger->Caps(Subject::kKey, test.key.number);
    ASSERT_EQ(caps.size(), 1u);
    EXPECT_EQ(caps[0].used, race.posted());
    EXPECT_EQ(caps[0].held, 0);
    EXPECT_GT(race.accepted(), 0);
    EXPECT_GT(race.refused(), 0) << "the cap was never reached";
    test.ExpectBalanced();
  }
}

// No order is imposed on the calls at all: only that the cap holds at every moment, as the books
// themselves tell while it goes on.
TEST(LedgerCaps, HoldUnderThreadsThatNobodyOrders) {
  const Micros cap = 100;
  TestLedger test;
  test.SetPrices(kMicrosPerUnit, kMicrosPerUnit, kMicrosPerUnit);
  test.MakeTenant(kMaxMicros / 2, {}, {.caps = {{Period::kTotal, Measure::kMoney, cap}}});
  std::atomic<Micros> posted{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kStreams; ++i) {
      threads.emplace_back([&, i] {
        Rng rng(static_cast<uint64_t>(i));
        for (int j = 0; j < 30; ++j) {
          const std::string id = std::to_string(i) + "-" + std::to_string(j);
          if (!test.Hold(id, 3, 1)) continue;
          const int64_t more = test.Extend(id, 5).value_or(0);
          const CapState state = test.ledger->Caps(Subject::kProject, test.project.number)[0];
          EXPECT_LE(state.used + state.held, cap);
          if (rng.Below(2)) {
            EXPECT_TRUE(test.Void(id));
          } else {
            EXPECT_TRUE(test.Post(id, Tokens(j % 2, 0, j % 3 ? 0 : 1 + more)));
            posted += j % 2 + (j % 3 ? 0 : 1 + more);
          }
        }
      });
    }
  }
  EXPECT_LE(posted, cap);
  EXPECT_EQ(test.ledger->Balance({AccountKind::kRevenue, 0}), posted);
  test.ExpectBalanced();
}

}  // namespace
}  // namespace millpower::ledger
