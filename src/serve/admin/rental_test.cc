// The rental half of the admin API over sockets, on a ledger in SQLite.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "ledger/ledger.h"
#include "ledger/sqlite_store.h"
#include "ledger/test_ledger.h"
#include "ledger/test_store.h"
#include "serve/admin.h"
#include "serve/admin/inputs.h"
#include "serve/service.h"
#include "serve/test_client.h"

namespace millpower::serve::admin {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kKey = "0123456789abcdef";

struct Reply {
  int status = 0;
  std::string body;
  std::map<std::string, std::string> headers;
  Json json() const { return ParseJson(body).value(); }
  std::string message() const { return json()["error"]["message"]; }
};

class AdminRentalTest : public testing::Test {
 protected:
  AdminRentalTest() {
    auto store = ledger::OpenSqliteStore(folder_ / "ledger.db");
    EXPECT_TRUE(store) << store.error().message;
    auto opened = ledger::Ledger::Open(std::move(*store), clock_);
    EXPECT_TRUE(opened) << opened.error().message;
    ledger_ = std::move(*opened);
    Start(ledger_.get());
  }

  void Start(ledger::Ledger* ledger, Api* api = nullptr, const Metrics* metrics = nullptr) {
    admin_.emplace(AdminConfig{.port = 0, .key = kKey}, host_,
                   AdminParts{.ledger = ledger, .api = api, .metrics = metrics, .clock = &clock_});
    ASSERT_TRUE(admin_->Start());
  }

