// The service with a ledger, over sockets: keys, scopes, limits, holds, posts, and what tenants are
// told. The engine follows a script, the ledger is in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "base/json.h"
#include "base/test_wait.h"
#include "ledger/test_ledger.h"
#include "serve/lease_keeper.h"
#include "serve/service.h"
#include "serve/test_client.h"
#include "serve/test_model.h"

namespace millpower::serve {
namespace {

using ledger::Ledger;
using ledger::Micros;
using ledger::Tier;
using ledger::Unit;
using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

constexpr Micros kOne = 1'000'000;  // of a rate: a micro-unit for each

Json Object(std::string_view text) { return ParseJson(text).value(); }

// Time flies while it lives: a second in a millisecond.
class PassingTime {
 public:
  explicit PassingTime(ledger::TestClock& clock)
      : thread_([&clock](std::stop_token stop) {
          while (!stop.stop_requested()) {
            clock.now_ns += 1'000'000'000;
            std::this_thread::sleep_for(milliseconds(1));
          }
        }) {}

 private:
  std::jthread thread_;
};

// A tenant "acme" with 1.00 of credit; a prompt token costs 4 micro-units, a cached one 1, one of
// output 10.
class MeteringTest : public testing::Test {
 protected:
  MeteringTest() {
    for (const Tier tier : {Tier::kOnDemand, Tier::kBatch, Tier::kLease})
      books_.SetPrices(4 * kOne, kOne, 10 * kOne, tier);
    books_.MakeTenant(1'000'000);
    models_.Add(model_.served);
    EXPECT_TRUE(service_.Start());
  }

  void Answer(std::string text) {
    std::lock_guard lock(mutex_);
    answer_ = std::move(text);
  }
  static Json Body(const Json& more = Json::object()) {
    Json body = Object(R"({"model": "test", "prompt": "Hi", "max_tokens": 100})");
    body.update(more);
    return body;
  }
  TestResponse Complete(const Json& more = Json::object()) {
    return CompleteWith(books_.secret, more);
  }
  TestResponse CompleteWith(std::string_view key, const Json& more = Json::object()) {
    return Post("/v1/completions", Body(more), key);
  }
  TestResponse Post(std::string_view path, const Json& body, std::string_view key) {
    TestClient client(service_.port());
    client.Post(path, body.dump(), key);
    return client.Read().value();
  }
  TestResponse Get(std::string_view path, std::string_view key) {
    TestClient client(service_.port());
    client.Get(path, key);
    return client.Read().value();
  }
  TestResponse Get(std::string_view path) { return Get(path, books_.secret); }
  Json Account() { return Object(Get("/v1/account").body); }

  // The rows of usage, oldest first.
  std::vector<ledger::Usage> Rows() {
    auto rows = books_.ledger->store().ListUsage({}, 1000, 0).value();
    std::ranges::reverse(rows);
    return rows;
  }
  static int64_t Of(const ledger::Usage& usage, Unit unit) {
    return usage.quantities[static_cast<size_t>(unit)];
  }
  // Nothing is held any more, the books balance, and rows and credit say the same.
  void ExpectSettled(size_t rows) {
    EXPECT_TRUE(Eventually([&] { return books_.ledger->stats().open_holds == 0; }));
    EXPECT_TRUE(Eventually([&] { return Rows().size() == rows; })) << Rows().size();
    Micros spent = 0;
    for (const ledger::Usage& row : Rows()) spent += row.amount;
    EXPECT_EQ(books_.Credit(), 1'000'000 - spent);
    EXPECT_EQ(books_.Held(), 0);
    books_.ExpectBalanced();
  }
  void SetKey(const std::function<void(ledger::Key&)>& change) {
    ledger::Key key = books_.key;
    change(key);
    const auto updated = books_.ledger->UpdateKey("test", key);
    ASSERT_TRUE(updated) << updated.error().message;
    books_.key = *updated;
  }
  void SetTenant(const std::function<void(ledger::Tenant&)>& change) {
    ledger::Tenant tenant = books_.tenant;
    change(tenant);
    const auto updated = books_.ledger->UpdateTenant("test", tenant);
    ASSERT_TRUE(updated) << updated.error().message;
    books_.tenant = *updated;
  }
  // Another tenant, and its key's secret.
  std::string MakeOther() {
    ledger::Tenant tenant;
    tenant.name = "other";
    tenant.credit_line = std::nullopt;
    tenant = books_.ledger->CreateTenant("test", tenant).value();
    ledger::Project project;
    project.name = "default";
    project.tenant = tenant.number;
    project = books_.ledger->CreateProject("test", project).value();
    ledger::Key key;
    key.name = "k";
    key.project = project.number;
    const auto made = books_.ledger->CreateKey("test", key).value();
    other_key_ = made.key;
    return made.secret;
  }
  void ExpectRefused(const TestResponse& response, int status, const char* type, const char* code) {
    EXPECT_EQ(response.status, status) << response.body;
    const Json error = Object(response.body)["error"];
    EXPECT_EQ(error["type"], type);
    EXPECT_EQ(error["code"], code);
    EXPECT_EQ(model_.engine.requests().size(), 0u) << "work was done";
  }

