#include "ledger/ledger.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

#include "ledger/key_secret.h"
#include "ledger/sqlite_store.h"
#include "ledger/test_ledger.h"

namespace millpower::ledger {
namespace {

constexpr Micros kUnit = kMicrosPerUnit;

TEST(Ledger, HoldsExtendsAndPosts) {
  TestLedger test;
  test.SetPrices(2 * kUnit, kUnit, 4 * kUnit);  // 2, 1 and 4 micro-units a token
  test.MakeTenant(1000);
  ASSERT_TRUE(test.Hold("r", 10, 20));
  EXPECT_EQ(test.Held(), 10 * 2 + 20 * 4);
  EXPECT_EQ(test.Credit(), 900);
  const auto granted = test.Extend("r", 5);
  ASSERT_TRUE(granted) << granted.error().message;
  EXPECT_EQ(*granted, 5);
  EXPECT_EQ(test.Held(), 120);
  EXPECT_EQ(test.ledger->stats().open_holds, 1);
  ASSERT_TRUE(test.Post("r", Tokens(6, 4, 21)));
  EXPECT_EQ(test.Held(), 0);
  EXPECT_EQ(test.Credit(), 1000 - (12 + 4 + 84));
  EXPECT_EQ(test.ledger->stats().open_holds, 0);
  ASSERT_EQ(test.disk->tables.usage.size(), 1u);
  const Usage& usage = test.disk->tables.usage[0];
  EXPECT_EQ(usage.amount, 100);
  EXPECT_EQ(usage.api_request_id, "chatcmpl-r");
  EXPECT_EQ(usage.reason, "stop");
  ASSERT_EQ(usage.lines.size(), 3u);
  EXPECT_EQ(usage.lines[1].unit, Unit::kCachedToken);
  EXPECT_EQ(usage.lines[1].amount, 4);
  test.ExpectBalanced();
}

TEST(Ledger, UsageHasTheEnergyItWasPostedWith) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.MakeTenant(1000);
  ASSERT_TRUE(test.Hold("r", 10, 20));
  std::promise<Result<void>> posted;
  test.ledger->Post("r", Tokens(10, 0, 1), "stop",
                    [&](Result<void> result) { posted.set_value(result); },
                    {.uj = 36'000'000, .co2e_ug = 4000, .origin = Origin::kModelled});
  ASSERT_TRUE(posted.get_future().get());
  ASSERT_EQ(test.disk->tables.usage.size(), 1u);
  EXPECT_EQ(test.disk->tables.usage[0].energy_uj, 36'000'000);
  EXPECT_EQ(test.disk->tables.usage[0].co2e_ug, 4000);
  EXPECT_EQ(test.disk->tables.usage[0].energy_origin, Origin::kModelled);
}

TEST(Ledger, PostsWhatIsNotYetDurable) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.MakeTenant(1000);
  test.disk->Block();
  std::vector<std::string> told;
  const auto tell = [&](const char* what) {
    return [&told, what](Result<void> outcome) {
      told.push_back(what + std::string(outcome ? "" : "!"));
    };
  };
  test.ledger->Hold({test.Request("a", 10, 10)}, tell("hold a"));
  test.disk->WaitUntilBlocked();
  test.ledger->Post("a", Tokens(10, 0, 1), "cancelled", tell("post a"));
  test.ledger->Hold({test.Request("b", 10, 10)}, tell("hold b"));
  test.ledger->Void("b", tell("void b"));
  test.ledger->Post("b", Tokens(0, 0, 0), "stop", tell("post b"));
  EXPECT_EQ(test.Credit(), 1000 - 40) << "what gives counts once it is durable";
  test.disk->Release();
  ASSERT_TRUE(test.Void("nobody"));
  EXPECT_EQ(told, (std::vector<std::string>{"hold a", "post a", "hold b", "void b", "post b!"}));
  EXPECT_EQ(test.Credit(), 1000 - 11);
  test.ExpectBalanced();
}