  Reply Ask(const std::string& method, const std::string& path, const std::string& body = "",
            const std::string& key = kKey, const std::string& type = "application/json") {
    TestClient client(admin_->port());
    client.Send(method + " " + path + " HTTP/1.1\r\nHost: h\r\n" +
                (key.empty() ? "" : "Authorization: Bearer " + key + "\r\n") + "Content-Type: " +
                type + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    const auto answer = client.Read(method == "HEAD");
    return answer ? Reply{answer->status, answer->body, answer->headers} : Reply{};
  }
  Reply Get(const std::string& path) { return Ask("GET", "/admin/v1" + path); }
  Reply Post(const std::string& path, const Json& body) {
    return Ask("POST", "/admin/v1" + path, DumpJson(body));
  }
  Reply Patch(const std::string& path, const Json& body) {
    return Ask("PATCH", "/admin/v1" + path, DumpJson(body));
  }
  Reply Delete(const std::string& path) { return Ask("DELETE", "/admin/v1" + path); }

  // The answer to what must go well.
  Json Made(const Reply& reply) {
    EXPECT_LT(reply.status, 300) << reply.body;
    return reply.json();
  }
  std::string MakeTenant(const Json& more = Json::object()) {
    Json body = {{"name", "acme"}};
    body.update(more);
    return Made(Post("/tenants", body))["id"];
  }
  std::string MakeProject(const std::string& tenant, const std::string& name = "web") {
    return Made(Post("/projects", {{"tenant", tenant}, {"name", name}}))["id"];
  }
  Json MakeKey(const std::string& tenant, Json more = Json::object()) {
    more.update({{"tenant", tenant}, {"name", "ci"}});
    return Made(Post("/keys", more));
  }
  void SetPrices() {
    for (const auto& [unit, rate] :
         {std::pair{"input_token", "0.15"}, {"cached_token", "0.05"}, {"output_token", "0.60"}})
      Made(Post("/prices", {{"model", "*"}, {"unit", unit}, {"rate", rate}}));
  }
  // A request, as the API would have it counted.
  void Use(const Json& key, const std::string& id, int64_t input, int64_t cached, int64_t output) {
    const auto number = ledger_->directory()->FindKey(key["id"].get<std::string>())->number;
    ledger::HoldRequest hold{.request_id = id,
                             .api_request_id = "chatcmpl-" + id,
                             .key = number,
                             .model = "m",
                             .endpoint = "chat",
                             .most = ledger::Tokens(input + cached, 0, output)};
    const auto held =
        ledger::Await([&](ledger::Ledger::Done done) { ledger_->Hold({hold}, std::move(done)); });
    ASSERT_TRUE(held) << held.error().message;
    ASSERT_TRUE(ledger::Await([&](ledger::Ledger::Done done) {
      ledger_->Post(id, ledger::Tokens(input, cached, output), "stop", std::move(done));
    }));
  }
  Json Audit() { return Made(Get("/audit?limit=1000"))["data"]; }

  const ledger::TemporaryFolder folder_;
  ledger::TestClock clock_;
  std::unique_ptr<ledger::Ledger> ledger_;
  ModelRegistry registry_;
  ModelHost host_{registry_,
                  [](const ModelSpec&, bool, const LoadProgress&) -> Result<ServedModel> {
                    return Fail(ErrorCode::kInternal, "not reached");
                  },
                  0};
  std::optional<AdminServer> admin_;
};

TEST_F(AdminRentalTest, FromTheFirstTenantToTheFirstInvoice) {
  const std::string tenant = MakeTenant();
  const std::string project = MakeProject(tenant);
  const Json key = MakeKey(tenant);
  SetPrices();
  const Json paid =
      Made(Post("/tenants/acme/credit", {{"amount", "10.00"}, {"reference", "transfer 1"}}));
  EXPECT_EQ(paid["credit"], "10.00");
  EXPECT_EQ(paid["applied"], true);
  Use(key, "a", 1000, 500, 200);
  Use(key, "b", 7, 0, 1);

  // 1000 * 0.15 + 500 * 0.05 + 200 * 0.60 = 295 millionths; 7 * 0.15 rounds up to 2, 0.60 to 1.
  const Json state = Made(Get("/tenants/" + tenant));
  EXPECT_EQ(state["credit"], "9.999702");
  EXPECT_EQ(state["held"], "0.00");
  EXPECT_EQ(state["spent"]["day"], Json({{"money", "0.000298"}, {"tokens", 1708}}));
  EXPECT_EQ(state["spent"]["total"], state["spent"]["month"]);

  const Json usage = Made(Get("/usage?tenant=acme&group_by=project,model,day"));
  ASSERT_EQ(usage["data"].size(), 1u);
  EXPECT_EQ(usage["data"][0]["project"], project);
  EXPECT_EQ(usage["data"][0]["requests"], 2);
  EXPECT_EQ(usage["data"][0]["output_tokens"], 201);
  EXPECT_EQ(usage["data"][0]["amount"], "0.000298");
  const Reply csv = Get("/usage?group_by=tenant&format=csv");
  EXPECT_EQ(csv.headers.at("content-type"), "text/csv; charset=utf-8");
  EXPECT_THAT(csv.body, HasSubstr("acme"));
  const Json of_acme = Made(Get("/usage/requests?tenant=acme"));
  ASSERT_EQ(of_acme["data"].size(), 2u);
  EXPECT_EQ(of_acme["data"][1]["request_id"], "a");
  const Json rows = Made(Get("/usage/requests?limit=1"));
  EXPECT_EQ(rows["data"][0]["request_id"], "b");
  const std::string before = rows["data"][0]["number"].dump();
  EXPECT_EQ(Made(Get("/usage/requests?before=" + before))["data"][0]["request_id"], "a");
  EXPECT_EQ(Made(Get("/usage/requests?request_id=chatcmpl-a"))["data"].size(), 1u);

  const Json invoices = Made(Get("/invoices?tenant=acme"));
  ASSERT_EQ(invoices["data"].size(), 1u);
  EXPECT_EQ(invoices["data"][0]["month"], "2026-11");
  EXPECT_EQ(invoices["data"][0]["total"], "0.000298");
  const Json invoice = Made(Get("/invoices/acme/2026-11"));
  EXPECT_EQ(invoice["total"], "0.000298");
  ledger::Micros sum = 0;
  for (const Json& line : invoice["lines"])
    sum += ledger::ParseMoney(line["amount"].get<std::string>()).value();
  EXPECT_EQ(sum, 298);
  EXPECT_THAT(Get("/invoices/acme/2026-11?format=text").body, HasSubstr("0.000298"));
  const Reply page = Get("/invoices/acme/2026-11?format=html");
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_THAT(page.body, HasSubstr("0.000298"));
  EXPECT_EQ(Get("/invoices/acme/2026-13").status, 400);
  EXPECT_EQ(Get("/invoices/nobody/2026-11").status, 404);

  EXPECT_EQ(Made(Post("/verify", Json::object())),
            Json({{"object", "verification"}, {"ok", true}, {"faults", Json::array()}}));
  const std::string copy = folder_ / "copy.db";
  const Json backup = Made(Post("/backup", {{"path", copy}}));
  EXPECT_EQ(backup["path"], copy);
  EXPECT_GT(backup["size_bytes"], 0);
  EXPECT_EQ(Post("/backup", {{"path", copy}}).status, 409);
  auto opened = ledger::OpenSqliteStore(copy, {.create = false, .read_only = true});
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ((*opened)->Load()->tenants.size(), 1u);

  const Json overview = Made(Get("/overview"));
  EXPECT_EQ(overview["totals"]["tenants"], 1);
  EXPECT_EQ(overview["totals"]["active_keys"], 1);
  EXPECT_EQ(overview["totals"]["revenue"], "0.000298");
  EXPECT_EQ(overview["totals"]["spent"]["day"]["money"], "0.000298");
  EXPECT_EQ(overview["ledger"]["healthy"], true);
  EXPECT_EQ(overview["ledger"]["open_holds"], 0);
}

TEST_F(AdminRentalTest, SecretsAreToldOnce) {
  MakeProject(MakeTenant());
  const Json made = MakeKey("acme");
  const std::string secret = made["secret"], id = made["id"];
  EXPECT_NE(ledger_->directory()->FindSecret(secret), nullptr);
  const Json rotated = Made(Post("/keys/" + id + "/rotate", {{"overlap_s", 60}}));
  const std::string second = rotated["secret"];
  EXPECT_NE(second, secret);
  EXPECT_EQ(rotated["replaces"], id);
  for (const char* path : {"/keys", "/audit", "/tenants", "/projects"}) {
    const std::string body = Get(path).body;
    for (const std::string& each : {secret, second}) EXPECT_THAT(body, Not(HasSubstr(each)));
    EXPECT_THAT(body, Not(HasSubstr("\"secret\"")));
  }
  EXPECT_THAT(Get("/keys/" + id).body, Not(HasSubstr("\"secret\"")));
}

TEST_F(AdminRentalTest, KeysExpireRotateAndAreRevoked) {
  MakeProject(MakeTenant());
  const Json made =
      MakeKey("acme", {{"expires_in_s", 3600},
                       {"models", {"m"}},
                       {"endpoints", {"chat", "usage"}},
                       {"caps", {{{"period", "day"}, {"measure", "tokens"}, {"limit", 1000}}}},
                       {"limits", {{"requests_per_minute", 60}}}});
  const std::string path = "/keys/" + made["id"].get<std::string>();
  EXPECT_EQ(made["state"], "active");
  EXPECT_EQ(made["expires_at"], clock_.UnixSeconds() + 3600);
  EXPECT_EQ(made["models"], Json({"m"}));
  EXPECT_EQ(
      made["caps"],
      Json(
          {{{"period", "day"}, {"measure", "tokens"}, {"limit", 1000}, {"used", 0}, {"held", 0}}}));
  EXPECT_EQ(made["limits"], Json({{"requests_per_minute", 60},
                                  {"tokens_per_minute", nullptr},
                                  {"concurrent_requests", nullptr}}));

  const Json changed = Made(Patch(path, {{"expires_at", nullptr}, {"models", nullptr}}));
  EXPECT_EQ(changed["expires_at"], nullptr);
  EXPECT_EQ(changed["models"], Json::array());
  EXPECT_EQ(changed["endpoints"], made["endpoints"]);
  EXPECT_EQ(changed["caps"], made["caps"]);

  const Json next = Made(Post(path + "/rotate", {{"overlap_s", 60}}));
  EXPECT_EQ(next["endpoints"], made["endpoints"]);
  EXPECT_EQ(next["caps"], made["caps"]);
  EXPECT_EQ(Made(Get(path))["state"], "active");
  clock_.unix_s += 60;
  EXPECT_EQ(Made(Get(path))["state"], "expired");
  EXPECT_EQ(Post(path + "/rotate", Json::object()).status, 400);

  const std::string next_path = "/keys/" + next["id"].get<std::string>();
  EXPECT_EQ(Made(Delete(next_path))["state"], "revoked");
  EXPECT_EQ(Made(Get(next_path))["revoked_at"], clock_.UnixSeconds());
  EXPECT_EQ(Made(Get("/keys?tenant=acme"))["data"].size(), 2u);
}

TEST_F(AdminRentalTest, PatchChangesOnlyWhatIsGiven) {
  const Json caps = {{{"period", "month"}, {"measure", "money"}, {"limit", "5.00"}}};
  const std::string path = "/tenants/" + MakeTenant({{"credit_line", "1.50"},
                                                     {"caps", caps},
                                                     {"limits", {{"concurrent_requests", 4}}}});
  Json tenant = Made(Patch(path, {{"suspended", true}}));
  EXPECT_EQ(tenant["suspended"], true);
  EXPECT_EQ(tenant["credit_line"], "1.50");
  EXPECT_EQ(tenant["caps"], Json({{{"period", "month"},
                                   {"measure", "money"},
                                   {"limit", "5.00"},
                                   {"used", "0.00"},
                                   {"held", "0.00"}}}));
  EXPECT_EQ(tenant["limits"]["concurrent_requests"], 4);
  tenant = Made(Patch(path, {{"credit_line", nullptr}, {"limits", {{"tokens_per_minute", 9}}}}));
  EXPECT_EQ(tenant["credit_line"], nullptr);
  EXPECT_EQ(tenant["suspended"], true);
  EXPECT_EQ(tenant["limits"], Json({{"requests_per_minute", nullptr},
                                    {"tokens_per_minute", 9},
                                    {"concurrent_requests", 4}}));
  tenant = Made(Patch(path, {{"caps", nullptr},
                             {"limits", {{"concurrent_requests", nullptr}}},
                             {"suspended", false},
                             {"credit_line", 3}}));
  EXPECT_EQ(tenant["caps"], Json::array());
  EXPECT_EQ(tenant["limits"]["concurrent_requests"], nullptr);
  EXPECT_EQ(tenant["limits"]["tokens_per_minute"], 9);
  EXPECT_EQ(tenant["credit_line"], "3.00");
  tenant = Made(Patch(path, {{"name", "ACME"}, {"limits", nullptr}}));
  EXPECT_EQ(tenant["name"], "ACME");
  EXPECT_EQ(tenant["limits"]["tokens_per_minute"], nullptr);
  EXPECT_EQ(Made(Get("/tenants/ACME"))["id"], tenant["id"]);
}

TEST_F(AdminRentalTest, NamesTheFieldThatIsWrong) {
  const std::string tenant = MakeTenant();
  const std::string project = MakeProject(tenant);
  const std::string other = Made(Post("/tenants", {{"name", "other"}}))["id"];
  const std::string key = "/keys/" + MakeKey("acme")["id"].get<std::string>();
  struct Case {
    const char* method;
    std::string path;
    const char* body;
    const char* param;
  };
  const std::string one = "/tenants/" + tenant;
  const Case cases[] = {
      {"POST", "/tenants", R"({})", "name"},
      {"POST", "/tenants", R"({"name": ""})", "name"},
      {"POST", "/tenants", R"({"name": 5})", "name"},
      {"POST", "/tenants", R"({"name": null})", "name"},
      {"POST", "/tenants", R"({"name": "a\nb"})", "name"},
      {"POST", "/tenants", R"({"name": "ten_x"})", "name"},
      {"POST", "/tenants", R"({"name": "x", "credit-line": "5"})", "credit-line"},
      {"POST", "/tenants", R"({"name": "x", "suspended": true})", "suspended"},
      {"POST", "/tenants", R"({"name": "x", "credit_line": 1.5})", "credit_line"},
      {"POST", "/tenants", R"({"name": "x", "credit_line": "1,5"})", "credit_line"},
      {"POST", "/tenants", R"({"name": "x", "credit_line": "-1"})", "credit_line"},
      {"POST", "/tenants", R"({"name": "x", "credit_line": "0.0000001"})", "credit_line"},
      {"POST", "/tenants", R"({"name": "x", "credit_line": 99999999999999999999})", "credit_line"},
      {"POST", "/tenants", R"({"name": "x", "caps": 5})", "caps"},
      {"POST", "/tenants", R"({"name": "x", "caps": [5]})", "caps[0]"},
      {"POST", "/tenants", R"({"name": "x", "caps": [{"period": "week"}]})", "caps[0].measure"},
      {"POST", "/tenants",
       R"({"name": "x", "caps": [{"period": "week", "measure": "money", "limit": "1"}]})",
       "caps[0].period"},
      {"POST", "/tenants",
       R"({"name": "x", "caps": [{"period": "day", "measure": "money", "limit": 0.5}]})",
       "caps[0].limit"},
      {"POST", "/tenants",
       R"({"name": "x", "caps": [{"period": "day", "measure": "tokens", "limit": "7"}]})",
       "caps[0].limit"},
      {"POST", "/tenants",
       R"({"name": "x", "caps": [{"period": "day", "measure": "tokens", "limit": -7}]})",
       "caps[0].limit"},
      {"POST", "/tenants",
       R"({"name": "x", "caps": [{"period": "day", "measure": "money", "limit": 1, "x": 1}]})",
       "caps[0].x"},
      {"POST", "/tenants",
       R"({"name": "x", "caps": [{"period": "day", "measure": "money", "limit": 1},
                                 {"period": "day", "measure": "money", "limit": 2}]})",
       "caps[1].period"},
      {"POST", "/tenants", R"({"name": "x", "limits": []})", "limits"},
      {"POST", "/tenants", R"({"name": "x", "limits": {"rpm": 5}})", "limits.rpm"},
      {"POST", "/tenants", R"({"name": "x", "limits": {"tokens_per_minute": -1}})",
       "limits.tokens_per_minute"},
      {"PATCH", one, R"({"suspended": "yes"})", "suspended"},
      {"PATCH", one, R"({"credit": "5"})", "credit"},
      {"POST", one + "/credit", R"({"amount": "5"})", "reference"},
      {"POST", one + "/credit", R"({"reference": "x"})", "amount"},
      {"POST", one + "/credit", R"({"amount": 0, "reference": "x"})", "amount"},
      {"POST", one + "/credit", R"({"amount": 0.5, "reference": "x"})", "amount"},
      {"POST", one + "/credit", R"({"amount": "1", "reference": ""})", "reference"},
      {"POST", one + "/credit", R"({"amount": "-1", "reference": "x"})", "amount"},
      {"POST", "/projects", R"({"name": "x"})", "tenant"},
      {"POST", "/projects", R"({"tenant": "acme"})", "name"},
      {"POST", "/projects", R"({"tenant": "acme", "name": "x", "key": 1})", "key"},
      {"PATCH", "/projects/" + project, R"({"tenant": "other"})", "tenant"},
      {"POST", "/keys", R"({"name": "x"})", "project"},
      {"POST", "/keys", R"({"tenant": "acme"})", "name"},
      {"POST", "/keys", R"({"tenant": "other", "name": "x"})", "tenant"},
      {"POST", "/keys", R"({"tenant": "acme", "name": "x", "models": "m"})", "models"},
      {"POST", "/keys", R"({"tenant": "acme", "name": "x", "models": [1]})", "models"},
      {"POST", "/keys", R"({"tenant": "acme", "name": "x", "endpoints": ["chats"]})", "endpoints"},
      {"POST", "/keys", R"({"tenant": "acme", "name": "x", "expires_at": 1})", "expires_at"},
      {"POST", "/keys", R"({"tenant": "acme", "name": "x", "expires_at": "soon"})", "expires_at"},
      {"POST", "/keys", R"({"tenant": "acme", "name": "x", "expires_at": 2e9})", "expires_at"},
      {"POST", "/keys", R"({"tenant": "acme", "name": "x", "expires_in_s": 0})", "expires_in_s"},
      {"POST", "/keys",
       R"({"tenant": "acme", "name": "x", "expires_in_s": 5, "expires_at": "2099-01-01"})",
       "expires_in_s"},
      {"PATCH", key, R"({"secret": "mp-x"})", "secret"},
      {"POST", key + "/rotate", R"({"overlap_s": -1})", "overlap_s"},
      {"POST", key + "/rotate", R"({"overlap": 5})", "overlap"},
      {"POST", "/prices", R"({"unit": "input_token", "rate": "1"})", "model"},
      {"POST", "/prices", R"({"model": "m", "rate": "1"})", "unit"},
      {"POST", "/prices", R"({"model": "m", "unit": "input_token"})", "rate"},
      {"POST", "/prices", R"({"model": "m", "unit": "token", "rate": "1"})", "unit"},
      {"POST", "/prices", R"({"model": "m", "unit": "joule", "rate": "1", "tier": "x"})", "tier"},
      {"POST", "/prices", R"({"model": "m", "unit": "joule", "rate": "-1"})", "rate"},
      {"POST", "/prices", R"({"model": "m", "unit": "joule", "rate": 0.1})", "rate"},
      {"POST", "/prices", R"({"model": "m", "unit": "joule", "rate": "1", "effective_at": 5})",
       "effective_at"},
      {"POST", "/leases", R"({"share": 0.5, "duration_s": 5})", "tenant"},
      {"POST", "/leases", R"({"tenant": "acme", "duration_s": 5})", "share"},
      {"POST", "/leases", R"({"tenant": "acme", "share": 0, "duration_s": 5})", "share"},
      {"POST", "/leases", R"({"tenant": "acme", "share": 1.1, "duration_s": 5})", "share"},
      {"POST", "/leases", R"({"tenant": "acme", "share": 0.5})", "ends_at"},
      {"POST", "/leases", R"({"tenant": "acme", "share": 0.5, "ends_at": "2026-01-01"})",
       "ends_at"},
      {"POST", "/leases",
       R"({"tenant": "acme", "share": 0.5, "ends_at": "2026-12-01", "duration_s": 5})", "ends_at"},
      {"POST", "/backup", R"({})", "path"},
      {"POST", "/backup", R"({"path": ""})", "path"},
      {"POST", "/verify", R"({"repair": true})", "repair"},
      {"GET", "/tenants?limit=5", "", "limit"},
      {"GET", "/usage?groupby=day", "", "groupby"},
      {"GET", "/usage?group_by=week", "", "group_by"},
      {"GET", "/usage?format=xml", "", "format"},
      {"GET", "/usage?from=yesterday", "", "from"},
      {"GET", "/usage/requests?limit=0", "", "limit"},
      {"GET", "/usage/requests?before=x", "", "before"},
      {"GET", "/invoices/acme/2026-11?format=pdf", "", "format"},
      {"GET", "/prices?all=yes", "", "all"},
      {"GET", "/audit?after=-1", "", "after"},
  };
  const size_t audited = Audit().size();
  for (const Case& each : cases) {
    const Reply reply = Ask(each.method, "/admin/v1" + each.path, each.body);
    EXPECT_EQ(reply.status, 400) << each.path << " " << each.body << " " << reply.body;
    EXPECT_EQ(reply.json()["error"]["param"], each.param) << each.body << " " << reply.body;
  }
  EXPECT_EQ(Audit().size(), audited);  // nothing was changed
  EXPECT_THAT(Post("/tenants", {{"name", "x"}, {"credit_line", 1.5}}).message(),
              HasSubstr("write money as a string"));
}

