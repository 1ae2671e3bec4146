#include "ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ledger/test_ledger.h"

namespace millpower::ledger {
namespace {

using ::testing::HasSubstr;

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

}  // namespace
}  // namespace millpower::ledger
