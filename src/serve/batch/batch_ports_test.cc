// What batches ask of the ledger, over one in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ledger/test_ledger.h"
#include "serve/access.h"
#include "serve/batch/batch_service.h"
#include "serve/models.h"

namespace millpower::serve {
namespace {

class BatchPortsTest : public testing::Test {
 protected:
  BatchPortsTest() {
    books_.MakeTenant(1'000'000);
    owner_ = {books_.tenant.id, books_.project.id, books_.key.id};
  }

  BatchPorts Ports() { return MakeBatchPorts(nullptr, *books_.ledger, models_, books_.clock); }
  // The key with which a batch of the owner's runs; "": nobody's.
  std::string KeyOf(const Owner& owner) {
    const auto caller = Ports().caller_of(owner);
    return caller == nullptr ? "" : caller->key->id;
  }
  ledger::Key Rotate(const ledger::Key& key, int64_t overlap_s) {
    return books_.ledger->RotateKey("test", key.number, overlap_s).value().key;
  }
  void Revoke(const ledger::Key& key) { ASSERT_TRUE(books_.ledger->RevokeKey("test", key.number)); }

  ledger::TestLedger books_;
  ModelRegistry models_;
  Owner owner_;
};

TEST_F(BatchPortsTest, FindsTheCaller) {
  const auto caller = Ports().caller_of(owner_);
  ASSERT_NE(caller, nullptr);
  EXPECT_EQ(caller->tenant->id, owner_.tenant);
  EXPECT_EQ(caller->project->id, owner_.project);
  EXPECT_EQ(caller->key->id, owner_.key);
  EXPECT_TRUE(caller->is_batch);
}

// Numbers are the same in each new ledger, ids are not.
TEST_F(BatchPortsTest, AnotherLedgersOwnersAreNobody) {
  ledger::TestLedger other;
  other.MakeTenant(0);
  ASSERT_EQ(other.key.number, books_.key.number);
  EXPECT_EQ(KeyOf({other.tenant.id, other.project.id, other.key.id}), "");
}

TEST_F(BatchPortsTest, OwnersBelongTogether) {
  const ledger::Tenant tenant = books_.ledger->CreateTenant("test", {.name = "other"}).value();
  const ledger::Project project =
      books_.ledger->CreateProject("test", {.name = "p", .tenant = tenant.number}).value();
  EXPECT_EQ(KeyOf({tenant.id, owner_.project, owner_.key}), "");
  EXPECT_EQ(KeyOf({owner_.tenant, project.id, owner_.key}), "");
  EXPECT_EQ(KeyOf({tenant.id, project.id, owner_.key}), "");
  EXPECT_EQ(KeyOf({books_.tenant.name, owner_.project, owner_.key}), "");
}

TEST_F(BatchPortsTest, RunsWithTheNewestKeyOfARotation) {
  const ledger::Key second = Rotate(books_.key, 60);
  EXPECT_EQ(KeyOf(owner_), second.id);
  const ledger::Key third = Rotate(second, 0);
  books_.clock.unix_s += 3600;  // the first two are over
  EXPECT_EQ(KeyOf(owner_), third.id);
  Revoke(third);
  EXPECT_EQ(KeyOf(owner_), owner_.key);  // which the ledger refuses
}

TEST_F(BatchPortsTest, RevokedIsRevoked) {
  Rotate(books_.key, 60);
  Revoke(books_.key);
  EXPECT_EQ(KeyOf(owner_), owner_.key);
}

TEST_F(BatchPortsTest, ScopesHoldForLinesToo) {
  books_.key.endpoints = {"batches", "chat"};
  ASSERT_TRUE(books_.ledger->UpdateKey("test", books_.key));
  const Access access(books_.ledger.get(), books_.clock);
  HttpRequest request;
  request.caller = Ports().caller_of(owner_);
  EXPECT_EQ(access.Authenticate(request, kChatScope).value(), request.caller);
  const auto refused = access.Authenticate(request, kCompletionsScope);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kForbidden);
}

TEST_F(BatchPortsTest, ModelsNeedAPrice) {
  models_.Announce("m", /*at_start=*/false);
  const BatchPorts ports = Ports();
  const auto check = [&](const std::string& model) {
    return ports.check_model(*ports.caller_of(owner_), model);
  };
  EXPECT_EQ(check("m").error().code, ErrorCode::kUnavailable);
  books_.SetPrices(1, 1, 1);
  EXPECT_TRUE(check("m"));
  EXPECT_EQ(check("other").error().code, ErrorCode::kNotFound);
}

TEST_F(BatchPortsTest, TellsWhetherCreditIsHeld) {
  books_.SetPrices(1'000'000, 1'000'000, 1'000'000);
  const BatchPorts ports = Ports();
  const auto caller = ports.caller_of(owner_);
  EXPECT_FALSE(ports.holds_credit(*caller));
  ASSERT_TRUE(books_.Hold("a", 10, 10));
  EXPECT_TRUE(ports.holds_credit(*caller));
  ASSERT_TRUE(books_.Void("a"));
  EXPECT_FALSE(ports.holds_credit(*caller));
}

}  // namespace
}  // namespace millpower::serve
