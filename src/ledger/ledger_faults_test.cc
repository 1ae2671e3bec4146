// What the Ledger does when the store fails, is slow, or loses its process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "base/rng.h"
#include "ledger/test_ledger.h"

namespace millpower::ledger {
namespace {

using ::testing::HasSubstr;

// Outcomes in the order in which they were told.
class Told {
 public:
  Ledger::Done operator()(std::string what) {
    return [this, what = std::move(what)](Result<void> outcome) {
      Add(what +
          (outcome ? "" : " failed: " + std::to_string(static_cast<int>(outcome.error().code))));
    };
  }
  void Add(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
    changed_.notify_all();
  }
  std::vector<std::string> WaitFor(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return lines_.size() >= count; });
    return lines_;
  }
  size_t count() {
    const std::lock_guard lock(mutex_);
    return lines_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
};

std::string Failed(const std::string& what, ErrorCode code) {
  return what + " failed: " + std::to_string(static_cast<int>(code));
}

constexpr Micros kUnit = kMicrosPerUnit;

struct FaultyLedger : TestLedger {
  FaultyLedger() {
    SetPrices(kUnit, kUnit, kUnit);
    MakeTenant(1000);
  }
  void WaitForFailures(int64_t count) {
    while (ledger->stats().failed_commits < count) std::this_thread::yield();
  }
};

TEST(LedgerFaults, CommitsThatFailAreTriedAgain) {
  FaultyLedger test;
  test.disk->FailCommits(3);
  EXPECT_TRUE(test.Hold("r", 10, 10));
  EXPECT_EQ(test.ledger->stats().failed_commits, 3);
  EXPECT_TRUE(test.ledger->stats().healthy);
  test.disk->FailCommits(2);
  EXPECT_TRUE(test.Post("r", Tokens(10, 0, 5)));
  EXPECT_EQ(test.disk->tables.usage.size(), 1u);
  test.ExpectBalanced();
}

TEST(LedgerFaults, NewHoldsAreRefusedAtOnceWhileTheStoreFails) {
  FaultyLedger test;
  Told told;
  test.disk->FailCommits(INT32_MAX);
  test.ledger->Hold({test.Request("a", 10, 0)}, told("a"));
  test.WaitForFailures(1);
  EXPECT_FALSE(test.ledger->stats().healthy);
  test.ledger->Hold({test.Request("b", 10, 0)}, told("b"));
  EXPECT_EQ(told.WaitFor(1), std::vector{Failed("b", ErrorCode::kUnavailable)});
  test.disk->FailCommits(0);
  EXPECT_EQ(told.WaitFor(2).back(), "a");
  EXPECT_TRUE(test.Hold("b", 10, 0)) << "the id is free, and the store works again";
  EXPECT_EQ(test.Held(), 20);
}

TEST(LedgerFaults, AfterAWhileItGivesUpAndNothingIsBilled) {
  FaultyLedger test;
  Told told;
  ASSERT_TRUE(test.Hold("posts", 10, 10));
  ASSERT_TRUE(test.Hold("extends", 10, 10));
  ASSERT_TRUE(test.Hold("voids", 10, 10));
  test.disk->Block();
  test.ledger->Hold({test.Request("new", 10, 10)}, told("hold"));
  test.disk->WaitUntilBlocked();  // what follows is the next batch
  test.ledger->Post("posts", Tokens(10, 0, 7), "stop", told("post"));
  test.ledger->Extend("extends", 5, [&](Result<int64_t> granted) {
    told.Add(granted ? "extended" : Failed("extend", granted.error().code));
  });
  test.ledger->Void("voids", told("void"));
  EXPECT_EQ(test.Held(), 4 * 20 + 5);
  const int64_t before = test.ledger->stats().failed_commits;
  test.disk->FailCommits(INT32_MAX);
  test.disk->Release();
  test.WaitForFailures(before + 3);
  EXPECT_EQ(told.count(), 0u) << "it is tried again until the time is over";
  test.clock.now_ns += QuickRetries().retry_ns;  // of the batch with the hold
  told.WaitFor(1);
  test.WaitForFailures(test.ledger->stats().failed_commits + 3);
  test.clock.now_ns += QuickRetries().retry_ns;
  const ErrorCode code = ErrorCode::kUnavailable;
  EXPECT_EQ(told.WaitFor(4), (std::vector{Failed("hold", code), Failed("post", code),
                                          Failed("extend", code), Failed("void", code)}));
  EXPECT_EQ(test.Held(), 3 * 20) << "taken back: what was not written; not freed: what is on disk";
  EXPECT_FALSE(test.ledger->stats().healthy);

  test.disk->FailCommits(0);
  while (test.ledger->stats().open_holds > 1) std::this_thread::yield();
  EXPECT_EQ(test.Held(), 20);
  EXPECT_TRUE(test.ledger->stats().healthy);
  EXPECT_TRUE(test.Post("extends", Tokens(10, 0, 10))) << "what it held before is still held";
  EXPECT_EQ(test.Credit(), 1000 - 20);
  ASSERT_EQ(test.disk->tables.usage.size(), 1u);
  EXPECT_EQ(test.Post("posts", Tokens(10, 0, 7)).error().code, ErrorCode::kNotFound);
  const auto audit = test.ledger->store().ListAudit(0, 1000);
  ASSERT_TRUE(audit);
  std::vector<std::string> losses;
  for (const AuditEntry& entry : *audit)
    if (entry.action == "ledger.give_up") losses.push_back(entry.details);
  ASSERT_EQ(losses.size(), 2u);  // a batch each
  EXPECT_THAT(losses[0], testing::HasSubstr(R"("holds":1)"));
  EXPECT_THAT(losses[1], testing::HasSubstr(R"("posts":1,"unbilled":"0.000017")"));
  test.ExpectBalanced();
}

TEST(LedgerFaults, WhatFollowsAHoldThatWasGivenUpFails) {
  FaultyLedger test;
  Told told;
  test.disk->Block();
  test.ledger->Hold({test.Request("r", 10, 10)}, told("hold"));
  test.disk->WaitUntilBlocked();
  test.ledger->Extend("r", 5, [&](Result<int64_t> granted) {
    told.Add(granted ? "extended" : Failed("extend", granted.error().code));
  });
  test.ledger->Post("r", Tokens(10, 0, 0), "stop", told("post"));
  test.disk->FailCommits(INT32_MAX);
  test.clock.now_ns += 1;
  test.disk->Release();
  test.WaitForFailures(1);
  test.clock.now_ns += QuickRetries().retry_ns;
  const ErrorCode code = ErrorCode::kUnavailable;
  EXPECT_EQ(told.WaitFor(3),
            (std::vector{Failed("hold", code), Failed("extend", code), Failed("post", code)}));
  EXPECT_EQ(test.Credit(), 1000);
  test.disk->FailCommits(0);
  while (!test.ledger->stats().healthy) std::this_thread::yield();
  test.ExpectBalanced();
}

TEST(LedgerFaults, AdministrationIsToldAndTakenBack) {
  FaultyLedger test;
  test.ledger
      ->AddPrice("test",
                 {.model = "*", .tier = Tier::kLease, .unit = Unit::kShareHour, .rate = 100})
      .value();
  const int64_t now = test.clock.unix_s;
  const auto failing = [&](const auto& call) {
    test.disk->FailCommits(INT32_MAX);
    const int64_t before = test.ledger->stats().failed_commits;
    auto outcome = std::async(std::launch::async, call);
    test.WaitForFailures(before + 1);
    test.clock.now_ns += QuickRetries().retry_ns;
    const ErrorCode code = outcome.get();
    test.disk->FailCommits(0);
    while (!test.ledger->stats().healthy) std::this_thread::yield();
    return code;
  };
  const auto code_of = [](const auto& result) {
    return result ? ErrorCode::kInternal : result.error().code;
  };
  EXPECT_EQ(failing([&] { return code_of(test.ledger->CreateTenant("test", {.name = "other"})); }),
            ErrorCode::kUnavailable);
  EXPECT_EQ(test.ledger->directory()->tenants().size(), 1u);
  EXPECT_EQ(failing([&] {
              return code_of(test.ledger->AddCredit("test", test.tenant.number, -400, "back"));
            }),
            ErrorCode::kUnavailable);
  EXPECT_EQ(test.Credit(), 1000);
  EXPECT_EQ(failing([&] {
              return code_of(test.ledger->CreateLease("test", {.tenant = test.tenant.number,
                                                               .share_ppm = 1'000'000,
                                                               .starts_at = now,
                                                               .ends_at = now + 3600}));
            }),
            ErrorCode::kUnavailable);
  EXPECT_EQ(test.Credit(), 1000);
  EXPECT_EQ(
      test.ledger->SpentIn(Subject::kTenant, test.tenant.number, Period::kTotal, Measure::kMoney)
          .held,
      0);
  EXPECT_TRUE(test.ledger->CreateTenant("test", {.name = "other"})) << "the name is free";
  test.ExpectBalanced();
}

TEST(LedgerFaults, ClosingIsNotHeldUpByAStoreThatFails) {
  FaultyLedger test;
  Told told;
  ASSERT_TRUE(test.Hold("r", 10, 10));
  test.disk->FailCommits(INT32_MAX);
  test.ledger->Post("r", Tokens(10, 0, 10), "stop", told("post"));
  test.ledger.reset();  // the clock stands still: nothing but closing ends the tries
  EXPECT_EQ(told.WaitFor(1), std::vector{Failed("post", ErrorCode::kUnavailable)});
  test.disk->FailCommits(0);
  test.Reopen();
  EXPECT_EQ(test.ledger->stats().recovered_holds, 1);
  EXPECT_EQ(test.Credit(), 1000);
}

TEST(LedgerFaults, ClosingWritesWhatIsQueued) {
  FaultyLedger test;
  Told told;
  test.disk->Block();
  test.ledger->Hold({test.Request("a", 1, 1)}, told("a"));
  test.disk->WaitUntilBlocked();
  for (int i = 0; i < 5000; ++i)  // more than a batch
    test.ledger->Void("a" + std::to_string(i), told("void"));
  test.ledger->Post("a", Tokens(1, 0, 1), "stop", told("post"));
  test.disk->Release();
  test.ledger.reset();
  EXPECT_EQ(told.WaitFor(5002).back(), "post");
  EXPECT_EQ(test.disk->tables.usage.size(), 1u);
}

TEST(LedgerFaults, ASlowCommitGathersWhatComesMeanwhile) {
  FaultyLedger test;
  Told told;
  test.disk->Block();
  test.ledger->Hold({test.Request("first", 1, 0)}, told("first"));
  test.disk->WaitUntilBlocked();
  const int64_t commits = test.ledger->stats().commits;
  for (int i = 0; i < 100; ++i)
    test.ledger->Hold({test.Request("r" + std::to_string(i), 1, 0)}, told("r"));
  test.disk->Release();
  told.WaitFor(101);
  EXPECT_EQ(test.ledger->stats().commits, commits + 2);
}

// ---- Crashes. A workload of chains (hold, extend, post or void, each on the callback of the one
// before) runs until the process dies between two commits, or with a commit whose outcome it never
// learned; then all must be as the books say, and every success that was told must be there.
class CrashRun {
 public:
  explicit CrashRun(uint64_t seed) : rng_(seed) {
    const int64_t now = test_.clock.unix_s;
    test_.clock.unix_s = 1;  // in effect however far back the clock jumps
    test_.SetPrices(kUnit, kUnit, kUnit);
    test_.clock.unix_s = now;
    test_.MakeTenant(100'000);
  }

  void Cycle(int cycle) {
    posted_.clear();
    const int requests = static_cast<int>(1 + rng_.Below(30));
    test_.disk->CrashAfter(static_cast<int>(rng_.Below(6)), rng_.Below(2) != 0);
    alive_ = requests;
    for (int i = 0; i < requests; ++i) Start(std::to_string(cycle) + "-" + std::to_string(i));
    const std::string reference = "cycle " + std::to_string(cycle);
    std::future<bool> paid;
    if (rng_.Below(3) == 0) {
      paid = std::async(std::launch::async, [this, reference] {
        return test_.ledger->AddCredit("test", test_.tenant.number, 50, reference).has_value();
      });
    }
    while (alive_ > 0 && !test_.disk->is_crashed()) std::this_thread::yield();
    const bool has_crashed = test_.disk->is_crashed();
    // Who waits is let go when the time of the batch it is in is over.
    while (paid.valid() &&
           paid.wait_for(std::chrono::microseconds(100)) != std::future_status::ready)
      test_.clock.now_ns += QuickRetries().retry_ns;
    const bool is_paid = paid.valid() && paid.get();
    test_.ledger.reset();
    test_.clock.unix_s += static_cast<int64_t>(rng_.Below(100'000)) - 20'000;
    const MemoryDisk::Tables& tables = test_.disk->tables;
    const size_t orphans = tables.holds.size();
    if (has_crashed) ++crashes;
    recovered += static_cast<int64_t>(orphans);
    test_.Reopen();
    if (::testing::Test::HasFailure()) return;

    EXPECT_EQ(test_.ledger->stats().recovered_holds, static_cast<int64_t>(orphans));
    EXPECT_EQ(test_.ledger->stats().open_holds, 0);
    EXPECT_TRUE(tables.holds.empty());
    EXPECT_EQ(test_.Held(), 0);
    test_.ExpectBalanced();
    Micros used = 0;
    std::map<std::string, int> posts;
    for (const Posting& posting : tables.postings) {
      if (posting.kind == PostingKind::kPost) ++posts[posting.reference];
    }
    for (const auto& [id, count] : posts) EXPECT_EQ(count, 1) << id;
    for (const Usage& usage : tables.usage) used += usage.amount;
    EXPECT_EQ(tables.usage.size(), tables.usage_of.size());
    EXPECT_EQ(test_.ledger
                  ->SpentIn(Subject::kTenant, test_.tenant.number, Period::kTotal, Measure::kMoney)
                  .used,
              used);
    for (const auto& [id, amount] : posted_) {
      const auto found = tables.usage_of.find(id);
      ASSERT_NE(found, tables.usage_of.end()) << id << " was told to be posted";
      EXPECT_EQ(tables.usage[found->second].amount, amount);
      EXPECT_EQ(test_.Hold(id, 1, 1).error().code, ErrorCode::kAlreadyExists) << id;
      EXPECT_TRUE(test_.Post(id, Tokens(1, 0, 0))) << "posting again changes nothing";
    }
    EXPECT_TRUE(!is_paid || tables.payments.contains(reference));
    EXPECT_EQ(test_.Held(), 0);
  }

  int crashes = 0;
  int64_t recovered = 0;

 private:
  void Start(const std::string& id) {
    Ledger* ledger = test_.ledger.get();
    const auto prompt = static_cast<int64_t>(1 + rng_.Below(10));
    const auto slices = static_cast<int>(rng_.Below(3));
    const bool is_void = rng_.Below(4) == 0;
    ledger->Hold({test_.Request(id, prompt, 2)}, [=, this](Result<void> held) {
      held ? Step(ledger, id, prompt, 2, slices, is_void) : End();
    });
  }
  void Step(Ledger* ledger, const std::string& id, int64_t prompt, int64_t output, int slices,
            bool is_void) {
    if (slices > 0) {
      ledger->Extend(id, 3, [=, this](Result<int64_t> granted) {
        Step(ledger, id, prompt, output + granted.value_or(0), slices - 1, is_void);
      });
    } else if (is_void) {
      ledger->Void(id, [this](Result<void>) { End(); });
    } else {
      ledger->Post(id, Tokens(prompt, 0, output), "stop", [=, this](Result<void> posted) {
        if (posted) posted_[id] = prompt + output;
        End();
      });
    }
  }
  void End() { --alive_; }

  Rng rng_;
  std::map<std::string, Micros> posted_;  // of the writer's thread, until it is gone
  std::atomic<int> alive_{0};
  TestLedger test_;
};

TEST(LedgerFaults, NoCrashLosesOrDoublesAnything) {
  int crashes = 0;
  int64_t recovered = 0;
  for (uint64_t seed = 1; seed <= 120 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    CrashRun run(seed);
    for (int cycle = 0; cycle < 10 && !HasFailure(); ++cycle) {
      SCOPED_TRACE("cycle " + std::to_string(cycle));
      run.Cycle(cycle);
    }
    crashes += run.crashes;
    recovered += run.recovered;
  }
  EXPECT_GT(crashes, 500);
  EXPECT_GT(recovered, 1000);
}

TEST(LedgerFaults, TheClockMayJump) {
  FaultyLedger test;
  const int64_t now = test.clock.unix_s;
  test.ledger
      ->UpdateKey("test",
                  [&] {
                    Key key = test.key;
                    key.bounds.caps = {{Period::kDay, Measure::kMoney, 30}};
                    return key;
                  }())
      .value();
  ASSERT_TRUE(test.Hold("a", 10, 10));
  test.clock.unix_s = now + 86'400;  // the hold stays with its day
  ASSERT_TRUE(test.Hold("b", 10, 20));
  EXPECT_FALSE(test.Hold("c", 1, 0));
  test.clock.unix_s = now;
  EXPECT_FALSE(test.Hold("d", 11, 0)) << "20 of 30 are held since before the jump";
  ASSERT_TRUE(test.Post("a", Tokens(10, 0, 10)));
  EXPECT_FALSE(test.Hold("e", 11, 0)) << "20 of 30 are spent";
  EXPECT_TRUE(test.Hold("f", 10, 0));
  test.Reopen();
  EXPECT_FALSE(test.Hold("g", 11, 0)) << "what was spent is known after a start too";
  EXPECT_TRUE(test.Hold("h", 10, 0));
}

}  // namespace
}  // namespace millpower::ledger
