#include "ledger/sqlite_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <limits>
#include <thread>

#include "ledger/sqlite.h"
#include "ledger/test_store.h"

namespace millpower::ledger {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr Account kRevenue{AccountKind::kRevenue, 0}, kPaidIn{AccountKind::kPayments, 0};
Account Credit(Number tenant) { return {AccountKind::kCredit, tenant}; }
Account Held(Number tenant) { return {AccountKind::kHeld, tenant}; }

class SqliteStoreTest : public testing::Test {
 protected:
  void SetUp() override { Reopen(); }

  std::filesystem::path file() const { return folder_ / "ledger.db"; }
  void Reopen() {
    store_.reset();
    auto opened = OpenSqliteStore(file());
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = std::move(*opened);
  }
  void Commit(const std::vector<Record>& records) {
    const auto committed = store_->Commit(records);
    ASSERT_TRUE(committed) << committed.error().message;
  }
  // Tenants, prices, 10.00 of credit each.
  void Fill() {
    Commit(FirstRecords());
    Commit({Payment{1, 10'000'000, "first payment", kStart},
            Payment{2, 10'000'000, "second payment", kStart}});
  }
  StoredState Load() {
    auto state = store_->Load();
    EXPECT_TRUE(state) << state.error().message;
    return state ? std::move(*state) : StoredState();
  }
  Micros Balance(const Account& account) {
    const StoredState state = Load();
    const auto found = state.balances.find(account);
    return found == state.balances.end() ? 0 : found->second;
  }
  std::vector<std::string> Faults(const std::function<bool(const std::string&)>& live = AllLive) {
    auto faults = store_->Verify(live);
    EXPECT_TRUE(faults) << faults.error().message;
    return faults ? std::move(*faults) : std::vector<std::string>{"it can't be verified"};
  }
  // Into the file, past the store.
  void Sql(const std::string& sql) {
    auto database = Database::Open(file(), {});
    ASSERT_TRUE(database) << database.error().message;
    // By hand in earnest: what history's triggers refuse, too.
    sqlite3_db_config(database->handle(), SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
    sqlite3_db_config(database->handle(), SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
    const auto done = database->Execute(sql);
    ASSERT_TRUE(done) << done.error().message << ": " << sql;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Store> store_;
};

TEST_F(SqliteStoreTest, ANewFileIsEmptyAndBalances) {
  const StoredState state = Load();
  EXPECT_EQ(state.currency, "USD");
  EXPECT_EQ(state.next_number, 1);
  EXPECT_EQ(state.last_audit.number, 0);
  EXPECT_THAT(state.tenants, IsEmpty());
  EXPECT_THAT(state.balances, IsEmpty());
  EXPECT_THAT(Faults(NoneLive), IsEmpty());
}

TEST_F(SqliteStoreTest, KeepsEverythingAsItWas) {
  const std::string evil("Robert'); DROP TABLE tenants;-- \"%s\0\n\xff\xe2\x82\xac", 43);
  Tenant tenant{.number = 1,
                .id = "ten_1",
                .name = evil,
                .created_at = 5,
                .suspended = true,
                .credit_line = std::nullopt,
                .bounds = {.caps = {{Period::kTotal, Measure::kTokens, 12},
                                    {Period::kDay, Measure::kMoney, 7}},
                           .limits = {1, 2, 3}}};
  Project project{
      .number = 2,
      .id = "proj_1",
      .name = evil + "'",
      .tenant = 1,
      .created_at = 6,
      .bounds = {.caps = {{Period::kMonth, Measure::kMoney, INT64_MAX}}, .limits = {4, 5, 6}}};
  Key key{.number = 3,
          .id = "key_1",
          .name = evil,
          .tenant = 1,
          .project = 2,
          .prefix = "abcdefgh",
          .hash = std::string("\0'\xff", 3) + std::string(29, 'h'),
          .created_at = 7,
          .expires_at = 8,
          .revoked_at = 9,
          .models = {"b", "a'", ""},
          .endpoints = {"chat"},
          .bounds = {.caps = {{Period::kDay, Measure::kTokens, 0}}, .limits = {7, 8, 9}}};
  const Price price{.number = 4,
                    .model = evil,
                    .tier = Tier::kBatch,
                    .unit = Unit::kJoule,
                    .rate = kMaxMicros,
                    .effective_at = 10,
                    .created_at = 11};
  Commit({tenant, project, key, price});
  Commit({Payment{1, 5, evil, 12}, NextAudit({}, evil)});
  Reopen();
  const auto expect_same = [&] {
    const StoredState state = Load();
    ASSERT_EQ(state.tenants.size(), 1u);
    EXPECT_EQ(state.tenants[0].name, tenant.name);
    EXPECT_EQ(state.tenants[0].created_at, 5);
    EXPECT_EQ(state.tenants[0].suspended, tenant.suspended);
    EXPECT_EQ(state.tenants[0].credit_line, tenant.credit_line);
    EXPECT_EQ(state.tenants[0].bounds, tenant.bounds);
    ASSERT_EQ(state.projects.size(), 1u);
    EXPECT_EQ(state.projects[0].id, "proj_1");
    EXPECT_EQ(state.projects[0].name, project.name);
    EXPECT_EQ(state.projects[0].tenant, 1);
    EXPECT_EQ(state.projects[0].bounds, project.bounds);
    ASSERT_EQ(state.keys.size(), 1u);
    EXPECT_EQ(state.keys[0].hash, key.hash);
    EXPECT_EQ(state.keys[0].prefix, "abcdefgh");
    EXPECT_EQ(state.keys[0].models, key.models);
    EXPECT_EQ(state.keys[0].endpoints, key.endpoints);
    EXPECT_EQ(state.keys[0].bounds, key.bounds);
    EXPECT_EQ(state.keys[0].expires_at, 8);
    EXPECT_EQ(state.keys[0].revoked_at, 9);
    ASSERT_EQ(state.prices.size(), 1u);
    EXPECT_EQ(state.prices[0].model, evil);
    EXPECT_EQ(state.prices[0].tier, Tier::kBatch);
    EXPECT_EQ(state.prices[0].unit, Unit::kJoule);
    EXPECT_EQ(state.prices[0].rate, kMaxMicros);
    EXPECT_EQ(state.last_audit.action, evil);
    EXPECT_EQ(state.next_number, 5);
  };
  expect_same();
  EXPECT_TRUE(*store_->WasPaid(evil));

  // Written over: nothing of what was before stays.
  tenant.suspended = false;
  tenant.credit_line = -3;
  tenant.bounds.caps.pop_back();
  project.bounds = {};
  key.models = {"c"};
  key.endpoints.clear();
  key.bounds.caps.push_back({Period::kTotal, Measure::kMoney, 4});
  Commit({tenant, project, key});
  expect_same();
  EXPECT_THAT(Faults(), IsEmpty());
}

TEST_F(SqliteStoreTest, HoldsPostsAndGivesBack) {
  Fill();
  const Hold hold = MakeHold("r1", 1, 1'000'000);
  Commit({HoldOpened{hold}});
  EXPECT_EQ(Balance(Credit(1)), 9'000'000);
  EXPECT_EQ(Balance(Held(1)), 1'000'000);
  Commit({HoldExtended{"r1", 500'000, 50, 1, kStart}});
  {
    const StoredState state = Load();
    ASSERT_EQ(state.holds.size(), 1u);
    EXPECT_EQ(state.holds[0].amount, 1'500'000);
    EXPECT_EQ(state.holds[0].tokens, 150);
    EXPECT_EQ(state.holds[0].request_id, "r1");
    EXPECT_EQ(state.holds[0].model, "qwen3");
    EXPECT_EQ(state.holds[0].key, 101);
  }
  EXPECT_FALSE(*store_->WasPosted("r1"));
  Commit({Posted(hold, 100'000, 10, 300'000)});  // 0.05 + 1 micro-unit + 0.60
  EXPECT_TRUE(*store_->WasPosted("r1"));
  const StoredState state = Load();
  EXPECT_THAT(state.holds, IsEmpty());
  EXPECT_EQ(state.balances.at(Credit(1)), 10'000'000 - 650'001);
  EXPECT_EQ(state.balances.at(Held(1)), 0);
  EXPECT_EQ(state.balances.at(kRevenue), 650'001);
  EXPECT_EQ(state.balances.at(kPaidIn), -20'000'000);
  ASSERT_EQ(state.spent.size(), 1u);
  EXPECT_EQ(state.spent[0].key, 101);
  EXPECT_EQ(state.spent[0].day, 20'000);
  EXPECT_EQ(state.spent[0].money, 650'001);
  EXPECT_EQ(state.spent[0].tokens, 400'010);

  const Hold voided = MakeHold("r2", 2, 3'000'000);
  Commit({HoldOpened{voided}});
  Commit({Voided(voided)});
  EXPECT_EQ(Balance(Credit(2)), 10'000'000);
  EXPECT_EQ(Balance(Held(2)), 0);
  EXPECT_FALSE(*store_->WasPosted("r2"));
  EXPECT_THAT(Faults(NoneLive), IsEmpty());
}

TEST_F(SqliteStoreTest, ABatchMayHoldExtendAndCloseTheSameRequest) {
  Fill();
  const Hold a = MakeHold("a", 1, 100), b = MakeHold("b", 1, 200), c = MakeHold("c", 2, 300);
  Commit({HoldOpened{a}, HoldOpened{b}, HoldExtended{"a", 50, 5, 1, kStart}, Posted(a, 3, 4, 5),
          HoldOpened{c}, Voided(b), HoldExtended{"c", 1, 1, 2, kStart}});
  EXPECT_TRUE(*store_->WasPosted("a"));
  const StoredState state = Load();
  ASSERT_EQ(state.holds.size(), 1u);
  EXPECT_EQ(state.holds[0].request_id, "c");
  EXPECT_EQ(state.holds[0].amount, 301);
  EXPECT_EQ(Balance(Held(1)), 0);
  EXPECT_EQ(Balance(Held(2)), 301);
  EXPECT_THAT(Faults(), IsEmpty());
}

TEST_F(SqliteStoreTest, WhatWasWrittenBeforeChangesNothing) {
  Fill();
  const Hold hold = MakeHold("r", 1, 1'000'000);
  const Lease lease{.number = 40,
                    .id = "lease_1",
                    .tenant = 2,
                    .share_ppm = 250'000,
                    .starts_at = kStart,
                    .ends_at = kStart + 3600,
                    .rate = 4'000'000,
                    .amount = 1'000'000,
                    .created_at = kStart};
  Usage charge{.request_id = "lease_1",
               .api_request_id = "",
               .tenant = 2,
               .model = "",
               .endpoint = "",
               .tier = Tier::kLease,
               .admitted_at = kStart,
               .posted_at = kStart,
               .quantities = {0, 0, 0, 0, 0, 0, 0, 250'000},
               .lines = {{Unit::kShareHour, 250'000, kLeasePrice, 1'000'000}},
               .amount = 1'000'000,
               .reason = "lease"};
  const std::vector<Record> all = {HoldOpened{hold}, Posted(hold, 1, 2, 3),
                                   Payment{1, 7, "more", kStart}, LeaseCharged{lease, charge},
                                   NextAudit({}, "something")};
  Commit(all);
  const StoredState once = Load();
  EXPECT_EQ(once.balances.at(Credit(2)), 9'000'000);
  EXPECT_EQ(once.leases.at(0).amount, 1'000'000);
  Commit(all);
  Commit({all[0]});
  Commit({all[1], all[1]});
  const StoredState twice = Load();
  EXPECT_EQ(once.balances, twice.balances);
  EXPECT_EQ(once.spent.size(), twice.spent.size());
  EXPECT_EQ(once.spent[0].money, twice.spent[0].money);
  EXPECT_THAT(twice.holds, IsEmpty());
  EXPECT_EQ(store_->ListUsage({}, 100, 0)->size(), 2u);
  // Another payment that is told with a reference of one before is that one.
  Commit({Payment{2, 1'000, "more", kStart}});
  EXPECT_EQ(once.balances, Load().balances);
  // What was never held can't be posted or extended.
  const Hold unknown = MakeHold("unknown", 1, 5);
  Commit({Posted(unknown, 1, 1, 1), HoldExtended{"unknown", 5, 5, 1, kStart}, Voided(unknown)});
  EXPECT_EQ(once.balances, Load().balances);
  EXPECT_THAT(Faults(NoneLive), IsEmpty());
}

TEST_F(SqliteStoreTest, AVoidedRequestMayBeHeldAgain) {
  Fill();
  const Hold hold = MakeHold("r", 1, 1'000'000);
  Commit({HoldOpened{hold}, Voided(hold), HoldOpened{hold}});
  EXPECT_EQ(Balance(Held(1)), 1'000'000);
  Commit({Posted(hold, 1, 0, 1)});
  EXPECT_TRUE(*store_->WasPosted("r"));
  EXPECT_THAT(Faults(NoneLive), IsEmpty());
}

TEST_F(SqliteStoreTest, WhatCostsNothingNeedsNoPosting) {
  Fill();
  const Hold hold = MakeHold("free", 1, 0);
  Commit({HoldOpened{hold}, Posted(hold, 0, 0, 0)});
  EXPECT_TRUE(*store_->WasPosted("free"));
  EXPECT_EQ(store_->ListPostings(1, 0, INT64_MAX, 100)->size(), 1u);  // the payment
  EXPECT_THAT(Faults(NoneLive), IsEmpty());
}

TEST_F(SqliteStoreTest, LeasesAreChargedAndGivenBack) {
  Fill();
  Lease lease{.number = 40,
              .id = "lease_1",
              .tenant = 1,
              .share_ppm = 500'000,
              .starts_at = kStart,
              .ends_at = kStart + 7200,
              .rate = 4'000'000,
              .amount = 4'000'000,
              .created_at = kStart};
  Usage charge{.request_id = "lease_1",
               .api_request_id = "",
               .tenant = 1,
               .model = "",
               .endpoint = "lease",
               .tier = Tier::kLease,
               .admitted_at = kStart,
               .posted_at = kStart,
               .quantities = {0, 0, 0, 0, 0, 0, 0, 1'000'000},
               .lines = {{Unit::kShareHour, 1'000'000, kLeasePrice, 4'000'000}},
               .amount = 4'000'000,
               .reason = "lease"};
  Commit({LeaseCharged{lease, charge}});
  EXPECT_EQ(Balance(Credit(1)), 6'000'000);
  lease.cancelled_at = kStart + 3600;
  lease.amount = 2'000'000;
  Usage back = charge;
  back.request_id = "lease_1-cancelled";
  back.amount = back.lines[0].amount = -2'000'000;
  back.quantities[7] = back.lines[0].quantity = -500'000;
  Commit({LeaseCharged{lease, back}});
  const StoredState state = Load();
  EXPECT_EQ(state.balances.at(Credit(1)), 8'000'000);
  EXPECT_EQ(state.balances.at(kRevenue), 2'000'000);
  ASSERT_EQ(state.leases.size(), 1u);
  EXPECT_EQ(state.leases[0].cancelled_at, kStart + 3600);
  EXPECT_EQ(state.leases[0].amount, 2'000'000);
  const auto postings = store_->ListPostings(1, 0, INT64_MAX, 100);
  ASSERT_EQ(postings->size(), 3u);
  EXPECT_EQ(postings->at(0).kind, PostingKind::kRefund);
  EXPECT_EQ(postings->at(0).from, kRevenue);
  EXPECT_EQ(postings->at(0).amount, 2'000'000);
  EXPECT_EQ(postings->at(0).reference, "lease_1-cancelled");
  EXPECT_THAT(Faults(NoneLive), IsEmpty());
}

TEST_F(SqliteStoreTest, MoneyIsPaidBack) {
  Fill();
  Commit({Payment{1, -4'000'000, "refund", kStart + 5}});
  EXPECT_EQ(Balance(Credit(1)), 6'000'000);
  EXPECT_EQ(Balance(kPaidIn), -16'000'000);
  const auto postings = store_->ListPostings(1, kStart + 1, INT64_MAX, 100);
  ASSERT_EQ(postings->size(), 1u);
  EXPECT_EQ(postings->at(0).from, Credit(1));
  EXPECT_EQ(postings->at(0).to, kPaidIn);
  EXPECT_EQ(postings->at(0).reference, "refund");
  EXPECT_THAT(Faults(), IsEmpty());
}

TEST_F(SqliteStoreTest, ABatchThatFailsLeavesNothing) {
  Fill();
  const StoredState before = Load();
  Tenant same_name{.number = 3, .id = "ten_3", .name = "Tenant 1", .bounds = {}};
  const Hold hold = MakeHold("r", 1, 1'000'000);
  const auto failed = store_->Commit(std::vector<Record>{HoldOpened{hold}, same_name});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(Load().balances, before.balances);
  EXPECT_THAT(Load().holds, IsEmpty());
  Commit({HoldOpened{hold}});
  EXPECT_EQ(Balance(Held(1)), 1'000'000);
  EXPECT_THAT(Faults(), IsEmpty());
}

TEST_F(SqliteStoreTest, ASumThatLeavesItsBitsIsRefusedRatherThanRounded) {
  Fill();
  Sql("UPDATE balances SET amount = 9223372036854775807 WHERE account = 4");
  const auto failed = store_->Commit(std::vector<Record>{Payment{1, 1, "too much", kStart}});
  EXPECT_FALSE(failed);
  EXPECT_EQ(Balance(Credit(1)), INT64_MAX);
}

// ---- Opening

TEST_F(SqliteStoreTest, OneServerForOneLedger) {
  const auto second = OpenSqliteStore(file());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(second.error().message, HasSubstr("in use"));
  Fill();
  // Those who only read may look meanwhile, and change nothing.
  auto reader = OpenSqliteStore(file(), {.read_only = true});
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ((*reader)->Load()->tenants.size(), 2u);
  EXPECT_THAT(*(*reader)->Verify(AllLive), IsEmpty());
  EXPECT_FALSE((*reader)->Commit(FirstRecords()));
  Commit({Payment{1, 5, "x", kStart}});
  EXPECT_EQ((*reader)->Load()->balances.at(Credit(1)), 10'000'005);
  store_.reset();
  EXPECT_EQ((*reader)->Load()->balances.at(Credit(1)), 10'000'005);
  reader->reset();
  Reopen();
  EXPECT_EQ(Balance(Credit(1)), 10'000'005);
}

TEST_F(SqliteStoreTest, KeepsTheCurrencyOfAFileThatExists) {
  const auto other = folder_ / "other.db";
  EXPECT_EQ((*OpenSqliteStore(other, {.currency = "EUR"}))->Load()->currency, "EUR");
  EXPECT_EQ((*OpenSqliteStore(other, {.currency = "USD"}))->Load()->currency, "EUR");
}

TEST_F(SqliteStoreTest, RefusesWhatIsNotALedger) {
  const auto code = [&](const std::filesystem::path& path, SqliteOptions options = {}) {
    const auto opened = OpenSqliteStore(path, options);
    if (opened) return std::string("opened");
    EXPECT_THAT(opened.error().message, StartsWith(path.string()));
    return std::to_string(static_cast<int>(opened.error().code));
  };
  const auto name = [](ErrorCode error) { return std::to_string(static_cast<int>(error)); };
  EXPECT_EQ(code(folder_ / "none.db", {.create = false}), name(ErrorCode::kNotFound));
  EXPECT_EQ(code(folder_ / "none.db", {.read_only = true}), name(ErrorCode::kNotFound));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "none.db.lock"));
  EXPECT_EQ(code(folder_ / "no_folder/x.db"), name(ErrorCode::kIo));

  const std::string text =
      "this is a text, and longer than a header of SQLite's, which has 100 "
      "bytes; so it can't be taken for an empty file either.";
  std::ofstream(folder_ / "text.db") << text;
  EXPECT_EQ(code(folder_ / "text.db"), name(ErrorCode::kCorrupt));
  EXPECT_EQ(code(folder_ / "text.db", {.read_only = true}), name(ErrorCode::kCorrupt));
  std::ifstream still(folder_ / "text.db");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(still), {}), text);

  Database::Open(folder_ / "foreign.db", {.create = true})->Execute("CREATE TABLE t (x)").value();
  EXPECT_EQ(code(folder_ / "foreign.db"), name(ErrorCode::kCorrupt));
  std::ofstream(folder_ / "empty.db").flush();
  EXPECT_EQ(code(folder_ / "empty.db", {.read_only = true}), name(ErrorCode::kCorrupt));
  EXPECT_EQ(code(folder_ / "empty.db", {.create = false}), name(ErrorCode::kCorrupt));
  EXPECT_EQ(code(folder_ / "empty.db"), "opened");

  store_.reset();
  Sql("PRAGMA user_version = 2");
  EXPECT_EQ(code(file()), name(ErrorCode::kCorrupt));
  Sql("PRAGMA user_version = 1; DROP TABLE holds");
  EXPECT_EQ(code(file()), name(ErrorCode::kCorrupt));
}

TEST_F(SqliteStoreTest, RefusesValuesThatStandForNothing) {
  Fill();
  const Hold hold = MakeHold("r", 1, 1'000);
  Commit({HoldOpened{hold}});
  const auto fails = [&](const std::string& sql, const std::string& undo) {
    Sql(sql);
    const auto state = store_->Load();
    ASSERT_FALSE(state) << sql;
    EXPECT_EQ(state.error().code, ErrorCode::kCorrupt) << sql;
    Sql(undo);
    ASSERT_TRUE(store_->Load()) << undo;
  };
  fails("UPDATE holds SET tier = 4", "UPDATE holds SET tier = 0");
  fails("UPDATE holds SET tier = -1", "UPDATE holds SET tier = 0");
  fails("UPDATE holds SET amount = -1", "UPDATE holds SET amount = 1000");
  fails("UPDATE prices SET unit = 99 WHERE number = 20",
        "UPDATE prices SET unit = 0 WHERE unit = 99");
  fails("UPDATE prices SET rate = -1 WHERE number = 20",
        "UPDATE prices SET rate = 1 WHERE number = 20");
  fails("INSERT INTO scopes VALUES (101, 2, 0, 'x')", "DELETE FROM scopes");
  fails("INSERT INTO caps VALUES (3, 1, 0, 0, 0, 5)", "DELETE FROM caps");
  fails("INSERT INTO caps VALUES (0, 77, 0, 0, 0, 5)", "DELETE FROM caps");
  fails("INSERT INTO caps VALUES (0, 1, 0, 3, 0, 5)", "DELETE FROM caps");
}

TEST_F(SqliteStoreTest, HistoryCantBeChangedByHand) {
  Fill();
  auto database = Database::Open(file(), {});
  for (const char* sql : {"UPDATE postings SET amount = 1", "DELETE FROM postings",
                          "DELETE FROM payments", "UPDATE prices SET rate = 1"}) {
    const auto done = database->Execute(sql);
    ASSERT_FALSE(done) << sql;
    EXPECT_THAT(done.error().message, HasSubstr("never changed"));
  }
}

}  // namespace
}  // namespace millpower::ledger