TEST_F(AdminRentalTest, WhatThereIsNotIsNotFound) {
  const std::string tenant = MakeTenant();
  MakeProject(tenant);
  const Json empty = Json::object();
  EXPECT_EQ(Get("/tenants/ten_0").status, 404);
  EXPECT_EQ(Patch("/tenants/ten_0", empty).status, 404);
  EXPECT_EQ(Post("/tenants/ten_0/credit", {{"amount", 1}, {"reference", "x"}}).status, 404);
  EXPECT_EQ(Get("/projects/proj_0").status, 404);
  EXPECT_EQ(Patch("/projects/proj_0", empty).status, 404);
  EXPECT_EQ(Post("/projects", {{"tenant", "nobody"}, {"name", "x"}}).status, 404);
  EXPECT_EQ(Get("/keys/key_0").status, 404);
  EXPECT_EQ(Patch("/keys/key_0", empty).status, 404);
  EXPECT_EQ(Delete("/keys/key_0").status, 404);
  EXPECT_EQ(Post("/keys/key_0/rotate", empty).status, 404);
  EXPECT_EQ(Post("/keys", {{"project", "proj_0"}, {"name", "x"}}).status, 404);
  EXPECT_EQ(Delete("/leases/lease_0").status, 404);
  EXPECT_EQ(Get("/usage?tenant=nobody").status, 404);
  EXPECT_EQ(Get("/usage?key=key_0").status, 404);
  const Reply reply = Get("/tenants/nobody");
  EXPECT_EQ(reply.json()["error"]["code"], "not_found");
  EXPECT_THAT(reply.message(), HasSubstr("'nobody'"));
  EXPECT_EQ(Get("/nothing").status, 404);
  EXPECT_EQ(Get("/tenants/").status, 404);
  EXPECT_EQ(Ask("GET", "/admin/v2/tenants").status, 404);
}