  std::mutex mutex_;
  std::string answer_ = "Hello!";
  ledger::TestLedger books_;
  Meter meter_{*books_.ledger};
  TestModel model_{[this](const engine::Request&) {
                     std::lock_guard lock(mutex_);
                     return answer_;
                   },
                   1000, &meter_};
  ModelRegistry models_;
  Service service_{{.port = 0}, models_, books_.clock, &meter_};
  ledger::Key other_key_;
};

// ---- Keys

TEST_F(MeteringTest, LetsNobodyInWithoutAKey) {
  std::string forged = books_.secret;
  forged.back() = forged.back() == 'a' ? 'b' : 'a';
  const std::string truncated = books_.secret.substr(0, books_.secret.size() - 1);
  std::set<std::string> answers;
  for (const std::string& key :
       {forged, truncated, books_.secret + "x", std::string("mp-"), std::string("none"),
        "mp-AAAAAAAA-" + std::string(40, 'a'), std::string(5000, 'k')}) {
    const TestResponse response = CompleteWith(key);
    ExpectRefused(response, 401, "invalid_request_error", "invalid_api_key");
    EXPECT_THAT(response.body, Not(HasSubstr(key)));
    answers.insert(response.body);
  }
  EXPECT_EQ(answers.size(), 1u) << "they tell what is wrong with a key";
  ExpectRefused(CompleteWith(""), 401, "invalid_request_error", "invalid_api_key");
  for (const char* path : {"/v1/models", "/v1/models/test", "/v1/account", "/v1/usage",
                           "/v1/usage/requests", "/v1/invoices", "/v1/stats"}) {
    EXPECT_EQ(Get(path, "").status, 401) << path;
    EXPECT_EQ(Get(path).status, 200) << path;
  }
  for (const char* path : {"/", "/health/live", "/health/ready", "/openapi.json"})
    EXPECT_EQ(Get(path, "").status, 200) << path;
  // Only on the admin port.
  EXPECT_EQ(Get("/metrics").status, 404);
  EXPECT_THAT(service_.metrics().Text(),
              HasSubstr("millpower_requests_refused_total{model=\"\",reason=\"auth\"}"));
}

TEST_F(MeteringTest, TakesTheSchemeInAnyCase) {
  TestClient client(service_.port());
  client.Send("GET /v1/models HTTP/1.1\r\nHost: h\r\nauthorization: bEARER  " + books_.secret +
              "\r\n\r\n");
  EXPECT_EQ(client.Read()->status, 200);
  client.Send("GET /v1/models HTTP/1.1\r\nHost: h\r\nauthorization: Basic " + books_.secret +
              "\r\n\r\n");
  EXPECT_EQ(client.Read()->status, 401);
}

TEST_F(MeteringTest, EndsKeysAtOnce) {
  SetKey([&](ledger::Key& key) { key.expires_at = books_.clock.UnixSeconds() + 60; });
  EXPECT_EQ(Complete().status, 200);
  books_.clock.unix_s += 59;
  EXPECT_EQ(Complete().status, 200);
  books_.clock.unix_s += 1;
  TestResponse response = Complete();
  EXPECT_EQ(response.status, 401);
  EXPECT_THAT(response.body, HasSubstr("expired"));
  const std::string other = MakeOther();
  EXPECT_EQ(CompleteWith(other).status, 200);
  ASSERT_TRUE(books_.ledger->RevokeKey("test", other_key_.number));
  response = CompleteWith(other);
  EXPECT_EQ(response.status, 401);
  EXPECT_THAT(response.body, HasSubstr("revoked"));
}

TEST_F(MeteringTest, SuspendsTenants) {
  SetTenant([](ledger::Tenant& tenant) { tenant.suspended = true; });
  ExpectRefused(Complete(), 403, "invalid_request_error", "permission_denied");
  EXPECT_EQ(Get("/v1/models").status, 403);
  SetTenant([](ledger::Tenant& tenant) { tenant.suspended = false; });
  EXPECT_EQ(Complete().status, 200);
}

TEST_F(MeteringTest, KeepsKeysToTheirScopes) {
  ServedModel secret = model_.served;
  secret.name = "secret";
  models_.Add(secret);
  SetKey([](ledger::Key& key) {
    key.models = {"test"};
    key.endpoints = {"completions", "models"};
  });
  const Json list = Object(Get("/v1/models").body);
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], "test");
  // As if there were none of that name.
  const auto without_name = [](std::string body, const std::string& name) {
    return body.replace(body.find(name), name.size(), "");
  };
  EXPECT_EQ(without_name(Get("/v1/models/secret").body, "secret"),
            without_name(Get("/v1/models/nothing").body, "nothing"));
  ExpectRefused(Complete({{"model", "secret"}}), 404, "invalid_request_error", "model_not_found");
  ExpectRefused(Post("/v1/chat/completions", Object(R"({"model": "test"})"), books_.secret), 403,
                "invalid_request_error", "permission_denied");
  EXPECT_EQ(Get("/v1/account").status, 403);
  EXPECT_EQ(Complete().status, 200);
}

