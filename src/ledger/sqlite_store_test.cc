#include "ledger/sqlite_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <limits>
#include <thread>

#include "base/rng.h"
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

// Into the file, past the store.
void ChangeByHand(const std::filesystem::path& file, const std::string& sql) {
  auto database = Database::Open(file, {});
  ASSERT_TRUE(database) << database.error().message;
  // By hand in earnest: what history's triggers refuse, too.
  sqlite3_db_config(database->handle(), SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
  sqlite3_db_config(database->handle(), SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  const auto done = database->Execute("PRAGMA synchronous = OFF; " + sql);
  ASSERT_TRUE(done) << done.error().message << ": " << sql;
}

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
  void Sql(const std::string& sql) { ChangeByHand(file(), sql); }

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
  static constexpr char kEvil[] = "Robert'); DROP TABLE tenants;-- \"%s\0\n\xff\xe2\x82\xac";
  const std::string evil(kEvil, sizeof(kEvil) - 1);
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
          .root = 2,
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
    EXPECT_EQ(state.keys[0].root, 2);
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

// ---- Reading

class SqliteStoreReading : public SqliteStoreTest {
 protected:
  // Six requests of two tenants on two days, and a lease.
  void SetUp() override {
    SqliteStoreTest::SetUp();
    Fill();
    const auto post = [&](const std::string& id, Number tenant, const std::string& model,
                          int64_t at, int64_t input, int64_t cached, int64_t output) {
      Hold hold = MakeHold(id, tenant, 1'000'000, at);
      hold.model = model;
      Commit({HoldOpened{hold}, Posted(hold, input, cached, output)});
    };
    post("a1", 1, "small", kStart, 100, 0, 10);
    post("a2", 1, "large", kStart, 200, 50, 20);
    post("b1", 2, "small", kStart + 10, 1, 1, 1);
    post("a3", 1, "small", kStart + kDay, 300, 0, 30);
    post("b2", 2, "small", kStart + kDay, 5, 0, 5);
    post("a4", 1, "small", kStart + kDay + 1, 1, 0, 0);
    const Lease lease{.number = 40, .id = "lease_1", .tenant = 1, .amount = 1'000'000};
    Commit(
        {LeaseCharged{lease, Usage{.request_id = "lease_1",
                                   .api_request_id = "",
                                   .tenant = 1,
                                   .model = "",
                                   .endpoint = "lease",
                                   .tier = Tier::kLease,
                                   .admitted_at = kStart + kDay,
                                   .posted_at = kStart + kDay + 100,
                                   .quantities = {0, 0, 0, 0, 0, 0, 0, 250'000},
                                   .lines = {{Unit::kShareHour, 250'000, kLeasePrice, 1'000'000}},
                                   .amount = 1'000'000,
                                   .reason = "lease",
                                   .energy_origin = Origin::kNone}}});
  }
  std::vector<UsageGroup> Groups(const UsageQuery& query) {
    auto report = store_->ReadUsage(query);
    EXPECT_TRUE(report) << report.error().message;
    return report ? std::move(report->groups) : std::vector<UsageGroup>();
  }
  std::vector<std::string> Ids(const UsageQuery& query, int64_t limit = 100, Number before = 0) {
    std::vector<std::string> ids;
    const auto rows = store_->ListUsage(query, limit, before);
    EXPECT_TRUE(rows) << rows.error().message;
    for (const Usage& usage : *rows) ids.push_back(usage.request_id);
    return ids;
  }
};

TEST_F(SqliteStoreReading, TotalsAreSums) {
  const auto all = Groups({});
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].requests, 7);
  EXPECT_EQ(all[0].quantities, (Quantities{607, 51, 66, 0, 0, 0, 0, 250'000}));
  EXPECT_EQ(all[0].energy_uj, 6 * 7);
  EXPECT_EQ(all[0].co2e_ug, 6 * 3);
  EXPECT_EQ(all[0].energy_origin, Origin::kModelled);
  Micros sum = 0;
  const auto rows = store_->ListUsage({}, 100, 0);
  for (const Usage& usage : *rows) sum += usage.amount;
  EXPECT_EQ(all[0].amount, sum);
  EXPECT_EQ(Balance(kRevenue), sum);
  EXPECT_THAT(Groups({.from = kStart + 10 * kDay}), IsEmpty());
}

TEST_F(SqliteStoreReading, GroupsByWhatIsAskedInThatOrder) {
  const auto by_model_day = Groups({.tenant = 1, .group_by = {GroupBy::kModel, GroupBy::kDay}});
  std::vector<std::string> seen;
  for (const UsageGroup& group : by_model_day) {
    EXPECT_EQ(group.tenant, 0);
    seen.push_back(group.model + "/" + std::to_string(group.day - kStart / kDay) + "/" +
                   std::to_string(group.requests));
  }
  EXPECT_THAT(seen, ElementsAre("/1/1", "large/0/1", "small/0/1", "small/1/2"));
  const auto by_day_model = Groups({.tenant = 1, .group_by = {GroupBy::kDay, GroupBy::kModel}});
  ASSERT_EQ(by_day_model.size(), 4u);
  EXPECT_EQ(by_day_model[0].model, "large");
  EXPECT_EQ(by_day_model[1].model, "small");
  EXPECT_EQ(by_day_model[2].model, "");
  const auto by_all = Groups({.group_by = {GroupBy::kTenant, GroupBy::kProject, GroupBy::kKey,
                                           GroupBy::kModel, GroupBy::kDay, GroupBy::kTier}});
  ASSERT_EQ(by_all.size(), 6u);
  EXPECT_EQ(by_all[0].tier, Tier::kLease);
  EXPECT_EQ(by_all[0].energy_origin, Origin::kNone);
  EXPECT_EQ(by_all[1].key, 101);
  EXPECT_EQ(by_all[5].tenant, 2);
  EXPECT_EQ(by_all[5].project, 12);
}

TEST_F(SqliteStoreReading, Filters) {
  const auto requests = [&](const UsageQuery& query) {
    const auto groups = Groups(query);
    return groups.empty() ? 0 : groups[0].requests;
  };
  EXPECT_EQ(requests({.tenant = 2}), 2);
  EXPECT_EQ(requests({.project = 11}), 4);
  EXPECT_EQ(requests({.key = 102}), 2);
  EXPECT_EQ(requests({.model = "large"}), 1);
  EXPECT_EQ(requests({.model = "' OR 1=1 --"}), 0);
  EXPECT_EQ(requests({.request_id = "a2"}), 1);
  EXPECT_EQ(requests({.request_id = "api-a2"}), 1);
  EXPECT_EQ(requests({.tenant = 2, .request_id = "a2"}), 0);
  EXPECT_EQ(requests({.request_id = "a2' OR '1'='1"}), 0);
  // Posted a second after they were admitted; `to` is not part of it.
  EXPECT_EQ(requests({.from = kStart + 1, .to = kStart + 11}), 2);
  EXPECT_EQ(requests({.from = kStart + 1, .to = kStart + 12}), 3);
  EXPECT_EQ(requests({.from = kStart + 2}), 5);
  EXPECT_EQ(requests({.to = kStart + 1}), 0);
}

TEST_F(SqliteStoreReading, ListsNewestFirstAPageAtATime) {
  EXPECT_THAT(Ids({}), ElementsAre("lease_1", "a4", "b2", "a3", "b1", "a2", "a1"));
  EXPECT_THAT(Ids({.tenant = 1}), ElementsAre("lease_1", "a4", "a3", "a2", "a1"));
  for (const Number tenant : {0, 1}) {
    const UsageQuery query{.tenant = tenant};
    std::vector<std::string> paged;
    Number before = 0;
    for (;;) {
      const auto page = store_->ListUsage(query, 2, before);
      ASSERT_TRUE(page);
      if (page->empty()) break;
      for (const Usage& usage : *page) paged.push_back(usage.request_id);
      before = page->back().number;
    }
    EXPECT_EQ(paged, Ids(query));
  }
  EXPECT_THAT(Ids({}, 0), IsEmpty());
  EXPECT_THAT(Ids({}, -1), IsEmpty());
  const auto rows = store_->ListUsage({.request_id = "a2"}, 1, 0);
  ASSERT_EQ(rows->size(), 1u);
  const Usage& usage = rows->at(0);
  EXPECT_EQ(usage.api_request_id, "api-a2");
  EXPECT_EQ(usage.tenant, 1);
  EXPECT_EQ(usage.project, 11);
  EXPECT_EQ(usage.key, 101);
  EXPECT_EQ(usage.model, "large");
  EXPECT_EQ(usage.endpoint, "chat");
  EXPECT_EQ(usage.reason, "stop");
  EXPECT_EQ(usage.admitted_at, kStart);
  EXPECT_EQ(usage.posted_at, kStart + 1);
  EXPECT_EQ(usage.quantities, (Quantities{200, 50, 20}));
  EXPECT_EQ(usage.energy_uj, 7);
  EXPECT_EQ(usage.energy_origin, Origin::kModelled);
  ASSERT_EQ(usage.lines.size(), 3u);
  EXPECT_EQ(usage.lines[1].unit, Unit::kCachedToken);
  EXPECT_EQ(usage.lines[1].quantity, 50);
  EXPECT_EQ(usage.lines[1].price, kFirstPrice + 1);
  EXPECT_EQ(usage.lines[1].amount, 3);  // 2.5 micro-units, rounded up
}

TEST_F(SqliteStoreReading, InvoiceLinesAddUpToWhatWasCharged) {
  const auto lines = store_->ReadInvoiceLines(1, kStart, kStart + 30 * kDay);
  ASSERT_TRUE(lines) << lines.error().message;
  ASSERT_EQ(lines->size(), 6u);  // the lease, large: 3 units, small: 2
  EXPECT_EQ(lines->at(0).unit, Unit::kShareHour);
  EXPECT_EQ(lines->at(0).project, 0);
  EXPECT_EQ(lines->at(0).rate, 4'000'000);
  EXPECT_EQ(lines->at(0).first_request_id, "lease_1");
  const InvoiceLine& small = lines->at(4);
  EXPECT_EQ(small.project, 11);
  EXPECT_EQ(small.model, "small");
  EXPECT_EQ(small.unit, Unit::kInputToken);
  EXPECT_EQ(small.price, kFirstPrice);
  EXPECT_EQ(small.rate, kRates[0]);
  EXPECT_EQ(small.quantity, 401);
  EXPECT_EQ(small.requests, 3);
  EXPECT_EQ(small.amount, 50 + 150 + 1);
  EXPECT_EQ(small.first_request_id, "a1");
  EXPECT_EQ(small.last_request_id, "a4");
  Micros total = 0;
  for (const InvoiceLine& line : *lines) total += line.amount;
  EXPECT_EQ(total, Groups({.tenant = 1})[0].amount);
  EXPECT_EQ(store_->ReadInvoiceLines(1, kStart, kStart + 2)->size(), 5u);
  EXPECT_THAT(*store_->ReadInvoiceLines(3, 0, INT64_MAX), IsEmpty());

  // What comes later, and a new price, leave an old invoice as it is.
  const auto first_day = [&] { return *store_->ReadInvoiceLines(1, kStart, kStart + kDay); };
  const auto before = first_day();
  Price dearer{.number = 50, .model = "*", .rate = 9'000'000, .effective_at = kStart + kDay};
  Commit({dearer, Price{.number = kFirstPrice, .model = "*", .rate = 1}});
  const auto after = first_day();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(before[i].rate, after[i].rate);
    EXPECT_EQ(before[i].amount, after[i].amount);
    EXPECT_EQ(before[i].last_request_id, after[i].last_request_id);
  }
}

TEST_F(SqliteStoreReading, ListsPostingsAndAudit) {
  const auto postings = store_->ListPostings(2, 0, INT64_MAX, 3);
  ASSERT_EQ(postings->size(), 3u);
  EXPECT_EQ(postings->at(0).kind, PostingKind::kRelease);
  EXPECT_EQ(postings->at(0).from, Held(2));
  EXPECT_EQ(postings->at(0).to, Credit(2));
  EXPECT_EQ(postings->at(1).kind, PostingKind::kPost);
  EXPECT_EQ(postings->at(1).reference, "b2");
  EXPECT_EQ(postings->at(2).kind, PostingKind::kHold);
  EXPECT_EQ(store_->ListPostings(2, kStart, kStart + 1, 100)->size(), 1u);

  AuditEntry last;
  for (int i = 0; i < 5; ++i) {
    last = NextAudit(last, "action " + std::to_string(i));
    Commit({last});
  }
  const auto entries = store_->ListAudit(2, 2);
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ(entries->at(0).number, 3);
  EXPECT_EQ(entries->at(1).action, "action 3");
  EXPECT_EQ(Load().last_audit.hash, last.hash);
  EXPECT_THAT(Faults(), IsEmpty());
}

TEST_F(SqliteStoreReading, ReadersDontWaitForTheWriterNorItForThem) {
  std::atomic<bool> stop{false};
  std::atomic<int> reads{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        // Held, credit, revenue and payments are of one moment.
        const auto state = store_->Load();
        ASSERT_TRUE(state);
        Micros sum = 0;
        for (const auto& [account, balance] : state->balances) sum += balance;
        EXPECT_EQ(sum, 0);
        ASSERT_TRUE(store_->ReadUsage({.tenant = 1}));
        ++reads;
      }
    });
  }
  int n = 0;
  while (reads < 30) {
    const Hold hold = MakeHold("w" + std::to_string(n++), 1, 1'000);
    Commit({HoldOpened{hold}});
    Commit({Posted(hold, 1, 2, 3)});
    if (n % 10 == 0) {
      EXPECT_THAT(Faults(), IsEmpty());
    }
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

// ---- Verify finds every fault

struct Damage {
  const char* name;
  const char* sql;
  const char* fault;  // part of a line
};
void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

// One good file for all, of which each takes a copy.
class SqliteStoreDamage : public testing::TestWithParam<Damage> {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    auto store = OpenSqliteStore(*folder_ / "good.db");
    ASSERT_TRUE(store) << store.error().message;
    const auto commit = [&](const std::vector<Record>& records) {
      ASSERT_TRUE((*store)->Commit(records));
    };
    const Hold done = MakeHold("done", 1, 1'000'000), open = MakeHold("open", 2, 2'000'000);
    const AuditEntry first = NextAudit({}, "one"), second = NextAudit(first, "two");
    commit(FirstRecords());
    commit({Payment{1, 10'000'000, "first payment", kStart},
            Payment{2, 10'000'000, "second payment", kStart}, HoldOpened{done},
            Posted(done, 100'000, 10, 300'000), HoldOpened{open},
            HoldExtended{"open", 500'000, 5, 2, kStart}, first, second,
            NextAudit(second, "three")});
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static inline std::unique_ptr<TemporaryFolder> folder_;
};

TEST_P(SqliteStoreDamage, IsFound) {
  const TemporaryFolder folder;
  const auto file = folder / "ledger.db";
  std::filesystem::copy_file(*folder_ / "good.db", file);
  const auto faults = [&] {
    auto store = OpenSqliteStore(file, {.read_only = true});
    EXPECT_TRUE(store) << store.error().message;
    auto found = (*store)->Verify([](const std::string& id) { return id == "open"; });
    EXPECT_TRUE(found) << found.error().message;
    return found ? std::move(*found) : std::vector<std::string>{"it can't be verified"};
  };
  ASSERT_THAT(faults(), IsEmpty());
  ChangeByHand(file, GetParam().sql);
  EXPECT_THAT(faults(), testing::Contains(HasSubstr(GetParam().fault)));
}

// Payments are postings 1 and 2, the rest follows: hold 3, post 4, release 5 of "done", hold 6 and
// extend 7 of "open". Accounts: 4, 5 credit and held of tenant 1; 8, 9 of 2; 2 revenue; 3 payments.
const Damage kDamages[] = {
    {"Balance", "UPDATE balances SET amount = amount + 1 WHERE account = 4",
     "credit of ten_1: the balance is 9.35, but its postings add up to 9.349999"},
    {"BalanceGone", "DELETE FROM balances WHERE account = 2",
     "revenue: the balance is 0.00, but its postings add up to 0.650001"},
    {"Total", "UPDATE balances SET amount = amount - 7 WHERE account = 3",
     "all accounts add up to -0.000007, not to 0.00"},
    {"HeldOfNoHold", "DELETE FROM holds",
     "held of ten_2: the balance is 2.50, but its open holds add up to 0.00"},
    {"HoldClosed", "DELETE FROM holds",
     "request open: its postings leave 2.50 held, but its hold is closed (0.00)"},
    {"HoldSize", "UPDATE holds SET amount = 1",
     "request open: its postings leave 2.50 held, but its hold is 0.000001"},
    {"UsageAmount", "UPDATE usage SET amount = amount + 1",
     "usage 1 (request done): the amount is 0.650002, but its lines add up to 0.650001"},
    {"UsageNotPosted", "UPDATE usage SET amount = amount + 1",
     "request done: 0.650001 was posted, but its usage is 0.650002"},
    {"Revenue", "UPDATE usage SET amount = amount + 1",
     "revenue: the balance is 0.650001, but all usage adds up to 0.650002"},
    {"UsageGone", "DELETE FROM usage_lines; DELETE FROM usage",
     "request done: 0.650001 was posted, but there is no usage (0.00)"},
    {"LineAmount", "UPDATE usage_lines SET amount = amount + 1 WHERE unit = 2",
     "usage 1 (request done): 300000 output_token at price 22 are charged 0.600001, but cost 0.60"},
    {"LineQuantity", "UPDATE usage_lines SET quantity = quantity + 1000 WHERE unit = 0",
     "101000 input_token at price 20 are charged 0.05, but cost 0.0505"},
    {"LineGone", "DELETE FROM usage_lines WHERE unit = 1",
     "the amount is 0.650001, but its lines add up to 0.65"},
    {"LineNegative", "UPDATE usage_lines SET quantity = -5 WHERE unit = 1",
     "line 1 of -5 at price 21 makes no sense"},
    {"LineUnit", "UPDATE usage_lines SET unit = 77 WHERE unit = 1", "makes no sense (unit 77)"},
    {"Rate", "UPDATE prices SET rate = rate * 2 WHERE number = 22",
     "300000 output_token at price 22 are charged 0.60, but cost 1.20"},
    {"PriceGone", "DELETE FROM prices WHERE number = 21",
     "row ? of usage_lines names a row of "
     "prices that does not exist"},
    {"UsageTier", "UPDATE usage SET tier = 9", "usage 1 (request done) is of tier 9"},
    {"PostingAmount", "UPDATE postings SET amount = amount + 5 WHERE number = 4",
     "request done: 0.650006 was posted, but its usage is 0.650001"},
    {"PostingGone", "DELETE FROM postings WHERE number = 4",
     "request done: 0.00 was posted, but its usage is 0.650001"},
    {"PostingTwice",
     "INSERT INTO postings (at, kind, source, target, amount, request)"
     " SELECT at, kind, source, target, amount, request FROM postings WHERE number = 4",
     "request done: 1.300002 was posted, but its usage is 0.650001"},
    {"PostingOfNothing", "UPDATE postings SET amount = 0 WHERE number = 5",
     "posting 5 moves 0.00, not more than 0.00"},
    {"PostingKind", "UPDATE postings SET kind = 42 WHERE number = 5",
     "posting 5 is of kind 42, which there is not"},
    {"PostingSides", "UPDATE postings SET target = 3 WHERE number = 4",
     "posting 4 (post) goes from held of ten_1 to payments"},
    {"PostingAcross", "UPDATE postings SET target = 8 WHERE number = 5",
     "posting 5 (release) goes from held of ten_1 to credit of ten_2"},
    {"PostingUnnamed", "UPDATE postings SET request = NULL WHERE number = 5",
     "posting 5 (release) does not name its request"},
    {"PostingOfNoRequest", "UPDATE postings SET request = 99 WHERE number = 5",
     "row 5 of postings names a row of requests that does not exist"},
    {"UsageOfAnother", "UPDATE usage SET tenant = 2",
     "request done: its usage is of ten_2, but there are postings of ten_1"},
    {"HoldOfAnother", "UPDATE holds SET tenant = 1",
     "request open: its hold is of ten_1, but there are postings of ten_2"},
    {"SpentMoney", "UPDATE spent SET money = money - 1",
     "spent by key_1 on day 20000: 0.65, but its usage adds up to 0.650001"},
    {"SpentTokens", "UPDATE spent SET tokens = 5",
     "spent by key_1 on day 20000: 5 tokens, but its usage adds up to 400010 tokens"},
    {"SpentGone", "DELETE FROM spent", "spent by key_1 on day 20000: 0.00, but its usage"},
    {"SpentMore", "INSERT INTO spent VALUES (102, 3, 9, 9)",
     "spent by key_2 on day 3: 0.000009, but its usage adds up to 0.00"},
    {"Orphan", "UPDATE requests SET request_id = 'lost' WHERE request_id = 'open'",
     "orphan: 2.50 of ten_2 are held for request lost, which is not under way"},
    {"PaymentAmount", "UPDATE payments SET amount = 1 WHERE number = 1",
     "payment first payment is of 0.000001, but 10.00 was posted"},
    {"PaymentNotPosted",
     "INSERT INTO payments (tenant, at, amount, reference) VALUES (1, 0, 5, 'more')",
     "payment more is of 0.000005, but 0.00 was posted"},
    {"PaymentToAnother", "UPDATE payments SET tenant = 2 WHERE number = 1",
     "payment first payment is of ten_2, but was posted to ten_1"},
    {"PaymentTwice",
     "CREATE TABLE copy (number INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, at INTEGER NOT NULL,"
     " amount INTEGER NOT NULL, reference TEXT NOT NULL) STRICT;"
     " INSERT INTO copy SELECT * FROM payments; DROP TABLE payments;"
     " ALTER TABLE copy RENAME TO payments; UPDATE payments SET reference = 'same'",
     "payment same was told 2 times, but may count once"},
    {"PostedTwice",
     "CREATE TABLE copy AS SELECT * FROM usage; INSERT INTO copy SELECT 2, request, api_request_id,"
     " tenant, project, key, model, endpoint, tier, admitted_at, posted_at, 0, 0, 0, 0, 0, 0, 0, 0,"
     " 0, reason, 0, 0, 0 FROM copy; DROP TABLE usage; ALTER TABLE copy RENAME TO usage",
     "request done was posted 2 times, not once"},
    {"AuditChanged", "UPDATE audit SET details = '{\"x\": 1}' WHERE number = 2",
     "audit: entry 2 has the hash"},
    {"AuditGone", "DELETE FROM audit WHERE number = 2",
     "audit: entry 3 is there where entry 2 should be"},
    {"AuditFirstGone", "DELETE FROM audit WHERE number = 1",
     "audit: entry 2 is there where entry 1 should be"},
    {"AuditHash", "UPDATE audit SET hash = x'00' WHERE number = 1",
     "audit: entry 1 has the hash 00"},
    {"TenantGone", "DELETE FROM tenants WHERE number = 2",
     "names a row of tenants that does not exist"},
};
INSTANTIATE_TEST_SUITE_P(One, SqliteStoreDamage, testing::ValuesIn(kDamages),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(SqliteStoreTest, VerifyGoesOnWhereAFileIsDamaged) {
  Fill();
  std::vector<Record> records;
  for (int i = 0; i < 200; ++i) {
    const Hold hold = MakeHold("r" + std::to_string(i), 1, 10);
    records.emplace_back(HoldOpened{hold});
    records.emplace_back(Posted(hold, 1, 0, 0));
  }
  Commit(records);
  store_.reset();  // all of it into the file
  const auto size = std::filesystem::file_size(file());
  for (const uint64_t seed : {1, 2, 3, 4, 5, 6, 7, 8}) {
    const auto copy = folder_ / "damaged.db";
    std::filesystem::copy_file(file(), copy, std::filesystem::copy_options::overwrite_existing);
    {
      std::fstream bytes(copy, std::ios::in | std::ios::out | std::ios::binary);
      Rng rng(seed);
      for (int i = 0; i < 40; ++i) {
        bytes.seekp(static_cast<std::streamoff>(4096 + rng.Below(size - 4096)));
        bytes.put(static_cast<char>(rng.Next()));
      }
    }
    // Found or refused, never a crash.
    auto opened = OpenSqliteStore(copy, {.read_only = true});
    if (!opened) continue;
    (void)(*opened)->Load();
    (void)(*opened)->ReadUsage({.group_by = {GroupBy::kDay}});
    (void)(*opened)->ListUsage({}, 1000, 0);
    const auto faults = (*opened)->Verify(NoneLive);
    if (faults) {
      EXPECT_THAT(*faults, testing::Not(IsEmpty())) << "seed " << seed;
    }
  }
}

TEST_F(SqliteStoreTest, ListsOnlySoManyFaults) {
  Commit(FirstRecords());
  Sql("WITH RECURSIVE n(i) AS (SELECT 500 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
      " INSERT INTO spent SELECT i, 1, 1, 0 FROM n");
  const auto faults = Faults();
  ASSERT_EQ(faults.size(), 1001u);
  EXPECT_THAT(faults.back(), HasSubstr("more faults"));
}

// ---- Backup

TEST_F(SqliteStoreTest, BackupIsWholeWhileWritingGoesOn) {
  Fill();
  std::atomic<bool> stop{false};
  std::atomic<int> written{0};
  std::thread writer([&] {
    while (!stop) {
      const Hold hold = MakeHold("w" + std::to_string(written), 1, 1'000);
      ASSERT_TRUE(store_->Commit(std::vector<Record>{HoldOpened{hold}, Posted(hold, 1, 2, 3)}));
      ++written;
    }
  });
  while (written < 20) std::this_thread::yield();
  for (int i = 0; i < 5; ++i) {
    const auto to = folder_ / ("backup" + std::to_string(i)).c_str();
    const int before = written;
    const auto done = store_->Backup(to);
    ASSERT_TRUE(done) << done.error().message;
    const int after = written + 1;  // one may be durable and not yet counted
    auto backup = OpenSqliteStore(to, {.create = false});
    ASSERT_TRUE(backup) << backup.error().message;
    EXPECT_THAT(*(*backup)->Verify(NoneLive), IsEmpty());
    const auto rows = static_cast<int>((*backup)->ListUsage({}, 1 << 30, 0)->size());
    EXPECT_GE(rows, before);
    EXPECT_LE(rows, after);
    // It is a ledger like any other.
    EXPECT_TRUE((*backup)->Commit(std::vector<Record>{Payment{1, 5, "into the copy", kStart}}));
  }
  stop = true;
  writer.join();
  EXPECT_FALSE(*store_->WasPaid("into the copy"));
}

TEST_F(SqliteStoreTest, BackupNeverTakesTheNameOfAFile) {
  Fill();
  const auto to = folder_ / "backup.db";
  std::ofstream(to) << "mine";
  auto done = store_->Backup(to);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(std::filesystem::file_size(to), 4u);
  std::filesystem::create_symlink(folder_ / "nowhere", folder_ / "link");
  EXPECT_EQ(store_->Backup(folder_ / "link").error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(store_->Backup(file()).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(store_->Backup(folder_ / "no/folder").error().code, ErrorCode::kIo);
  // Nothing half done stays behind.
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(file().parent_path()))
    files += entry.path().string().find(".part_") != std::string::npos;
  EXPECT_EQ(files, 0);
}

}  // namespace
}  // namespace millpower::ledger