TEST(Ledger, HoldsAllOrNone) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.MakeTenant(100);
  const auto refused = test.Hold({test.Request("a", 50, 0), test.Request("b", 0, 51)});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kQuotaExceeded);
  EXPECT_EQ(test.Held(), 0);
  EXPECT_EQ(test.ledger->stats().open_holds, 0);
  EXPECT_TRUE(test.Hold({test.Request("a", 50, 0), test.Request("b", 0, 50)}));
  EXPECT_EQ(test.Credit(), 0);
  EXPECT_EQ(test.Hold({test.Request("c", 0, 0), test.Request("c", 0, 0)}).error().code,
            ErrorCode::kAlreadyExists);
}

TEST(Ledger, ExtendsAsFarAsIsCovered) {
  TestLedger test;
  test.SetPrices(0, 0, 300'000);  // 0.3 micro-units: 10 tokens are 3
  test.MakeTenant(10);
  ASSERT_TRUE(test.Hold("r", 5, 1));
  EXPECT_EQ(test.Held(), 1);
  EXPECT_EQ(test.Extend("r", 2).value_or(0), 2) << "still one micro-unit";
  EXPECT_EQ(test.Held(), 1);
  EXPECT_EQ(test.Extend("r", 1000).value_or(0), 30) << "33 are 9.9";
  EXPECT_EQ(test.Held(), 10);
  const auto refused = test.Extend("r", 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kQuotaExceeded);
  EXPECT_EQ(refused.error().message,
            "the credit of tenant 'acme' has 0.00 USD left; this request needs 0.000001");
  EXPECT_TRUE(test.Post("r", Tokens(5, 0, 33)));
  EXPECT_EQ(test.Extend("r", 1).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(test.Extend("nobody", 1).error().code, ErrorCode::kNotFound);
  test.ExpectBalanced();
}

TEST(Ledger, CreditWithoutABoundIsNotRefused) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.MakeTenant(0);
  EXPECT_FALSE(test.Hold("a", 1, 0));
  Tenant tenant = test.tenant;
  tenant.credit_line = std::nullopt;
  ASSERT_TRUE(test.ledger->UpdateTenant("test", tenant));
  ASSERT_TRUE(test.Hold("a", 1'000'000, 0));
  EXPECT_EQ(test.Extend("a", 1000).value_or(0), 1000);
  EXPECT_EQ(test.Credit(), -1'001'000);
  tenant.credit_line = 1'001'001;
  ASSERT_TRUE(test.ledger->UpdateTenant("test", tenant));
  EXPECT_EQ(test.Extend("a", 1000).value_or(0), 1);
}

TEST(Ledger, PostingPayingAndHoldingTwiceCountOnce) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.MakeTenant(100);
  ASSERT_TRUE(test.Hold("r", 10, 0));
  EXPECT_EQ(test.Hold("r", 10, 0).error().code, ErrorCode::kAlreadyExists);
  ASSERT_TRUE(test.Post("r", Tokens(10, 0, 0)));
  EXPECT_TRUE(test.Post("r", Tokens(10, 0, 0)));
  EXPECT_TRUE(test.Post("r", Tokens(3, 0, 0))) << "whatever it says";
  EXPECT_TRUE(test.Void("r"));
  EXPECT_EQ(test.Credit(), 90);
  EXPECT_EQ(test.Hold("r", 10, 0).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(test.Credit(), 90) << "given back";
  EXPECT_EQ(test.Post("nobody", Tokens(0, 0, 0)).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(test.Hold("v", 10, 0));
  ASSERT_TRUE(test.Void("v"));
  EXPECT_EQ(test.Post("v", Tokens(1, 0, 0)).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(test.Hold("v", 10, 0)) << "what was voided may be asked again";
  ASSERT_TRUE(test.Void("v"));

  const size_t entries = test.disk->tables.audit.size();
  EXPECT_EQ(test.ledger->AddCredit("test", test.tenant.number, 7, "first").value(), 90);
  EXPECT_EQ(test.ledger->AddCredit("test", test.tenant.number, -7, "first").value(), 90);
  EXPECT_EQ(test.disk->tables.audit.size(), entries) << "nothing was done";
  EXPECT_EQ(test.ledger->AddCredit("test", test.tenant.number, 7, "second").value(), 97);
  EXPECT_EQ(test.ledger->AddCredit("test", test.tenant.number, -97, "back").value(), 0);
  const auto more = test.ledger->AddCredit("test", test.tenant.number, -1, "back again");
  EXPECT_EQ(more.error().message, "tenant 'acme' has only 0.00 to pay back");
  test.Reopen();
  EXPECT_EQ(test.ledger->AddCredit("test", test.tenant.number, 7, "second").value(), 0);
  EXPECT_EQ(test.Hold("r", 0, 0).error().code, ErrorCode::kAlreadyExists);
  test.ExpectBalanced();
}

TEST(Ledger, PricesAreThoseOfAdmission) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.MakeTenant(1000);
  const int64_t now = test.clock.unix_s;
  ASSERT_TRUE(test.ledger->AddPrice(
      "test",
      {.model = "m", .unit = Unit::kInputToken, .rate = 5 * kUnit, .effective_at = now + 60}));
  ASSERT_TRUE(test.Hold("before", 10, 0));
  test.clock.unix_s = now + 60;
  EXPECT_EQ(test.Extend("before", 1).value_or(0), 1);
  ASSERT_TRUE(test.Hold("after", 10, 0));
  EXPECT_EQ(test.Held(), 11 + 50);
  ASSERT_TRUE(test.Post("before", Tokens(10, 0, 1)));
  ASSERT_TRUE(test.Post("after", Tokens(10, 0, 0)));
  EXPECT_EQ(test.Credit(), 1000 - 11 - 50);

  HoldRequest batch = test.Request("batch", 1, 1);
  batch.tier = Tier::kBatch;
  const auto refused = test.Hold({batch});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(refused.error().message, "no price is set for output_token of model 'm' at tier batch");
}

TEST(Ledger, RefusesWhoMayNotWork) {
  TestLedger test;
  test.SetPrices(0, 0, 0);
  test.MakeTenant(0);
  const auto message = [&] {
    const auto held = test.Hold("r", 1, 1);
    if (held) {
      EXPECT_TRUE(test.Void("r"));
      return std::string();
    }
    EXPECT_EQ(held.error().code, ErrorCode::kForbidden);
    return held.error().message;
  };
  EXPECT_EQ(message(), "");
  Key key = test.key;
  key.expires_at = test.clock.unix_s + 10;
  ASSERT_TRUE(test.ledger->UpdateKey("test", key));
  EXPECT_EQ(message(), "");
  test.clock.unix_s += 10;
  EXPECT_EQ(message(), "key 'ci' has expired");
  key.expires_at = 0;
  ASSERT_TRUE(test.ledger->UpdateKey("test", key));
  Tenant tenant = test.tenant;
  tenant.suspended = true;
  ASSERT_TRUE(test.ledger->UpdateTenant("test", tenant));
  EXPECT_EQ(message(), "tenant 'acme' is suspended");
  tenant.suspended = false;
  ASSERT_TRUE(test.ledger->UpdateTenant("test", tenant));
  EXPECT_EQ(message(), "");
  ASSERT_TRUE(test.ledger->RevokeKey("test", key.number));
  EXPECT_EQ(message(), "key 'ci' was revoked");
  ASSERT_TRUE(test.ledger->UpdateKey("test", key));
  EXPECT_EQ(message(), "key 'ci' was revoked") << "an update brings nothing back";
  test.key.number = 999;
  EXPECT_EQ(message(), "there is no key 999");
}

TEST(Ledger, KeysAreMadeRotatedAndRevoked) {
  TestLedger test;
  test.MakeTenant(0, {}, {}, {.caps = {{Period::kDay, Measure::kTokens, 5}}});
  EXPECT_EQ(test.ledger->directory()->FindSecret(test.secret)->number, test.key.number);
  const auto made = test.ledger->RotateKey("test", test.key.number, 100);
  ASSERT_TRUE(made);
  EXPECT_NE(made->key.prefix, test.key.prefix);
  EXPECT_EQ(made->key.bounds, test.key.bounds);
  const auto directory = test.ledger->directory();
  EXPECT_EQ(directory->FindSecret(made->secret)->number, made->key.number);
  EXPECT_EQ(directory->FindSecret(test.secret)->expires_at, test.clock.unix_s + 100);
  test.clock.unix_s += 100;
  EXPECT_EQ(test.ledger->RotateKey("test", test.key.number, 100).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(test.ledger->RotateKey("test", made->key.number, -1).error().param, "overlap_s");
  const auto revoked = test.ledger->RevokeKey("test", made->key.number);
  ASSERT_TRUE(revoked);
  EXPECT_EQ(revoked->revoked_at, test.clock.unix_s);
  test.clock.unix_s += 1;
  EXPECT_EQ(test.ledger->RevokeKey("test", made->key.number)->revoked_at, revoked->revoked_at);
  EXPECT_EQ(test.ledger->RevokeKey("test", 999).error().code, ErrorCode::kNotFound);
  for (const AuditEntry& entry : test.disk->tables.audit) {
    EXPECT_EQ(entry.details.find(made->secret), std::string::npos);
    EXPECT_EQ(entry.details.find(test.secret), std::string::npos);
  }
  test.Reopen();
  EXPECT_EQ(test.ledger->directory()->FindSecret(made->secret)->revoked_at, revoked->revoked_at);
}

TEST(Ledger, ARotatedKeyGoesOnWithItsCaps) {
  TestLedger test;
  test.SetPrices(1'000'000, 0, 0);
  test.MakeTenant(1'000, {}, {}, {.caps = {{Period::kTotal, Measure::kTokens, 10}}});
  const Key first = test.key;
  ASSERT_TRUE(test.Hold("a", 6, 0));
  ASSERT_TRUE(test.Post("a", Tokens(6, 0, 0)));
  const auto second = test.ledger->RotateKey("test", first.number, 100);
  ASSERT_TRUE(second);
  const auto third = test.ledger->RotateKey("test", second->key.number, 100);
  ASSERT_TRUE(third);
  test.key = third->key;
  EXPECT_EQ(test.Hold("b", 5, 0).error().code, ErrorCode::kQuotaExceeded);
  ASSERT_TRUE(test.Hold("c", 3, 0));
  ASSERT_TRUE(test.Post("c", Tokens(3, 0, 0)));
  test.Reopen();
  for (const Number number : {first.number, second->key.number, third->key.number}) {
    const std::vector<CapState> caps = test.ledger->Caps(Subject::kKey, number);
    ASSERT_EQ(caps.size(), 1u);
    EXPECT_EQ(caps[0].used, 9);
  }
  test.key = first;  // still good for a while, but not for more
  EXPECT_EQ(test.Hold("d", 2, 0).error().code, ErrorCode::kQuotaExceeded);
  EXPECT_TRUE(test.Hold("e", 1, 0));
}

TEST(Ledger, RefusesTermsThatMakeNoSense) {
  TestLedger test;
  test.MakeTenant(0);
  Ledger& ledger = *test.ledger;
  const auto param = [](const auto& result) {
    if (result) return std::string("fine");
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument) << result.error().message;
    return result.error().param;
  };
  const std::string hundred(100, 'x');
  for (const std::string& name : std::initializer_list<std::string>{
           "", " ", " a", "a ", "a  b", "a\nb", std::string("a\0b", 3), "\x7f", "\xc3",
           "\xed\xa0\x80", "\u200b",
           "\u202e"
           "abc",
           hundred + "y", "ten_0"})
    EXPECT_EQ(param(ledger.CreateTenant("test", {.name = name})), "name") << name;
  for (const std::string& name : {std::string("Ünïcode 株式会社"), hundred, std::string("a b")})
    EXPECT_EQ(param(ledger.CreateTenant("test", {.name = name})), "fine") << name;
  EXPECT_EQ(ledger.CreateTenant("test", {.name = "acme"}).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(param(ledger.CreateTenant("test", {.name = "t", .credit_line = -1})), "credit_line");
  EXPECT_EQ(param(ledger.CreateTenant("test", {.name = "t", .credit_line = kMaxMicros + 1})),
            "credit_line");
  EXPECT_EQ(param(ledger.CreateTenant("test", {.name = "t", .bounds = {.caps = {{.limit = -1}}}})),
            "caps");
  EXPECT_EQ(param(ledger.CreateTenant(
                "test", {.name = "t", .bounds = {.caps = {{.limit = 1}, {.limit = 2}}}})),
            "caps");
  EXPECT_EQ(param(ledger.CreateTenant(
                "test", {.name = "t", .bounds = {.limits = {.tokens_per_minute = -1}}})),
            "limits");
  EXPECT_EQ(
      ledger.CreateProject("test", {.name = "web", .tenant = test.tenant.number}).error().code,
      ErrorCode::kAlreadyExists);
  EXPECT_EQ(ledger.CreateProject("test", {.name = "p", .tenant = 999}).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(ledger.CreateKey("test", {.name = "k", .project = 999}).error().code,
            ErrorCode::kNotFound);
  const Number project = test.project.number;
  EXPECT_EQ(param(ledger.CreateKey("test", {.name = "k", .project = project, .expires_at = 5})),
            "expires_at");
  EXPECT_EQ(
      param(ledger.CreateKey("test", {.name = "k", .project = project, .endpoints = {"admin"}})),
      "endpoints");
  EXPECT_EQ(
      param(ledger.CreateKey("test", {.name = "k", .project = project, .models = {"a", "a"}})),
      "models");
  const int64_t now = test.clock.unix_s;
  EXPECT_EQ(param(ledger.AddPrice("test", {.model = "m", .rate = -1})), "rate");
  EXPECT_EQ(param(ledger.AddPrice("test", {.model = "m", .rate = kMaxMicros + 1})), "rate");
  EXPECT_EQ(param(ledger.AddPrice("test", {.model = "m", .effective_at = now - 1})),
            "effective_at");
  EXPECT_EQ(param(ledger.AddPrice("test", {.model = ""})), "model");
  EXPECT_EQ(param(ledger.AddPrice("test",
                                  {.model = "m", .tier = Tier::kLease, .unit = Unit::kShareHour})),
            "unit");
  EXPECT_EQ(param(ledger.AddCredit("test", test.tenant.number, 0, "r")), "amount");
  EXPECT_EQ(param(ledger.AddCredit("test", test.tenant.number, 5, "")), "reference");
  EXPECT_EQ(ledger.AddCredit("test", 999, 5, "r").error().code, ErrorCode::kNotFound);
  test.ExpectBalanced();
}

TEST(Ledger, LeasesAreChargedInAdvanceAndGivenBack) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.SetPrices(0, 0, 0, Tier::kLease);
  test.MakeTenant(20 * kUnit, {.caps = {{Period::kMonth, Measure::kMoney, 15 * kUnit}}});
  Ledger& ledger = *test.ledger;
  const int64_t now = test.clock.unix_s, hour = 3600;
  Lease wanted{.tenant = test.tenant.number,
               .share_ppm = 250'000,
               .starts_at = now,
               .ends_at = now + 10 * hour};
  EXPECT_EQ(ledger.CreateLease("test", wanted).error().code, ErrorCode::kUnavailable) << "no price";
  ASSERT_TRUE(ledger.AddPrice(
      "test", {.model = "*", .tier = Tier::kLease, .unit = Unit::kShareHour, .rate = 4 * kUnit}));
  const auto lease = ledger.CreateLease("test", wanted);
  ASSERT_TRUE(lease) << lease.error().message;
  EXPECT_EQ(lease->amount, 10 * kUnit);  // a quarter of ten hours at 4.00
  EXPECT_EQ(test.Credit(), 10 * kUnit);
  EXPECT_EQ(ledger.CreateLease("test", wanted).error().message,
            "the month cap of tenant 'acme' (15.00 USD) has 5.00 left; this request needs 10.00");

  ASSERT_TRUE(test.Hold("leased", 10, 10));
  EXPECT_EQ(test.Held(), 0) << "at the lease's prices";
  ASSERT_TRUE(test.Post("leased", Tokens(10, 0, 10)));
  EXPECT_EQ(test.disk->tables.usage.back().tier, Tier::kLease);

  test.clock.unix_s = now + 4 * hour;
  const auto cancelled = ledger.CancelLease("test", lease->number);
  ASSERT_TRUE(cancelled);
  EXPECT_EQ(cancelled->amount, 4 * kUnit);
  EXPECT_EQ(test.Credit(), 16 * kUnit);
  EXPECT_EQ(ledger.CancelLease("test", lease->number)->amount, 4 * kUnit) << "once";
  EXPECT_EQ(test.Credit(), 16 * kUnit);
  const auto spent =
      ledger.SpentIn(Subject::kTenant, test.tenant.number, Period::kMonth, Measure::kMoney);
  EXPECT_EQ(spent.used, 4 * kUnit);
  ASSERT_TRUE(test.Hold("after", 10, 10));
  EXPECT_EQ(test.Held(), 20) << "at the prices of everybody";
  ASSERT_TRUE(test.Void("after"));

  const auto month = ParseMonth("2026-11");
  ASSERT_TRUE(month);
  const auto invoice = ledger.MakeInvoice(test.tenant.number, *month);
  ASSERT_TRUE(invoice);
  EXPECT_EQ(invoice->total, 4 * kUnit);
  EXPECT_TRUE(invoice->is_open);
  EXPECT_EQ(invoice->number, test.tenant.id + "-2026-11");
  test.ExpectBalanced();
  test.Reopen();
  EXPECT_EQ(
      test.ledger->SpentIn(Subject::kTenant, test.tenant.number, Period::kMonth, Measure::kMoney)
          .used,
      4 * kUnit);
}

TEST(Ledger, LeasesShareOneDevice) {
  TestLedger test;
  test.MakeTenant(0);
  Ledger& ledger = *test.ledger;
  ASSERT_TRUE(ledger.AddPrice(
      "test", {.model = "*", .tier = Tier::kLease, .unit = Unit::kShareHour, .rate = 0}));
  const int64_t now = test.clock.unix_s;
  const auto lease = [&](int64_t share_ppm, int64_t from, int64_t to) {
    const auto made = ledger.CreateLease("test", {.tenant = test.tenant.number,
                                                  .share_ppm = share_ppm,
                                                  .starts_at = now + from,
                                                  .ends_at = now + to});
    return made ? std::string("made") : made.error().param;
  };
  EXPECT_EQ(lease(600'000, 0, 100), "made");
  EXPECT_EQ(lease(600'000, 100, 200), "made") << "one ends where the other starts";
  EXPECT_EQ(lease(400'000, 50, 150), "made");
  EXPECT_EQ(lease(1, 120, 121), "share");
  EXPECT_EQ(lease(400'000, 150, 1000), "made");
  EXPECT_EQ(lease(600'001, 10, 999), "share") << "where two overlap";
  EXPECT_EQ(lease(0, 0, 10), "share");
  EXPECT_EQ(lease(1'000'001, 2000, 3000), "share");
  EXPECT_EQ(lease(1, 10, 10), "ends_at");
  EXPECT_EQ(lease(1, -61, 10), "starts_at");
  EXPECT_EQ(lease(1, 5000, 200'000'000), "ends_at");
  EXPECT_EQ(lease(1, INT64_MAX - now, INT64_MIN - now + INT64_MAX), "ends_at");
}

TEST(Ledger, EveryActOfAdministrationIsInTheAudit) {
  TestLedger test;
  test.SetPrices(0, 0, 0);
  test.MakeTenant(5);
  std::vector<std::string> actions;
  for (const AuditEntry& entry : test.disk->tables.audit) actions.push_back(entry.action);
  EXPECT_EQ(actions,
            (std::vector<std::string>{"price.add", "price.add", "price.add", "tenant.create",
                                      "project.create", "key.create", "credit.add"}));
  test.ExpectBalanced();
  test.disk->tables.audit[1].details += " ";
  EXPECT_FALSE(test.ledger->Verify()->empty()) << "one changed entry breaks the chain";
}

TEST(Ledger, VerifiesWhileItWorks) {
  TestLedger test;
  test.SetPrices(kUnit, kUnit, kUnit);
  test.MakeTenant(1'000'000);
  std::atomic<bool> is_over{false};
  std::jthread worker([&] {
    for (int i = 0; !is_over; ++i) {
      const std::string id = std::to_string(i);
      EXPECT_TRUE(test.Hold(id, 1, 1));
      EXPECT_TRUE(test.Post(id, Tokens(1, 0, 0)));
    }
  });
  while (test.ledger->stats().commits < 500) {
    const auto faults = test.ledger->Verify();
    ASSERT_TRUE(faults);
    EXPECT_TRUE(faults->empty()) << faults->front();
  }
  is_over = true;
}

// The same on a disk, with what only a file has: it is there after a start.
TEST(Ledger, KeepsItsBooksInAFile) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / NewRecordId("ledger_test_");
  ASSERT_TRUE(std::filesystem::create_directory(folder));
  TestLedger test;
  const auto open = [&] {
    test.ledger.reset();
    auto store = OpenSqliteStore(folder / "ledger.db");
    ASSERT_TRUE(store) << store.error().message;
    auto opened = Ledger::Open(std::move(*store), test.clock, QuickRetries());
    ASSERT_TRUE(opened) << opened.error().message;
    test.ledger = std::move(*opened);
  };
  open();
  test.SetPrices(kUnit, kUnit / 2, kUnit);
  test.SetPrices(kUnit, 0, kUnit, Tier::kLease);
  test.MakeTenant(100'000, {.caps = {{Period::kMonth, Measure::kTokens, 10'000}}});
  ASSERT_TRUE(test.ledger->AddPrice(
      "test", {.model = "*", .tier = Tier::kLease, .unit = Unit::kShareHour, .rate = 100}));
  const int64_t now = test.clock.unix_s;
  const auto lease = test.ledger->CreateLease(
      "test",
      {.tenant = test.tenant.number, .share_ppm = 1000, .starts_at = now, .ends_at = now + 7200});
  ASSERT_TRUE(lease);
  test.clock.unix_s += 60;
  ASSERT_TRUE(test.ledger->CancelLease("test", lease->number));
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 8; ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = 0; i < 20; ++i) {
          const std::string id = std::to_string(thread) + "-" + std::to_string(i);
          EXPECT_TRUE(test.Hold(id, 5, 2));
          EXPECT_EQ(test.Extend(id, 3).value_or(0), 3);
          EXPECT_TRUE(i % 5 ? test.Post(id, Tokens(3, 2, i % 6)) : test.Void(id));
        }
      });
    }
  }
  ASSERT_TRUE(test.Hold("lost", 7, 7));
  const auto verify = [&] {
    const auto faults = test.ledger->Verify();
    ASSERT_TRUE(faults) << faults.error().message;
    EXPECT_TRUE(faults->empty()) << faults->front();
  };
  verify();
  const Micros credit = test.Credit() + test.Held();
  const CapState cap = test.ledger->Caps(Subject::kTenant, test.tenant.number).at(0);
  EXPECT_EQ(cap.held, 14);
  open();
  verify();
  EXPECT_EQ(test.ledger->stats().recovered_holds, 1);
  EXPECT_EQ(test.Credit(), credit);
  EXPECT_EQ(test.ledger->Caps(Subject::kTenant, test.tenant.number).at(0).used, cap.used);
  EXPECT_EQ(test.Hold("0-1", 1, 1).error().code, ErrorCode::kAlreadyExists);
  EXPECT_TRUE(test.Post("0-1", Tokens(1, 0, 0)));
  EXPECT_EQ(test.ledger->AddCredit("test", test.tenant.number, 5, "first").value(), credit);
  test.ledger.reset();
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace millpower::ledger