// ---- Bills

TEST_F(MeteringTest, BillsWhatItTellsTheClient) {
  const Json answer = Object(Complete().body);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 7);
  // It is posted by the time the client reads it.
  const auto rows = Rows();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].api_request_id, answer["id"]);
  EXPECT_EQ(rows[0].endpoint, "completions");
  EXPECT_EQ(rows[0].model, "test");
  EXPECT_EQ(rows[0].reason, "stop");
  EXPECT_EQ(rows[0].key, books_.key.number);
  EXPECT_EQ(rows[0].amount, 2 * 4 + 7 * 10);
  ExpectSettled(1);
  EXPECT_EQ(model_.engine.last_request().caller, books_.tenant.id);
}

TEST_F(MeteringTest, BillsCachedTokensOnceAndAtTheirPrice) {
  model_.engine.SetCachedTokens(5);
  const Json answer = Object(Complete({{"prompt", "12345678"}}).body);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 8);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 5);
  ASSERT_EQ(Rows().size(), 1u);
  EXPECT_EQ(Of(Rows()[0], Unit::kInputToken), 3);
  EXPECT_EQ(Of(Rows()[0], Unit::kCachedToken), 5);
  EXPECT_EQ(Rows()[0].amount, 3 * 4 + 5 * 1 + 7 * 10);
  ExpectSettled(1);
}

TEST_F(MeteringTest, BillsThePromptOfSeveralChoicesOnce) {
  const Json answer = Object(Complete({{"prompt", {"one", "three"}}, {"n", 3}}).body);
  const auto rows = Rows();
  ASSERT_EQ(rows.size(), 6u);
  int64_t prompt = 0, output = 0;
  for (const ledger::Usage& row : rows) {
    prompt += Of(row, Unit::kInputToken);
    output += Of(row, Unit::kOutputToken);
    EXPECT_EQ(row.api_request_id, answer["id"]);
  }
  EXPECT_EQ(answer["usage"]["prompt_tokens"], prompt);
  EXPECT_EQ(answer["usage"]["completion_tokens"], output);
  EXPECT_EQ(prompt, 8);
  ExpectSettled(6);
}

TEST_F(MeteringTest, ExtendsLongAnswers) {
  Answer(std::string(700, 'x'));
  const Json answer = Object(Complete({{"max_tokens", 600}}).body);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 600);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_FALSE(answer["choices"][0].contains("millpower"));
  ExpectSettled(1);
}

TEST_F(MeteringTest, StopsStreamsAtTheCap) {
  Answer(std::string(700, 'x'));
  // The prompt and 150 tokens, and not one more.
  SetKey([](ledger::Key& key) {
    key.bounds.caps = {{ledger::Period::kDay, ledger::Measure::kMoney, 2 * 4 + 150 * 10 + 9}};
  });
  const TestResponse response = Complete(
      {{"max_tokens", 600}, {"stream", true}, {"stream_options", {{"include_usage", true}}}});
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body, HasSubstr("\"finish_reason\":\"length\""));
  EXPECT_THAT(response.body, HasSubstr("\"stopped_by\":\"budget\""));
  EXPECT_THAT(response.body, HasSubstr("spending cap"));
  EXPECT_THAT(response.body, HasSubstr("\"completion_tokens\":150"));
  EXPECT_TRUE(response.body.ends_with("data: [DONE]\n\n"));
  ASSERT_EQ(Rows().size(), 1u);
  EXPECT_EQ(Of(Rows()[0], Unit::kOutputToken), 150);
  EXPECT_EQ(Rows()[0].reason, "budget");
  ExpectSettled(1);
  // Nothing is left for another one.
  const size_t before = model_.engine.requests().size();
  const TestResponse next = Complete();
  EXPECT_EQ(next.status, 429);
  EXPECT_EQ(Object(next.body)["error"]["code"], "insufficient_quota");
  EXPECT_EQ(Object(next.body)["error"]["type"], "insufficient_quota");
  EXPECT_FALSE(next.headers.contains("retry-after"));
  EXPECT_EQ(model_.engine.requests().size(), before);
  EXPECT_THAT(service_.metrics().Text(),
              HasSubstr("millpower_requests_refused_total{model=\"test\",reason=\"quota\"} 1"));
}

