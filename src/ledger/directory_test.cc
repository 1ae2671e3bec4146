#include "ledger/directory.h"

#include <gtest/gtest.h>

#include <memory>

#include "ledger/key_secret.h"

namespace millpower::ledger {
namespace {

Tenant MakeTenant(Number number, const std::string& id, const std::string& name) {
  Tenant tenant;
  tenant.number = number;
  tenant.id = id;
  tenant.name = name;
  return tenant;
}

Key MakeKey(Number number, const NewSecret& secret) {
  Key key;
  key.number = number;
  key.id = "key_" + std::to_string(number);
  key.prefix = secret.prefix;
  key.hash = secret.hash;
  return key;
}

Price MakePrice(Number number, const std::string& model, int64_t effective_at, Micros rate) {
  Price price;
  price.number = number;
  price.model = model;
  price.effective_at = effective_at;
  price.rate = rate;
  return price;
}

Lease MakeLease(Number number, Number tenant, int64_t share_ppm, int64_t from, int64_t to) {
  Lease lease;
  lease.number = number;
  lease.id = "lease_" + std::to_string(number);
  lease.tenant = tenant;
  lease.share_ppm = share_ppm;
  lease.starts_at = from;
  lease.ends_at = to;
  return lease;
}

TEST(Directory, FindsByNumberIdAndName) {
  // An id wins over another tenant's name, so nobody takes over by calling himself like an id.
  const Directory directory(
      "USD", {MakeTenant(7, "ten_b", "ten_a"), MakeTenant(3, "ten_a", "Acme")}, {}, {}, {}, {});
  EXPECT_EQ(directory.tenants()[0].number, 3);  // in the order of making
  EXPECT_EQ(directory.FindTenant("ten_a")->number, 3);
  EXPECT_EQ(directory.FindTenant("Acme")->number, 3);
  EXPECT_EQ(directory.FindTenant("ten_b")->number, 7);
  EXPECT_EQ(directory.FindTenant(7)->id, "ten_b");
  EXPECT_EQ(directory.FindTenant(4), nullptr);
  EXPECT_EQ(directory.FindTenant("ten_c"), nullptr);
  EXPECT_EQ(directory.FindKey("key_1"), nullptr);
  EXPECT_EQ(directory.FindProject(1), nullptr);
  EXPECT_EQ(directory.currency(), "USD");
}

TEST(Directory, FindsTheKeyOfASecretAndOfNothingElse) {
  const NewSecret one = *MakeSecret(), two = *MakeSecret();
  const Directory directory("USD", {}, {}, {MakeKey(1, one), MakeKey(2, two)}, {}, {});
  EXPECT_EQ(directory.FindSecret(one.secret)->number, 1);
  EXPECT_EQ(directory.FindSecret(two.secret)->number, 2);
  for (size_t i = 0; i < one.secret.size(); ++i) {
    std::string forged = one.secret;
    forged[i] = forged[i] == 'x' ? 'y' : 'x';
    EXPECT_EQ(directory.FindSecret(forged), nullptr) << i;
    EXPECT_EQ(directory.FindSecret(one.secret.substr(0, i)), nullptr) << i;
  }
  // One key's prefix with another one's secret.
  EXPECT_EQ(directory.FindSecret(one.secret.substr(0, 12) + two.secret.substr(12)), nullptr);
  EXPECT_EQ(directory.FindSecret(one.prefix), nullptr);
  EXPECT_EQ(directory.FindSecret(one.hash), nullptr);
}

TEST(Directory, ACopyOutlivesWhatItWasCopiedFrom) {
  const NewSecret secret = *MakeSecret();
  auto first = std::make_unique<Directory>("USD", std::vector<Tenant>{}, std::vector<Project>{},
                                           std::vector<Key>{MakeKey(5, secret)},
                                           std::vector<Price>{}, std::vector<Lease>{});
  const Directory copy = *first;
  Directory moved = std::move(*first);
  first.reset();
  EXPECT_EQ(copy.FindSecret(secret.secret), &copy.keys()[0]);
  EXPECT_EQ(moved.FindSecret(secret.secret), &moved.keys()[0]);
}

TEST(Directory, TakesTheModelsOwnPriceThenTheLatest) {
  const Directory directory(
      "USD", {}, {}, {},
      {MakePrice(1, "*", 0, 10), MakePrice(2, "*", 100, 11), MakePrice(3, "qwen", 50, 20),
       MakePrice(4, "qwen", 200, 21), MakePrice(5, "qwen", 200, 22), MakePrice(6, "qwen", 150, 23)},
      {});
  const auto rate = [&](std::string_view model, int64_t at) {
    return directory.FindPrice(model, Tier::kOnDemand, Unit::kInputToken, at)->rate;
  };
  EXPECT_EQ(rate("other", 0), 10);
  EXPECT_EQ(rate("other", 99), 10);
  EXPECT_EQ(rate("other", 100), 11);
  EXPECT_EQ(rate("qwen", 49), 10);  // its own isn't in effect yet
  EXPECT_EQ(rate("qwen", 50), 20);
  EXPECT_EQ(rate("qwen", 100), 20);  // its own, though that of "*" is newer
  EXPECT_EQ(rate("qwen", 199), 23);
  EXPECT_EQ(rate("qwen", 200), 22);  // of those that took effect last, the one made last
  EXPECT_EQ(rate("qwen", INT64_MAX), 22);
  EXPECT_EQ(directory.FindPrice("qwen", Tier::kOnDemand, Unit::kOutputToken, 300), nullptr);
  EXPECT_EQ(directory.FindPrice("qwen", Tier::kOnDemand, Unit::kInputToken, -1), nullptr);
  EXPECT_EQ(directory.FindPrice(3)->rate, 20);
}

TEST(Directory, NothingIsFreeByBeingForgotten) {
  const auto price = [](Number number, std::string model, Tier tier, Unit unit) {
    return Price{.number = number, .model = std::move(model), .tier = tier, .unit = unit};
  };
  const auto on = Tier::kOnDemand, batch = Tier::kBatch, lease = Tier::kLease;
  const auto input = Unit::kInputToken, cached = Unit::kCachedToken, output = Unit::kOutputToken;
  const Directory directory(
      "USD", {}, {}, {},
      {price(1, "*", on, input), price(2, "*", on, output), price(3, "*", lease, input),
       price(4, "*", batch, output), price(5, "own", on, input), price(6, "own", batch, input),
       price(7, "own", on, cached), price(8, "leased", lease, output)},
      {});
  const auto number = [&](const char* model, Tier tier, Unit unit) {
    const Price* found = directory.FindPrice(model, tier, unit, 0);
    return found ? found->number : 0;
  };
  EXPECT_EQ(number("other", on, input), 1);
  EXPECT_EQ(number("other", on, cached), 1);  // as what is computed
  EXPECT_EQ(number("other", Tier::kPriority, output), 2);
  EXPECT_EQ(number("other", batch, input), 1);
  EXPECT_EQ(number("other", batch, output), 4);
  EXPECT_EQ(number("own", on, input), 5);
  EXPECT_EQ(number("own", on, cached), 7);
  EXPECT_EQ(number("own", batch, cached), 6);  // the tier goes first
  EXPECT_EQ(number("own", Tier::kPriority, cached), 7);
  EXPECT_EQ(number("own", on, output), 0);  // not the 0 of "*"
  EXPECT_EQ(number("own", batch, output), 0);
  EXPECT_EQ(number("own", lease, input), 3);
  EXPECT_EQ(number("own", lease, cached), 3);
  EXPECT_EQ(number("leased", on, output), 2);  // a price at kLease says nothing of other tiers
  EXPECT_EQ(number("leased", lease, output), 8);
}

TEST(Directory, LeasesOfATenantAddUpWhileTheyRun) {
  Lease cancelled = MakeLease(3, 1, 100'000, 0, 1000);
  cancelled.cancelled_at = 500;
  const Directory directory("USD", {}, {}, {}, {},
                            {MakeLease(1, 1, 250'000, 100, 200), MakeLease(2, 1, 50'000, 150, 300),
                             cancelled, MakeLease(4, 2, 400'000, 0, 1000)});
  EXPECT_EQ(directory.SharePpm(1, 99), 100'000);
  EXPECT_EQ(directory.SharePpm(1, 100), 350'000);
  EXPECT_EQ(directory.SharePpm(1, 150), 400'000);
  EXPECT_EQ(directory.SharePpm(1, 200), 150'000);
  EXPECT_EQ(directory.SharePpm(1, 499), 100'000);
  EXPECT_EQ(directory.SharePpm(1, 500), 0);
  EXPECT_EQ(directory.FindLease(1, 499)->number, 3);
  EXPECT_EQ(directory.FindLease(1, 500), nullptr);
  EXPECT_EQ(directory.FindLease(2, 500)->number, 4);
  EXPECT_EQ(directory.FindLease(3, 500), nullptr);
  EXPECT_EQ(directory.FindLease("lease_2")->share_ppm, 50'000);
}

}  // namespace
}  // namespace millpower::ledger