TEST_F(AdminRentalTest, NamesAreTakenOnce) {
  const std::string tenant = MakeTenant();
  const std::string other = Made(Post("/tenants", {{"name", "other"}}))["id"];
  MakeProject(tenant);
  MakeProject(other);  // of the same name, but of another tenant
  EXPECT_EQ(Post("/tenants", {{"name", "acme"}}).status, 409);
  EXPECT_EQ(Patch("/tenants/other", {{"name", "acme"}}).status, 409);
  EXPECT_EQ(Post("/projects", {{"tenant", "acme"}, {"name", "web"}}).status, 409);
  EXPECT_EQ(Made(Get("/projects?tenant=other"))["data"].size(), 1u);
}

TEST_F(AdminRentalTest, NamesAreOnlyNames) {
  int count = 0;
  for (const std::string& name :
       {std::string("Robert'); DROP TABLE tenants;--"), std::string("\" OR \"1\"=\"1"),
        std::string("%' UNION SELECT hash FROM keys --"), std::string("a/b?c#d&e=f%41"),
        std::string("<script>alert(1)</script>"), std::string("Grüße & Söhne 株式会社")}) {
    const Json made = Made(Post("/tenants", {{"name", name}}));
    EXPECT_EQ(made["name"], name);
    std::string encoded;
    for (const char c : name) encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    EXPECT_EQ(Made(Get("/tenants/" + encoded))["id"], made["id"]) << name;
    MakeProject(made["id"], name);
    const Json key = MakeKey(made["id"], {{"models", {name}}});
    EXPECT_EQ(key["models"], Json({name}));
    EXPECT_EQ(Made(Get("/usage?model=" + encoded))["object"], "list");
    EXPECT_EQ(Made(Get("/usage/requests?request_id=" + encoded))["data"].size(), 0u);
    EXPECT_EQ(Made(Get("/tenants"))["data"].size(), static_cast<size_t>(++count));
  }
  EXPECT_EQ(Made(Post("/verify", Json::object()))["ok"], true);
}