TEST_F(MeteringTest, RefusesWhatTheCreditDoesNotCover) {
  // A choice costs 18 at most, three cost 38: all or none.
  ASSERT_TRUE(books_.ledger->AddCredit("test", books_.tenant.number, -(1'000'000 - 20), "back"));
  ExpectRefused(Complete({{"max_tokens", 1}, {"n", 3}}), 429, "insufficient_quota",
                "insufficient_quota");
  EXPECT_EQ(books_.Credit(), 20);
  EXPECT_EQ(Complete({{"max_tokens", 1}}).status, 200);
  EXPECT_EQ(books_.Credit(), 2);
}

TEST_F(MeteringTest, BillsTiers) {
  Complete({{"service_tier", "flex"}});
  ASSERT_EQ(Rows().size(), 1u);
  EXPECT_EQ(Rows()[0].tier, Tier::kBatch);
  ServedModel fast = model_.served;
  fast.priority_tier = true;
  models_.Add(fast);
  EXPECT_EQ(Complete({{"service_tier", "priority"}}).status, 200);
  EXPECT_EQ(Rows().back().tier, Tier::kPriority);
  // With a price of its own for the prompt alone, its output is not for sale.
  ASSERT_TRUE(books_.ledger->AddPrice(
      "test", {.model = "test", .tier = Tier::kOnDemand, .unit = ledger::Unit::kInputToken}));
  const TestResponse response = Complete();
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("no price"));
}

TEST_F(MeteringTest, AnswersItselfForACaller) {
  auto caller = std::make_shared<Caller>();
  caller->directory = books_.ledger->directory();
  caller->key = caller->directory->FindKey(books_.key.number);
  caller->project = caller->directory->FindProject(books_.project.number);
  caller->tenant = caller->directory->FindTenant(books_.tenant.number);
  caller->is_batch = true;
  const auto exchange = std::make_shared<Exchange>(HttpRequest{.method = "POST",
                                                               .path = "/v1/completions",
                                                               .content_type = "application/json",
                                                               .id = "req-1",
                                                               .caller = caller,
                                                               .body = Body().dump()},
                                                   SIZE_MAX);
  std::promise<HttpResponse> told;
  exchange->OnReply([&](HttpResponse response) { told.set_value(std::move(response)); });
  service_.api().Handle(exchange);
  const HttpResponse response = told.get_future().get();
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(model_.engine.last_request().priority, engine::Priority::kBatch);
  ASSERT_EQ(Rows().size(), 1u);
  EXPECT_EQ(Rows()[0].tier, Tier::kBatch);
  EXPECT_EQ(Rows()[0].amount, 2 * 4 + 7 * 10);
}

TEST_F(MeteringTest, BillsALineOfABatchOnce) {
  auto caller = std::make_shared<Caller>();
  caller->directory = books_.ledger->directory();
  caller->key = caller->directory->FindKey(books_.key.number);
  caller->project = caller->directory->FindProject(books_.project.number);
  caller->tenant = caller->directory->FindTenant(books_.tenant.number);
  caller->is_batch = true;
  const auto ask = [&](const std::string& id, const Json& more) {
    const auto exchange = std::make_shared<Exchange>(HttpRequest{.method = "POST",
                                                                 .path = "/v1/completions",
                                                                 .content_type = "application/json",
                                                                 .id = id,
                                                                 .caller = caller,
                                                                 .body = Body(more).dump()},
                                                     SIZE_MAX);
    std::promise<HttpResponse> told;
    exchange->OnReply([&](HttpResponse response) { told.set_value(std::move(response)); });
    service_.api().Handle(exchange);
    HttpResponse response = told.get_future().get();
    // Until the engine has forgotten the id it is not asked again, as after a crash.
    EXPECT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running == 0; }));
    return response;
  };
  EXPECT_EQ(ask("batch_1-1", Json::object()).status, 200);
  const size_t rows = Rows().size();
  const auto credit = books_.ledger->SpentIn(ledger::Ledger::Subject::kTenant, books_.tenant.number,
                                             ledger::Period::kTotal, ledger::Measure::kMoney);
  // As after a crash between posting and the record of the answer.
  const HttpResponse again = ask("batch_1-1", Json::object());
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(Rows().size(), rows);
  EXPECT_EQ(books_.ledger
                ->SpentIn(ledger::Ledger::Subject::kTenant, books_.tenant.number,
                          ledger::Period::kTotal, ledger::Measure::kMoney)
                .used,
            credit.used);
  // Of two choices the first was posted: only the second is billed.
  EXPECT_EQ(ask("batch_1-1", {{"n", 2}, {"best_of", 2}}).status, 200);
  EXPECT_EQ(Rows().size(), rows + 1);
  EXPECT_EQ(books_.ledger->stats().open_holds, 0);
  EXPECT_EQ(ask("batch_1-2", Json::object()).status, 200);
  EXPECT_EQ(Rows().size(), rows + 2);
}

