// What the Ledger's tests share: a clock that stands where it is put, and a ledger in memory.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "ledger/ledger.h"
#include "ledger/memory_store.h"

namespace millpower::ledger {

class TestClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns; }
  int64_t UnixSeconds() const override { return unix_s; }
  std::atomic<int64_t> now_ns{1'000'000'000};
  std::atomic<int64_t> unix_s{1'795'000'000};  // 2026-11-18
};

// Waits for a Hold, Post or Void that `call` makes with the Done it is given.
inline Result<void> Await(const std::function<void(Ledger::Done)>& call) {
  auto told = std::make_shared<std::promise<Result<void>>>();
  std::future<Result<void>> result = told->get_future();
  call([told](Result<void> outcome) { told->set_value(std::move(outcome)); });
  return result.get();
}

inline Quantities Tokens(int64_t input, int64_t cached, int64_t output) {
  Quantities quantities{};
  quantities[static_cast<size_t>(Unit::kInputToken)] = input;
  quantities[static_cast<size_t>(Unit::kCachedToken)] = cached;
  quantities[static_cast<size_t>(Unit::kOutputToken)] = output;
  return quantities;
}

inline LedgerOptions QuickRetries() {
  return {.retry_ns = 10'000'000'000, .retry_pause_ns = 200'000};
}

// One ledger over one disk; a tenant "acme" with a project and a key.
class TestLedger {
 public:
  TestLedger() { Reopen(); }

  void Reopen() {
    ledger.reset();
    disk->Restart();
    auto opened = Ledger::Open(std::make_unique<MemoryStore>(disk), clock, QuickRetries());
    ASSERT_TRUE(opened) << opened.error().message;
    ledger = std::move(*opened);
  }

  // Rates for input, cached and output tokens, in micro-units for a million.
  void SetPrices(Micros input, Micros cached, Micros output, Tier tier = Tier::kOnDemand) {
    const std::pair<Unit, Micros> rates[] = {
        {Unit::kInputToken, input}, {Unit::kCachedToken, cached}, {Unit::kOutputToken, output}};
    for (const auto& [unit, rate] : rates) {
      ASSERT_TRUE(
          ledger->AddPrice("test", {.model = "*", .tier = tier, .unit = unit, .rate = rate}));
    }
  }

  void MakeTenant(Micros credit, Bounds tenant_bounds = {}, Bounds project_bounds = {},
                  Bounds key_bounds = {}) {
    auto made = ledger->CreateTenant("test", {.name = "acme", .bounds = std::move(tenant_bounds)});
    ASSERT_TRUE(made) << made.error().message;
    tenant = *made;
    auto in = ledger->CreateProject(
        "test", {.name = "web", .tenant = tenant.number, .bounds = std::move(project_bounds)});
    ASSERT_TRUE(in) << in.error().message;
    project = *in;
    auto with = ledger->CreateKey(
        "test", {.name = "ci", .project = project.number, .bounds = std::move(key_bounds)});
    ASSERT_TRUE(with) << with.error().message;
    key = with->key;
    secret = with->secret;
    if (credit == 0) return;
    ASSERT_TRUE(ledger->AddCredit("test", tenant.number, credit, "first"));
  }

  HoldRequest Request(const std::string& id, int64_t input, int64_t output) const {
    return {.request_id = id,
            .api_request_id = "chatcmpl-" + id,
            .key = key.number,
            .model = "m",
            .endpoint = "chat",
            .most = Tokens(input, 0, output)};
  }

  Result<void> Hold(const std::string& id, int64_t input, int64_t output) {
    return Hold({Request(id, input, output)});
  }
  Result<void> Hold(std::vector<HoldRequest> requests) {
    return Await([&](Ledger::Done done) { ledger->Hold(std::move(requests), std::move(done)); });
  }
  Result<int64_t> Extend(const std::string& id, int64_t wanted) {
    std::promise<Result<int64_t>> told;
    ledger->Extend(id, wanted, [&](Result<int64_t> granted) { told.set_value(granted); });
    return told.get_future().get();
  }
  Result<void> Post(const std::string& id, const Quantities& used) {
    return Await([&](Ledger::Done done) { ledger->Post(id, used, "stop", std::move(done)); });
  }
  Result<void> Void(const std::string& id) {
    return Await([&](Ledger::Done done) { ledger->Void(id, std::move(done)); });
  }

  Micros Credit() const { return ledger->Balance({AccountKind::kCredit, tenant.number}); }
  Micros Held() const { return ledger->Balance({AccountKind::kHeld, tenant.number}); }

  // The books balance, on disk and in memory.
  void ExpectBalanced() const {
    const auto faults = ledger->Verify();
    ASSERT_TRUE(faults);
    EXPECT_TRUE(faults->empty()) << faults->front();
    for (const auto& [account, balance] : disk->tables.balances)
      EXPECT_EQ(ledger->Balance(account), balance) << static_cast<int>(account.kind);
  }

  TestClock clock;
  std::shared_ptr<MemoryDisk> disk = std::make_shared<MemoryDisk>();
  std::unique_ptr<Ledger> ledger;
  Tenant tenant;
  Project project;
  Key key;
  std::string secret;
};

}  // namespace millpower::ledger