TEST_F(AdminRentalTest, EveryChangeIsAudited) {
  const std::string tenant = MakeTenant();
  Made(Patch("/tenants/acme", {{"suspended", false}}));
  Made(Post("/tenants/acme/credit", {{"amount", "100.00"}, {"reference", "r"}}));
  const std::string project = MakeProject(tenant);
  Made(Patch("/projects/" + project, {{"name", "site"}}));
  const Json key = MakeKey("acme");
  const std::string key_path = "/keys/" + key["id"].get<std::string>();
  Made(Patch(key_path, {{"name", "cd"}}));
  Made(Post(key_path + "/rotate", {{"overlap_s", 5}}));
  Made(Delete(key_path));
  Made(Post("/prices", {{"model", "*"}, {"tier", "lease"}, {"unit", "share_hour"}, {"rate", 2}}));
  const Json lease =
      Made(Post("/leases", {{"tenant", "acme"}, {"share", 0.5}, {"duration_s", 3600}}));
  Made(Delete("/leases/" + lease["id"].get<std::string>()));

  const Json entries = Audit();
  std::vector<std::string> actions;
  std::set<std::string> hashes;
  for (const Json& entry : entries) {
    EXPECT_EQ(entry["number"], actions.size() + 1);
    EXPECT_EQ(entry["actor"], "admin");
    EXPECT_EQ(entry["at"], clock_.UnixSeconds());
    EXPECT_TRUE(entry["details"].is_object());
    actions.push_back(entry["action"]);
    hashes.insert(entry["hash"].get<std::string>());
  }
  EXPECT_THAT(actions,
              testing::ElementsAre("tenant.create", "tenant.update", "credit.add", "project.create",
                                   "project.update", "key.create", "key.update", "key.rotate",
                                   "key.revoke", "price.add", "lease.create", "lease.cancel"));
  EXPECT_EQ(hashes.size(), actions.size());
  EXPECT_EQ(entries[0]["subject"], tenant);
  const Json page = Made(Get("/audit?after=3&limit=2"))["data"];
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0]["number"], 4);
}