// ---- Ends

TEST_F(MeteringTest, TellsTheEndOnlyWhenItIsPosted) {
  Answer(std::string(40, 'x') + "end!");
  size_t count = 0;
  for (const bool stream : {false, true})
    for (const char* stop : {"none of it", "end"}) {
      TestClient client(service_.port());
      model_.engine.SetStepDelay(FakeEngine::kForEver);
      client.Post("/v1/completions", Body({{"stream", stream}, {"stop", stop}}).dump(),
                  books_.secret);
      ASSERT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running == 1; }));
      books_.disk->Block();
      model_.engine.SetStepDelay(milliseconds(0));
      books_.disk->WaitUntilBlocked();  // with the posting
      std::this_thread::sleep_for(milliseconds(20));
      EXPECT_THAT(service_.metrics().Text(),
                  Not(HasSubstr("http_requests_total{route=\"completions\",status=\"200\"} " +
                                std::to_string(count + 1))));
      EXPECT_EQ(books_.ledger->stats().open_holds, 1);
      books_.disk->Release();
      const TestResponse response = client.Read().value();
      EXPECT_EQ(response.status, 200);
      EXPECT_THAT(response.body, HasSubstr("\"finish_reason\":\"stop\""));
      EXPECT_EQ(response.body.ends_with("data: [DONE]\n\n"), stream);
      EXPECT_EQ(Rows().size(), ++count);
    }
  ExpectSettled(4);
}

TEST_F(MeteringTest, TellsAnErrorWhenItCannotBePosted) {
  Answer(std::string(40, 'x'));
  for (const bool stream : {true, false}) {
    model_.engine.SetStepDelay(FakeEngine::kForEver);
    TestClient client(service_.port());
    client.Post("/v1/completions", Body({{"stream", stream}}).dump(), books_.secret);
    ASSERT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running > 0; }));
    books_.disk->FailCommits(1'000'000);
    model_.engine.SetStepDelay(milliseconds(0));
    {
      const PassingTime time(books_.clock);  // the ledger tries for ten seconds
      const TestResponse response = client.Read().value();
      EXPECT_EQ(response.status, stream ? 200 : 503);
      EXPECT_THAT(response.body, HasSubstr("\"error\""));
      EXPECT_THAT(response.body, Not(HasSubstr("\"finish_reason\":\"stop\"")));
      EXPECT_EQ(response.body.ends_with("data: [DONE]\n\n"), stream);
    }
    books_.disk->FailCommits(0);
    EXPECT_TRUE(Eventually([&] { return books_.ledger->stats().open_holds == 0; }));
    EXPECT_TRUE(Eventually([&] { return books_.ledger->stats().healthy; }));
  }
  ExpectSettled(0);
}

TEST_F(MeteringTest, VoidsWhatFailed) {
  model_.engine.FailNext();
  EXPECT_EQ(Complete().status, 500);
  ExpectSettled(0);
}

TEST_F(MeteringTest, VoidsWhatTheEngineRefused) {
  Answer(std::string(900, 'x'));
  model_.engine.SetStepDelay(milliseconds(50));
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 7; ++i) {
    clients.push_back(std::make_unique<TestClient>(service_.port()));
    clients.back()->Post("/v1/completions", Body().dump(), books_.secret);
  }
  ASSERT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running == 7; }));
  // The second of three choices finds the queue full.
  EXPECT_EQ(Complete({{"n", 3}}).status, 429);
  model_.engine.SetStepDelay(milliseconds(0));
  clients.clear();
  EXPECT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running == 0; }));
  EXPECT_TRUE(Eventually([&] { return books_.ledger->stats().open_holds == 0; }));
  // Of the choice that was admitted nothing is billed: its client was told of an error.
  EXPECT_EQ(Rows().size(), 7u);
  books_.ExpectBalanced();
}

