// Inference with a ledger: keys, scopes, limits, and what is held and posted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/json.h"
#include "base/test_wait.h"
#include "ledger/test_ledger.h"
#include "serve/inference/test_models.h"
#include "serve/service.h"
#include "serve/test_client.h"

namespace millpower::serve {
namespace {

using ledger::Micros;
using ledger::Tier;
using ledger::Unit;
using testing::HasSubstr;

constexpr Micros kOne = 1'000'000;  // of a rate: a micro-unit for each
constexpr Micros kCredit = 10'000;

class InferenceRentalTest : public testing::Test {
 protected:
  InferenceRentalTest() {
    books_.MakeTenant(kCredit);
    EXPECT_TRUE(engine_.Load(FakeRegressor("reg")));
    EXPECT_TRUE(engine_.Load(ranking::FakeRecommender("rec")));
    service_.OpenInference(engine_, {});
    EXPECT_TRUE(service_.Start());
  }

  void SetPrice(Unit unit, Micros rate, const std::string& model = "*") {
    ASSERT_TRUE(books_.ledger->AddPrice(
        "test", {.model = model, .tier = Tier::kOnDemand, .unit = unit, .rate = rate}));
  }
  void SetKey(const std::function<void(ledger::Key&)>& change) {
    ledger::Key key = books_.key;
    change(key);
    books_.key = books_.ledger->UpdateKey("test", key).value();
  }
  TestResponse Post(std::string_view path, std::string_view body, std::string_view key) {
    TestClient client(service_.port());
    client.Post(path, body, key);
    return client.Read().value();
  }
  // Three candidates.
  TestResponse Predict() {
    return Post("/v1/models/reg:predict", R"({"instances": [[1], [2], [3]]})", books_.secret);
  }
  std::vector<ledger::Usage> Rows() { return books_.ledger->store().ListUsage({}, 100, 0).value(); }
  static int64_t Of(const ledger::Usage& usage, Unit unit) {
    return usage.quantities[static_cast<size_t>(unit)];
  }
  void ExpectSettled(Micros spent) {
    EXPECT_TRUE(Eventually([&] { return books_.ledger->stats().open_holds == 0; }));
    EXPECT_EQ(books_.Credit(), kCredit - spent);
    EXPECT_EQ(books_.Held(), 0);
    books_.ExpectBalanced();
  }

  ledger::TestLedger books_;
  Meter meter_{*books_.ledger};
  ranking::FakeDevice device_{RunFakeModels};
  ranking::Engine engine_{device_, books_.clock};
  ModelRegistry models_;
  Service service_{{.port = 0}, models_, books_.clock, &meter_};
};

TEST_F(InferenceRentalTest, PostsAnInferenceAndItsCandidates) {
  SetPrice(Unit::kInference, 100 * kOne);
  SetPrice(Unit::kCandidate, 2 * kOne);
  const TestResponse response = Predict();
  ASSERT_EQ(response.status, 200) << response.body;
  const auto rows = Rows();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].model, "reg");
  EXPECT_EQ(rows[0].endpoint, "inference");
  EXPECT_EQ(Of(rows[0], Unit::kInference), 1);
  EXPECT_EQ(Of(rows[0], Unit::kCandidate), 3);
  EXPECT_EQ(Of(rows[0], Unit::kChipSecond), 1);
  EXPECT_EQ(rows[0].amount, 106);
  ExpectSettled(106);
}

TEST_F(InferenceRentalTest, OnePriceIsEnough) {
  EXPECT_EQ(Predict().status, 503);  // none at all
  SetPrice(Unit::kCandidate, 5 * kOne);
  EXPECT_EQ(Predict().status, 200);
  EXPECT_EQ(Of(Rows()[0], Unit::kInference), 1);
  ExpectSettled(15);
  SetPrice(Unit::kInference, 7 * kOne, "reg");  // in place of those of "*"
  EXPECT_EQ(Predict().status, 200);
  ExpectSettled(15 + 7);
}

TEST_F(InferenceRentalTest, ErrorsCostNothing) {
  SetPrice(Unit::kInference, 100 * kOne);
  const TestResponse fault = Post("/v2/models/rec/infer", R"({"inputs": [
      {"name": "offsets", "datatype": "INT64", "shape": [1], "data": [0]},
      {"name": "items", "datatype": "INT64", "shape": [1], "data": [5000]},
      {"name": "dense", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]},
      {"name": "scale", "datatype": "FP32", "shape": [1], "data": [2]}]})",
                                  books_.secret);
  EXPECT_EQ(fault.status, 400) << fault.body;
  EXPECT_EQ(Post("/v1/models/reg:predict", R"({"instances": [[1, 2]]})", books_.secret).status,
            400);
  ExpectSettled(0);
  EXPECT_TRUE(Rows().empty());
}

TEST_F(InferenceRentalTest, CreditEndsIt) {
  SetPrice(Unit::kCandidate, 2000 * kOne);
  EXPECT_EQ(Predict().status, 200);
  const TestResponse second = Predict();
  EXPECT_EQ(second.status, 429);
  EXPECT_TRUE(ParseJson(second.body).value()["error"].is_string());
  ExpectSettled(6000);
}

TEST_F(InferenceRentalTest, KeysAreForModelsAndEndpoints) {
  SetPrice(Unit::kInference, kOne);
  EXPECT_EQ(Post("/v1/models/reg:predict", R"({"instances": [[1]]})", "").status, 401);
  EXPECT_EQ(Post("/v1/models/reg:predict", R"({"instances": [[1]]})", "mp-wrong").status, 401);
  EXPECT_EQ(Post("/v2/repository/models/reg/unload", "{}", books_.secret).status, 403);
  SetKey([](ledger::Key& key) { key.models = {"rec"}; });
  EXPECT_EQ(Predict().status, 404);
  TestClient client(service_.port());
  client.Get("/v1/models/reg", books_.secret);
  EXPECT_EQ(client.Read()->status, 404);
  SetKey([](ledger::Key& key) {
    key.models = {};
    key.endpoints = {"chat"};
  });
  EXPECT_EQ(Predict().status, 403);
  SetKey([](ledger::Key& key) { key.endpoints = {"inference"}; });
  EXPECT_EQ(Predict().status, 200);
}

TEST_F(InferenceRentalTest, RateLimitsHold) {
  SetPrice(Unit::kInference, kOne);
  SetKey([](ledger::Key& key) { key.bounds.limits.requests_per_minute = 2; });
  EXPECT_EQ(Predict().status, 200);
  const TestResponse second = Predict();
  EXPECT_EQ(second.status, 200);
  EXPECT_EQ(second.headers.at("x-ratelimit-remaining-requests"), "0");
  EXPECT_EQ(Predict().status, 429);
}

}  // namespace
}  // namespace millpower::serve