TEST_F(AdminRentalTest, PricesHaveVersions) {
  SetPrices();
  const int64_t later = clock_.UnixSeconds() + 86'400;
  Made(Post("/prices", {{"model", "m"},
                        {"tier", "batch"},
                        {"unit", "output_token"},
                        {"rate", "0.30"},
                        {"effective_at", later}}));
  const auto state = [&](const std::string& query) {
    std::vector<std::string> states;
    const Json all = Made(Get("/prices" + query));
    for (const Json& price : all["data"])
      states.push_back(price["model"].get<std::string>() + " " + price["rate"].get<std::string>() +
                       " " + price["state"].get<std::string>());
    return states;
  };
  EXPECT_THAT(state(""), testing::ElementsAre("* 0.15 current", "* 0.05 current", "* 0.60 current",
                                              "m 0.30 upcoming"));
  clock_.unix_s = later;
  Made(Post("/prices", {{"model", "*"}, {"unit", "input_token"}, {"rate", "0.16"}}));
  EXPECT_THAT(state(""), testing::ElementsAre("* 0.05 current", "* 0.60 current", "m 0.30 current",
                                              "* 0.16 current"));
  EXPECT_THAT(state("?all=1&model=*"), testing::ElementsAre("* 0.15 past", "* 0.05 current",
                                                            "* 0.60 current", "* 0.16 current"));
  const Json price = Made(Post("/prices", {{"model", "m"},
                                           {"unit", "chip_second"},
                                           {"rate", "0.000001"},
                                           {"effective_at", "2027-01-01"}}));
  EXPECT_EQ(price["per"], "chip-second");
  EXPECT_EQ(price["effective_at"], 1'798'761'600);
}

TEST_F(AdminRentalTest, PaymentsCountOnce) {
  MakeTenant();
  const Json payment = {{"amount", 20}, {"reference", "transfer 1"}};
  EXPECT_EQ(Made(Post("/tenants/acme/credit", payment))["applied"], true);
  const Json again = Made(Post("/tenants/acme/credit", payment));
  EXPECT_EQ(again["applied"], false);
  EXPECT_EQ(again["credit"], "20.00");
  const Json back =
      Made(Post("/tenants/acme/credit", {{"amount", "-5.50"}, {"reference", "back 1"}}));
  EXPECT_EQ(back["credit"], "14.50");
  EXPECT_EQ(Post("/tenants/acme/credit", {{"amount", "-15"}, {"reference", "back 2"}}).status, 400);
  EXPECT_EQ(Made(Post("/verify", Json::object()))["ok"], true);
}

TEST_F(AdminRentalTest, LeasesAreChargedAndGivenBack) {
  MakeTenant();
  Made(Post("/tenants/acme/credit", {{"amount", "3.00"}, {"reference", "r"}}));
  const Json wanted = {{"tenant", "acme"}, {"share", 0.25}, {"duration_s", 7200}};
  EXPECT_EQ(Post("/leases", wanted).status, 503);  // no price
  Made(Post("/prices", {{"model", "*"}, {"tier", "lease"}, {"unit", "share_hour"}, {"rate", 4}}));
  const Json lease = Made(Post("/leases", wanted));
  EXPECT_EQ(lease["amount"], "2.00");  // a quarter for two hours at 4.00
  EXPECT_EQ(lease["rate"], "4.00");
  EXPECT_EQ(lease["share"], 0.25);
  EXPECT_EQ(lease["state"], "running");
  EXPECT_EQ(Made(Get("/tenants/acme"))["credit"], "1.00");
  const Reply broke = Post("/leases", wanted);
  EXPECT_EQ(broke.status, 409);
  EXPECT_THAT(broke.message(), HasSubstr("credit"));
  Made(Post("/tenants/acme/credit", {{"amount", "100.00"}, {"reference", "r2"}}));
  EXPECT_EQ(Post("/leases", {{"tenant", "acme"}, {"share", 0.8}, {"duration_s", 60}}).status, 409);

  clock_.unix_s += 3600;
  const Json cancelled = Made(Delete("/leases/" + lease["id"].get<std::string>()));
  EXPECT_EQ(cancelled["state"], "cancelled");
  EXPECT_EQ(cancelled["amount"], "1.00");
  EXPECT_EQ(Made(Get("/tenants/acme"))["credit"], "102.00");
  EXPECT_EQ(Made(Get("/leases?tenant=acme"))["data"].size(), 1u);
  EXPECT_EQ(Made(Post("/verify", Json::object()))["ok"], true);
}

TEST_F(AdminRentalTest, LetsNobodyInWithoutItsKey) {
  MakeProject(MakeTenant());
  const std::string secret = MakeKey("acme")["secret"];
  for (const std::string& key :
       {std::string("wrong key of sixteen"), secret, kKey.substr(1), kKey + "x", std::string()})
    for (const char* path : {"/admin/v1/tenants", "/admin/v1/audit", "/admin/nothing"}) {
      const Reply reply = Ask("GET", path, "", key);
      EXPECT_EQ(reply.status, 401) << path;
      EXPECT_THAT(reply.body, Not(HasSubstr("acme")));
    }
}

TEST_F(AdminRentalTest, KeepsToHttp) {
  Reply reply = Ask("DELETE", "/admin/v1/tenants");
  EXPECT_EQ(reply.status, 405);
  EXPECT_EQ(reply.headers.at("allow"), "GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(Ask("HEAD", "/admin/v1/tenants").status, 200);
  EXPECT_EQ(Ask("POST", "/admin/v1/tenants", "{", kKey).status, 400);
  EXPECT_EQ(Ask("POST", "/admin/v1/tenants", "[]", kKey).status, 400);
  EXPECT_EQ(Ask("POST", "/admin/v1/tenants", "name=x", kKey, "text/plain").status, 415);
  EXPECT_EQ(Ask("POST", "/admin/v1/tenants", std::string(70'000, ' ')).status, 413);
  EXPECT_EQ(Made(Get("/tenants"))["data"].size(), 0u);
}

TEST_F(AdminRentalTest, SaysWhenThereIsNoLedger) {
  Start(nullptr);
  for (const char* path : {"/tenants", "/keys", "/usage", "/audit", "/invoices"}) {
    const Reply reply = Get(path);
    EXPECT_EQ(reply.status, 503) << path;
    EXPECT_THAT(reply.message(), HasSubstr("--ledger DIR"));
  }
  EXPECT_EQ(Post("/tenants", {{"name", "x"}}).status, 503);
  EXPECT_EQ(Get("/models").status, 200);
  const Json overview = Made(Get("/overview"));
  EXPECT_EQ(overview["totals"], nullptr);
  EXPECT_EQ(overview["ledger"], nullptr);
}

TEST_F(AdminRentalTest, HandsOnWhatIsNotItsOwn) {
  EXPECT_EQ(Ask("GET", "/metrics").status, 404);
  EXPECT_EQ(Ask("GET", "/v1/models", "", "").status, 401);
  Service service({.port = 0}, registry_, clock_);
  Start(ledger_.get(), &service.api(), &service.metrics());
  EXPECT_EQ(Ask("GET", "/v1/models", "", "").status, 200);
  EXPECT_EQ(Ask("GET", "/nothing", "", "").status, 404);
  EXPECT_EQ(Ask("GET", "/metrics", "", "").status, 401);
  EXPECT_THAT(Ask("GET", "/metrics").body, HasSubstr("millpower_build_info"));
  EXPECT_EQ(Ask("GET", "/admin/v1/tenants", "", "").status, 401);
  // Bodies for models may be larger than ours.
  EXPECT_EQ(Ask("POST", "/v1/completions", std::string(70'000, ' '), "").status, 400);
  EXPECT_EQ(Ask("POST", "/admin/v1/tenants", std::string(70'000, ' ')).status, 413);
  admin_.reset();
}

TEST(Inputs, TimesAreSecondsOrDates) {
  EXPECT_EQ(ParseTime("t", "0").value(), 0);
  EXPECT_EQ(ParseTime("t", "1790000000").value(), 1'790'000'000);
  EXPECT_EQ(ParseTime("t", "1970-01-02").value(), 86'400);
  EXPECT_EQ(ParseTime("t", "2024-02-29T23:59:59Z").value(), 1'709'251'199);
  for (const char* text :
       {"", "-1", "x", "1.5", "2026-13-01", "2026-02-29", "2026-1-01", "2026-01-01T00:00:00",
        "2026-01-01T24:00:00Z", "2026-01-01 00:00:00Z", "1969-12-31", "+026-01-01", "-026-01-01",
        "1790000000000000", "99999999999999999999", "2026-01-01T00:00:60Z"}) {
    const auto time = ParseTime("from", text);
    ASSERT_FALSE(time) << text;
    EXPECT_EQ(time.error().param, "from");
  }
}

}  // namespace
}  // namespace millpower::serve::admin