TEST_F(MeteringTest, BillsWhatWasMadeForAClientThatLeft) {
  Answer(std::string(90, 'x'));
  model_.engine.SetStepDelay(milliseconds(4));
  size_t rows = 0;
  for (const bool stream : {true, false})
    for (const int count : {0, 1, 20}) {
      const int64_t before = model_.engine.Stats().generated_tokens;
      {
        TestClient client(service_.port());
        client.Post("/v1/completions", Body({{"stream", stream}}).dump(), books_.secret);
        ASSERT_TRUE(
            Eventually([&] { return model_.engine.Stats().generated_tokens >= before + count; }));
        client.Close(true);
      }
      ASSERT_TRUE(Eventually([&] {
        return model_.engine.Stats().requests_running == 0 &&
               books_.ledger->stats().open_holds == 0;
      }));
      const int64_t generated = model_.engine.Stats().generated_tokens - before;
      EXPECT_LT(generated, 91);
      const auto all = Rows();
      int64_t billed = 0;
      for (size_t i = rows; i < all.size(); ++i) billed += Of(all[i], Unit::kOutputToken);
      rows = all.size();
      EXPECT_EQ(billed, generated) << count;
    }
  ExpectSettled(rows);
}

TEST_F(MeteringTest, VoidsWhatIsHeldForAClientThatLeft) {
  books_.disk->Block();
  {
    TestClient client(service_.port());
    client.Post("/v1/completions", Body({{"n", 2}}).dump(), books_.secret);
    books_.disk->WaitUntilBlocked();
    client.Close();
    EXPECT_TRUE(Eventually([&] {
      return service_.metrics().Text().contains(
          "http_requests_total{route=\"completions\",status=\"499\"}");
    }));
  }
  books_.disk->Release();
  ExpectSettled(0);
  EXPECT_EQ(model_.engine.requests().size(), 0u);
}

TEST_F(MeteringTest, DrainsWhenTheLedgerCannotBeWritten) {
  Answer(std::string(900, 'x'));
  model_.engine.SetStepDelay(milliseconds(5));
  TestClient client(service_.port());
  client.Post("/v1/completions", Body().dump(), books_.secret);
  ASSERT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running == 1; }));
  books_.disk->FailCommits(1'000'000);
  const PassingTime time(books_.clock);
  service_.Drain(milliseconds(10));
  model_.engine.Drain(0);
  books_.disk->FailCommits(0);
}

// ---- Limits

TEST_F(MeteringTest, TellsLimitsInHeaders) {
  SetKey([](ledger::Key& key) {
    key.bounds.limits = {.requests_per_minute = 3, .tokens_per_minute = 1000};
  });
  for (const bool stream : {false, true}) {
    const TestResponse response = Complete({{"stream", stream}, {"max_tokens", 10}});
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.headers.at("x-ratelimit-limit-requests"), "3");
    EXPECT_EQ(response.headers.at("x-ratelimit-remaining-requests"), stream ? "1" : "2");
    EXPECT_EQ(response.headers.at("x-ratelimit-reset-requests"), stream ? "40s" : "20s");
    EXPECT_EQ(response.headers.at("x-ratelimit-limit-tokens"), "1000");
    // The prompt's 2 and 10 are taken, of which 2 and 7 were used.
    EXPECT_EQ(response.headers.at("x-ratelimit-remaining-tokens"), stream ? "979" : "988");
  }
  EXPECT_EQ(Complete({{"temperature", 9}}).headers.at("x-ratelimit-remaining-requests"), "0");
  const TestResponse response = Complete();
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(Object(response.body)["error"]["code"], "rate_limit_exceeded");
  EXPECT_EQ(response.headers.at("retry-after"), "20");
  EXPECT_EQ(response.headers.at("x-ratelimit-remaining-requests"), "0");
  EXPECT_EQ(response.headers.at("x-ratelimit-reset-requests"), "1m0s");
  books_.clock.now_ns += 20'000'000'000;
  EXPECT_EQ(Complete().status, 200);
  EXPECT_THAT(service_.metrics().Text(),
              HasSubstr("millpower_requests_refused_total{model=\"\",reason=\"rate\"} 1"));
}

TEST_F(MeteringTest, LimitsTokens) {
  SetKey([](ledger::Key& key) { key.bounds.limits = {.tokens_per_minute = 60}; });
  const TestResponse never = Complete({{"max_tokens", 100}, {"prompt", "a"}});
  EXPECT_EQ(never.status, 429);
  EXPECT_THAT(never.body, HasSubstr("65 tokens at once"));
  EXPECT_EQ(Complete({{"max_tokens", 50}}).status, 200);  // 52 at first, 9 in the end
  EXPECT_EQ(Complete({{"max_tokens", 49}}).status, 200);
  EXPECT_EQ(Complete({{"max_tokens", 49}}).status, 429);
}

TEST_F(MeteringTest, LimitsChatsLikeCompletions) {
  SetKey([](ledger::Key& key) {
    key.bounds.limits = {.requests_per_minute = 100, .tokens_per_minute = 60};
  });
  const auto chat = [&](int max_tokens, bool stream) {
    return Post("/v1/chat/completions",
                {{"model", "test"},
                 {"messages", {{{"role", "user"}, {"content", "a"}}}},
                 {"stream", stream},
                 {"max_tokens", max_tokens}},
                books_.secret);
  };
  const TestResponse answer = chat(5, true);
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers.at("x-ratelimit-remaining-requests"), "99");
  EXPECT_EQ(answer.headers.at("x-ratelimit-limit-tokens"), "60");
  const TestResponse refused = chat(100, false);
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.body, HasSubstr("tokens"));
}

TEST_F(MeteringTest, LimitsRequestsAtATime) {
  Answer(std::string(300, 'x'));
  SetKey([](ledger::Key& key) { key.bounds.limits = {.concurrent_requests = 1}; });
  model_.engine.SetStepDelay(milliseconds(10));
  {
    TestClient client(service_.port());
    client.Post("/v1/completions", Body({{"stream", true}}).dump(), books_.secret);
    ASSERT_TRUE(client.ReadUntil("\"x\""));
    model_.engine.SetStepDelay(FakeEngine::kForEver);
    const TestResponse response = Complete();
    EXPECT_EQ(response.status, 429);
    EXPECT_EQ(response.headers.at("retry-after"), "1");
  }
  model_.engine.SetStepDelay(milliseconds(0));
  EXPECT_TRUE(Eventually([&] { return Complete().status == 200; }));
  // Whoever reads the end may come again at once.
  TestClient client(service_.port());
  for (int i = 0; i < 20; ++i) {
    client.Post("/v1/completions", Body({{"stream", i % 2 == 0}, {"max_tokens", 3}}).dump(),
                books_.secret);
    EXPECT_EQ(client.Read()->status, 200);
    client.Post("/tokenize", Body().dump(), books_.secret);
    EXPECT_EQ(client.Read()->status, 200);
  }
}

// ---- What tenants are told

TEST_F(MeteringTest, ShowsTheAccount) {
  SetKey([](ledger::Key& key) {
    key.bounds.caps = {{ledger::Period::kMonth, ledger::Measure::kTokens, 500}};
    key.bounds.limits.requests_per_minute = 100;
  });
  Complete();
  const Json account = Account();
  EXPECT_EQ(account["object"], "account");
  EXPECT_EQ(account["currency"], "USD");
  EXPECT_EQ(account["tenant"], Json({{"id", books_.tenant.id}, {"name", "acme"}}));
  EXPECT_EQ(account["key"]["prefix"], books_.key.prefix);
  EXPECT_EQ(account["key"]["expires_at"], nullptr);
  EXPECT_EQ(account["credit"], "0.999922");
  EXPECT_EQ(account["available"], "0.999922");
  EXPECT_EQ(account["spent"]["day"], Object(R"({"money": "0.000078", "tokens": 9})"));
  EXPECT_EQ(account["caps"], Object(R"([{"of": "key", "period": "month", "measure": "tokens",
      "limit": 500, "used": 9, "held": 0}])"));
  EXPECT_EQ(account["limits"]["key"]["requests_per_minute"], 100);
  EXPECT_EQ(account["limits"]["tenant"]["requests_per_minute"], nullptr);
  EXPECT_EQ(account["prices"].size(), 9u);
  EXPECT_EQ(account["prices"][0], Object(R"({"model": "*", "tier": "on_demand",
      "unit": "input_token", "rate": "4.00"})"));
  EXPECT_THAT(account.dump(), Not(HasSubstr(books_.secret)));
  SetTenant([](ledger::Tenant& tenant) { tenant.credit_line = std::nullopt; });
  EXPECT_EQ(Account()["available"], nullptr);
}

TEST_F(MeteringTest, ReportsUsageAndInvoices) {
  Complete();
  Complete({{"service_tier", "flex"}});
  const Json usage = Object(Get("/v1/usage?group_by=tier").body);
  ASSERT_EQ(usage["data"].size(), 2u);
  EXPECT_EQ(usage["data"][0]["output_tokens"], 7);
  EXPECT_EQ(usage["data"][0]["amount"], "0.000078");
  const TestResponse csv = Get("/v1/usage?format=csv&group_by=model");
  EXPECT_THAT(csv.headers.at("content-type"), HasSubstr("text/csv"));
  EXPECT_THAT(csv.body, HasSubstr("0.000156"));
  const Json rows = Object(Get("/v1/usage/requests?limit=1").body);
  ASSERT_EQ(rows["data"].size(), 1u);
  EXPECT_EQ(rows["data"][0]["tier"], "batch");
  const std::string before = rows["data"][0]["number"].dump();
  EXPECT_EQ(Object(Get("/v1/usage/requests?before=" + before).body)["data"][0]["tier"],
            "on_demand");
  const Json invoices = Object(Get("/v1/invoices").body);
  ASSERT_EQ(invoices["data"].size(), 1u);
  EXPECT_EQ(invoices["data"][0]["month"], "2026-11");
  EXPECT_EQ(invoices["data"][0]["total"], "0.000156");
  EXPECT_EQ(Object(Get("/v1/invoices/2026-11").body)["total"], "0.000156");
  EXPECT_THAT(Get("/v1/invoices/2026-11?format=text").body, HasSubstr("acme"));
  EXPECT_THAT(Get("/v1/invoices/2026-11?format=html").headers.at("content-type"),
              HasSubstr("text/html"));
  for (const char* path :
       {"/v1/usage?group_by=colour", "/v1/usage?from=yesterday", "/v1/usage?tenant=acme",
        "/v1/usage/requests?limit=0", "/v1/invoices/2026-13", "/v1/invoices/2026-11?format=pdf"})
    EXPECT_EQ(Get(path).status, 400) << path;
  const Json stats = Object(Get("/v1/stats").body);
  EXPECT_EQ(stats["requests"], 2);
  EXPECT_EQ(stats["spent"], "0.000156");
  EXPECT_EQ(stats["models"][0]["generated_tokens"], 14);
  EXPECT_EQ(stats["models"][0]["ttft"]["count"], 2);
}

TEST_F(MeteringTest, DescribesWhatItTells) {
  const Json paths = Object(Get("/openapi.json").body)["paths"];
  for (const char* path : {"/v1/account", "/v1/usage", "/v1/usage/requests", "/v1/invoices",
                           "/v1/invoices/{month}", "/v1/stats"}) {
    EXPECT_TRUE(paths[path].contains("get")) << path;
    EXPECT_TRUE(paths[path]["get"]["responses"].contains("401")) << path;
  }
}

TEST_F(MeteringTest, HidesTenantsFromEachOther) {
  const std::string other = MakeOther();
  Complete();
  EXPECT_EQ(Object(Get("/v1/usage", other).body)["data"].size(), 0u);
  EXPECT_EQ(Object(Get("/v1/usage/requests", other).body)["data"].size(), 0u);
  EXPECT_EQ(Object(Get("/v1/invoices", other).body)["data"].size(), 0u);
  EXPECT_THAT(Get("/v1/account", other).body, Not(HasSubstr("acme")));
  // What is another's is as unknown as what there is none of.
  for (const std::string& query :
       {"key=" + books_.key.id, "project=" + books_.project.id, std::string("key=key_0")}) {
    const TestResponse response = Get("/v1/usage?" + query, other);
    EXPECT_EQ(response.status, 404) << query;
    EXPECT_EQ(Object(response.body)["error"]["code"], "not_found");
    EXPECT_EQ(Get("/v1/usage/requests?" + query, other).status, 404);
  }
  EXPECT_EQ(Get("/v1/usage?key=" + books_.key.id).status, 200);
  EXPECT_EQ(Object(Get("/v1/usage/requests?request_id=" + Rows()[0].request_id, other).body)["data"]
                .size(),
            0u);
  EXPECT_THAT(Get("/v1/invoices/2026-11", other).body, Not(HasSubstr("acme")));
}

TEST_F(MeteringTest, TellsEnginesOfLeases) {
  ASSERT_TRUE(books_.ledger->AddPrice(
      "test", {.model = "*", .tier = Tier::kLease, .unit = Unit::kShareHour, .rate = 0}));
  const int64_t now = books_.clock.UnixSeconds();
  ledger::Lease lease;
  lease.tenant = books_.tenant.number;
  lease.share_ppm = 250'000;
  lease.starts_at = now + 100;
  lease.ends_at = now + 3700;
  const auto made = books_.ledger->CreateLease("test", lease);
  ASSERT_TRUE(made) << made.error().message;
  const LeaseKeeper keeper(*books_.ledger, models_, books_.clock, milliseconds(2));
  EXPECT_TRUE(SharesAt(*books_.ledger->directory(), now + 99).empty());
  EXPECT_TRUE(model_.engine.shares().empty());
  books_.clock.unix_s += 100;
  ASSERT_TRUE(Eventually([&] { return model_.engine.shares().size() == 1; }));
  EXPECT_EQ(model_.engine.shares()[0].caller, books_.tenant.id);
  EXPECT_DOUBLE_EQ(model_.engine.shares()[0].share, 0.25);
  // What its tenant asks for is at the lease's price.
  Complete();
  ASSERT_EQ(Rows().size(), 2u);  // and the lease itself
  EXPECT_EQ(Rows().back().tier, Tier::kLease);
  EXPECT_EQ(Account()["leases"].size(), 1u);
  books_.clock.unix_s += 3600;
  EXPECT_TRUE(Eventually([&] { return model_.engine.shares().empty(); }));
}

}  // namespace
}  // namespace millpower::serve
