// Files and batches over a folder, with a server that answers as the test says.
#include "serve/batch/batch_service.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/json.h"
#include "base/rng.h"
#include "base/test_wait.h"
#include "ledger/fault_vfs.h"
#include "serve/errors.h"

namespace millpower::serve {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class TestClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_; }
  int64_t UnixSeconds() const override { return 1'700'000'000 + now_ns_ / 1'000'000'000; }
  void Advance(seconds time) { now_ns_ += std::chrono::nanoseconds(time).count(); }

 private:
  std::atomic<int64_t> now_ns_{0};
};

Json Parsed(std::string_view text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json) << text;
  return json.value_or(Json());
}

std::string Line(std::string_view custom_id, std::string_view model = "m") {
  return fmt::format(
      R"({{"custom_id":"{0}","method":"POST","url":"/v1/chat/completions","body":{{"model":"{1}",)"
      R"("messages":[],"user":"{0}"}}}})"
      "\n",
      custom_id, model);
}

std::string Lines(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) lines += Line(fmt::format("line-{}", i));
  return lines;
}

class BatchServiceTest : public testing::Test {
 protected:
  using Answerer = std::function<void(const std::shared_ptr<Exchange>&)>;

  BatchServiceTest() {
    std::string name = (fs::temp_directory_path() / "millpower-batch-XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    config_.folder = name;
    config_.runner = {.lines_in_flight_max = 4, .gather_ns = 0, .poll = milliseconds(1)};
    for (int i = 1; i <= 2; ++i) {
      tenants_[i].number = projects_[i].number = keys_[i].number = i;
      tenants_[i].id = fmt::format("ten_{}", i);
      projects_[i].id = fmt::format("proj_{}", i);
      keys_[i].id = fmt::format("key_{}", i);
      AnswerWith([](const std::shared_ptr<Exchange>& exchange) { Echo(exchange); });
    }
  }
  ~BatchServiceTest() override {
    Close();
    fs::remove_all(config_.folder);
  }

  // What a model would say: who asked.
  static void Echo(const std::shared_ptr<Exchange>& exchange) {
    const std::string body = exchange->TakeBody();
    exchange->Reply({.body = DumpJson({{"user", Parsed(body)["user"]}})});
  }

  void Open() {
    BatchPorts ports{
        .answer = [this](std::shared_ptr<Exchange> exchange) { OnAsked(std::move(exchange)); },
        .caller_of =
            [this](const Owner& owner) { return CallerOf(owner.tenant == "ten_1" ? 1 : 2, true); },
        .check_model = [this](const Caller& caller, const std::string& model) -> Result<void> {
          if (on_check_) on_check_(caller);
          if (model == "m") return {};
          return Fail(ErrorCode::kNotFound, "no such model");
        },
        .holds_credit = [this](const Caller&) { return holds_credit_.load(); }};
    auto opened = BatchService::Open(
        config_,
        [this](const HttpRequest& request,
               const char* scope) -> Result<std::shared_ptr<const Caller>> {
          if (request.authorization.empty()) return Fail(ErrorCode::kUnauthenticated, "no key");
          auto caller = CallerOf(request.authorization == "a" ? 1 : 2, false);
          const auto& scopes = caller->key->endpoints;
          if (!scopes.empty() && std::ranges::find(scopes, scope) == scopes.end())
            return Fail(ErrorCode::kForbidden, "not for this endpoint");
          return caller;
        },
        ports, clock_);
    ASSERT_TRUE(opened) << opened.error().message;
    service_ = std::move(*opened);
    router_ = std::make_unique<Router>();
    service_->AddRoutes(*router_);
    service_->Start();
  }
  // As a process ends that is killed, but for what the service does of its own in that moment.
  void Close() { service_.reset(); }

  std::shared_ptr<const Caller> CallerOf(ledger::Number tenant, bool is_batch) {
    auto caller = std::make_shared<Caller>();
    caller->tenant = &tenants_[tenant];
    caller->project = &projects_[tenant];
    caller->key = &keys_[tenant];
    caller->is_batch = is_batch;
    return caller;
  }

  void AnswerWith(Answerer answerer) {
    std::lock_guard lock(mutex_);
    answerer_ = std::move(answerer);
  }
  // Lines are asked, and get no answer.
  void Hold() {
    AnswerWith([](const std::shared_ptr<Exchange>&) {});
  }
  void OnAsked(std::shared_ptr<Exchange> exchange) {
    Answerer answerer;
    {
      std::lock_guard lock(mutex_);
      asked_.push_back(exchange);
      answerer = answerer_;
    }
    answerer(exchange);
  }
  std::vector<std::shared_ptr<Exchange>> asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }
  template <typename Condition>
  void WaitUntil(Condition condition) {
    ASSERT_TRUE(Eventually(condition));
  }

  HttpResponse Call(const char* method, const std::string& path, std::string body = "",
                    const std::string& type = "application/json", const std::string& who = "a") {
    const size_t mark = path.find('?');
    const auto exchange = std::make_shared<Exchange>(
        HttpRequest{.method = method,
                    .path = path.substr(0, mark),
                    .query = mark == std::string::npos ? "" : path.substr(mark + 1),
                    .content_type = type,
                    .id = "test",
                    .authorization = who,
                    .body = std::move(body)},
        0);
    auto promise = std::make_shared<std::promise<HttpResponse>>();
    exchange->OnReply(
        [promise](HttpResponse response) { promise->set_value(std::move(response)); });
    router_->Handle(exchange);
    auto reply = promise->get_future();
    EXPECT_EQ(reply.wait_for(seconds(60)), std::future_status::ready) << path;
    return reply.get();
  }
  HttpResponse CallAs(const std::string& who, const char* method, const std::string& path) {
    return Call(method, path, "", "application/json", who);
  }
  Json Get(const std::string& path) {
    const HttpResponse response = Call("GET", path);
    EXPECT_EQ(response.status, 200) << response.body;
    return Parsed(response.body);
  }
  static std::string Form(std::string_view content, std::string_view purpose = "batch") {
    return fmt::format(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{}\r\n"
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{}\r\n"
        "--b--\r\n",
        purpose, content);
  }
  HttpResponse Upload(std::string_view content, const std::string& who = "a") {
    return Call("POST", "/v1/files", Form(content), "multipart/form-data; boundary=b", who);
  }
  std::string UploadId(std::string_view content, const std::string& who = "a") {
    const HttpResponse response = Upload(content, who);
    EXPECT_EQ(response.status, 200) << response.body;
    return Parsed(response.body)["id"];
  }
  HttpResponse Create(const std::string& file, const Json& more = Json::object(),
                      const std::string& who = "a") {
    Json body = {{"input_file_id", file},
                 {"endpoint", "/v1/chat/completions"},
                 {"completion_window", "24h"}};
    body.update(more);
    return Call("POST", "/v1/batches", body.dump(), "application/json", who);
  }
  std::string CreateId(std::string_view content, const std::string& who = "a") {
    const HttpResponse response = Create(UploadId(content, who), Json::object(), who);
    EXPECT_EQ(response.status, 200) << response.body;
    return Parsed(response.body)["id"];
  }
  // Answers that were taken as "later".
  int retries() {
    constexpr std::string_view kName = "\nmillpower_batch_retries_total ";
    const std::string text = service_->MetricsText();
    return std::atoi(text.c_str() + text.find(kName) + kName.size());
  }
  Json BatchOf(const std::string& id) { return Get("/v1/batches/" + id); }
  Json WaitFor(const std::string& id, const std::string& status) {
    WaitUntil([&] { return BatchOf(id)["status"] == status; });
    return BatchOf(id);
  }
  static std::string Whole(HttpResponse response) {
    while (std::ssize(response.body) < response.rest_bytes) response.body += response.rest();
    return response.body;
  }
  std::string Content(const std::string& file) {
    const HttpResponse response = Call("GET", "/v1/files/" + file + "/content");
    EXPECT_EQ(response.status, 200) << response.body;
    return Whole(response);
  }
  // The lines of one of the batch's files; none where there is none.
  std::vector<Json> Results(const Json& batch, const char* which) {
    std::vector<Json> results;
    if (!batch[which].is_string()) return results;
    const std::string content = Content(batch[which]);
    EXPECT_TRUE(content.ends_with('\n'));
    for (const InputLine& line : SplitLines(content)) results.push_back(Parsed(line.text));
    return results;
  }
  // How often each custom_id is in either file.
  std::map<std::string, int> Told(const Json& batch) {
    std::map<std::string, int> told;
    for (const char* which : {"output_file_id", "error_file_id"})
      for (const Json& result : Results(batch, which)) ++told[result["custom_id"]];
    return told;
  }
  static std::map<std::string, int> EachOnce(int count) {
    std::map<std::string, int> once;
    for (int i = 0; i < count; ++i) once[fmt::format("line-{}", i)] = 1;
    return once;
  }

  TestClock clock_;
  BatchConfig config_;
  std::map<ledger::Number, ledger::Tenant> tenants_;
  std::map<ledger::Number, ledger::Project> projects_;
  std::map<ledger::Number, ledger::Key> keys_;
  std::function<void(const Caller&)> on_check_;  // before Open
  std::atomic<bool> holds_credit_{false};
  std::mutex mutex_;
  Answerer answerer_;
  std::vector<std::shared_ptr<Exchange>> asked_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<BatchService> service_;
};

// ---- Files

TEST_F(BatchServiceTest, KeepsFiles) {
  Open();
  std::string content(1'000'000, 'x');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(Mix64(i));
  const Json file = Parsed(Upload(content).body);
  EXPECT_EQ(file["object"], "file");
  EXPECT_EQ(file["bytes"], content.size());
  EXPECT_EQ(file["filename"], "in.jsonl");
  EXPECT_EQ(file["purpose"], "batch");
  EXPECT_EQ(file["created_at"], clock_.UnixSeconds());
  const std::string id = file["id"];
  Close();
  Open();
  EXPECT_EQ(Get("/v1/files/" + id), file);
  EXPECT_EQ(Content(id), content);
  const Json deleted = Parsed(Call("DELETE", "/v1/files/" + id).body);
  EXPECT_EQ(deleted["deleted"], true);
  EXPECT_EQ(Call("GET", "/v1/files/" + id).status, 404);
  EXPECT_EQ(Call("DELETE", "/v1/files/" + id).status, 404);
  EXPECT_TRUE(fs::is_empty(config_.folder / "files"));
}

TEST_F(BatchServiceTest, ListsFilesInPages) {
  Open();
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(UploadId("x"));
  const Json first = Get("/v1/files?limit=2");
  EXPECT_EQ(first["has_more"], true);
  ASSERT_THAT(first["data"], SizeIs(2));
  EXPECT_EQ(first["data"][0]["id"], ids[4]);
  EXPECT_EQ(first["last_id"], ids[3]);
  const Json last = Get("/v1/files?limit=3&after=" + ids[3]);
  EXPECT_EQ(last["has_more"], false);
  ASSERT_THAT(last["data"], SizeIs(3));
  EXPECT_EQ(last["data"][2]["id"], ids[0]);
  EXPECT_EQ(Get("/v1/files?order=asc&limit=1")["data"][0]["id"], ids[0]);
  EXPECT_THAT(Get("/v1/files?purpose=batch_output")["data"], IsEmpty());
  EXPECT_EQ(Call("GET", "/v1/files?after=file-0").status, 404);
  for (const char* query : {"limit=0", "limit=x", "limit=10001", "limit=1x", "order=up"})
    EXPECT_EQ(Call("GET", std::string("/v1/files?") + query).status, 400) << query;
}

TEST_F(BatchServiceTest, RefusesUploadsThatAreNotOne) {
  Open();
  const auto post = [&](std::string body, const char* type = "multipart/form-data; boundary=b") {
    return Call("POST", "/v1/files", std::move(body), type);
  };
  EXPECT_EQ(post("{}", "application/json").status, 415);
  EXPECT_EQ(post("", "multipart/form-data").status, 400);
  EXPECT_EQ(post("no parts").status, 400);
  EXPECT_EQ(post(Form("x", "fine-tune")).status, 400);
  EXPECT_EQ(
      post("--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n--b--").status,
      400);
  EXPECT_EQ(post("--b\r\nContent-Disposition: form-data; name=\"expires_after[seconds]\"\r\n\r\n1"
                 "\r\n" +
                 Form("x"))
                .status,
            400);
  const HttpResponse twice =
      post("--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n1\r\n" + Form("x"));
  EXPECT_THAT(twice.body, HasSubstr("twice"));
  EXPECT_THAT(Get("/v1/files")["data"], IsEmpty());
  EXPECT_TRUE(fs::is_empty(config_.folder / "files"));
}

TEST_F(BatchServiceTest, BoundsWhatATenantKeeps) {
  config_.limits = {.storage_bytes_max = 10'000, .files_max = 3, .unfinished_batches_max = 2};
  Hold();
  Open();
  EXPECT_EQ(Upload(std::string(10'001, 'x')).status, 413);
  const std::string large = UploadId(std::string(9'000, 'x'));
  const HttpResponse refused = Upload(std::string(1'001, 'x'));
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.body, HasSubstr("delete some"));
  EXPECT_EQ(Upload(std::string(1'001, 'x'), "b").status, 200);
  const std::string input = UploadId(Lines(1));
  UploadId("");
  EXPECT_EQ(Upload("").status, 429);
  EXPECT_EQ(Create(input).status, 429);  // no room for a file of results
  EXPECT_EQ(Call("DELETE", "/v1/files/" + large).status, 200);
  EXPECT_EQ(Create(input).status, 200);
  EXPECT_EQ(Create(input).status, 200);
  EXPECT_EQ(Create(input).status, 429);
}

TEST_F(BatchServiceTest, AFullDiskIsNoFaultOfTheClients) {
  ledger::FaultVfs disk;
  ASSERT_EQ(sqlite3_vfs_register(sqlite3_vfs_find(disk.name().c_str()), /*makeDflt=*/1), SQLITE_OK);
  Hold();
  Open();
  const std::string file = UploadId(Lines(1)), unused = UploadId("");
  const std::string batch = Parsed(Create(file).body)["id"];
  WaitFor(batch, "in_progress");
  disk.Arm(ledger::FaultVfs::Fault::kFull, 1);
  for (const HttpResponse& response :
       {Upload("x"), Create(file), Call("DELETE", "/v1/files/" + unused),
        Call("POST", "/v1/batches/" + batch + "/cancel")})
    EXPECT_EQ(response.status, 503) << response.body;
  disk.Disarm();
  EXPECT_THAT(Get("/v1/files")["data"], SizeIs(2));
  EXPECT_EQ(Upload("x").status, 200);
  EXPECT_EQ(Create(file).status, 200);
  Close();
}

TEST_F(BatchServiceTest, KeepsItsFilesToItself) {
  const mode_t before = umask(0);
  Open();
  const std::string file = UploadId("x");
  umask(before);
  const auto mode = [&](const fs::path& path) {
    return static_cast<unsigned>(fs::status(config_.folder / path).permissions());
  };
  EXPECT_EQ(mode("batches.db"), 0600u);
  EXPECT_EQ(mode("batches.db-wal"), 0600u);
  EXPECT_EQ(mode("files"), 0700u);
  EXPECT_EQ(mode(fs::path("files") / file), 0600u);
}

TEST_F(BatchServiceTest, TellsNothingOfItsPaths) {
  Open();
  const std::string gone = UploadId("x"), cut = UploadId("xyz");
  fs::remove(config_.folder / "files" / gone);
  fs::resize_file(config_.folder / "files" / cut, 1);
  for (const std::string& file : {gone, cut}) {
    const HttpResponse response = Call("GET", "/v1/files/" + file + "/content");
    EXPECT_EQ(response.status, 500);
    EXPECT_THAT(response.body, Not(HasSubstr(config_.folder.string())));
    EXPECT_THAT(response.body, HasSubstr("storage"));
  }
}

TEST_F(BatchServiceTest, ForgetsTheOldestBatchesThatAreOver) {
  config_.limits = {.unfinished_batches_max = 2, .batches_max = 3};
  Hold();
  Open();
  const std::string input = UploadId(Lines(1)), bad = UploadId("oops");
  std::vector<std::string> ids = {Parsed(Create(input).body)["id"]};  // goes on
  for (int i = 0; i < 4; ++i) {
    ids.push_back(Parsed(Create(bad).body)["id"]);
    WaitFor(ids.back(), "failed");
  }
  const Json kept = Get("/v1/batches")["data"];
  ASSERT_THAT(kept, SizeIs(3));
  EXPECT_EQ(kept[0]["id"], ids[4]);
  EXPECT_EQ(kept[1]["id"], ids[3]);
  EXPECT_EQ(kept[2]["id"], ids[0]);
}

TEST_F(BatchServiceTest, ShowsNothingToOthers) {
  Open();
  const std::string file = UploadId(Lines(2));
  const std::string batch = Parsed(Create(file).body)["id"];
  const std::string output = WaitFor(batch, "completed")["output_file_id"];
  EXPECT_EQ(Call("GET", "/v1/files", "", "", "").status, 401);
  for (const std::string& id : {file, output}) {
    const HttpResponse unknown = CallAs("b", "GET", "/v1/files/file-unknown");
    EXPECT_EQ(unknown.status, 404);
    for (const std::string& path : {"/v1/files/" + id, "/v1/files/" + id + "/content"}) {
      EXPECT_EQ(CallAs("b", "GET", path).status, 404);
      EXPECT_EQ(CallAs("b", "GET", path).body, unknown.body);
    }
    EXPECT_EQ(CallAs("b", "DELETE", "/v1/files/" + id).body, unknown.body);
    EXPECT_EQ(Create(id, Json::object(), "b").status, 404);
    EXPECT_EQ(CallAs("b", "GET", "/v1/files?after=" + id).status, 404);
  }
  EXPECT_EQ(CallAs("b", "GET", "/v1/batches/" + batch).status, 404);
  EXPECT_EQ(CallAs("b", "POST", "/v1/batches/" + batch + "/cancel").status, 404);
  EXPECT_EQ(CallAs("b", "GET", "/v1/batches?after=" + batch).status, 404);
  EXPECT_THAT(Parsed(CallAs("b", "GET", "/v1/files").body)["data"], IsEmpty());
  EXPECT_THAT(Parsed(CallAs("b", "GET", "/v1/batches").body)["data"], IsEmpty());
  EXPECT_EQ(Call("GET", "/v1/files/" + output).status, 200);
}

// ---- Batches

TEST_F(BatchServiceTest, AnswersEveryLine) {
  Open();
  const std::string file = UploadId(Lines(20));
  const Json created = Parsed(Create(file, {{"metadata", {{"job", "7"}}}}).body);
  EXPECT_EQ(created["object"], "batch");
  EXPECT_EQ(created["input_file_id"], file);
  EXPECT_EQ(created["metadata"], (Json{{"job", "7"}}));
  EXPECT_EQ(created["expires_at"], clock_.UnixSeconds() + 24 * 3600);
  const std::string id = created["id"];
  const Json batch = WaitFor(id, "completed");
  EXPECT_EQ(batch["request_counts"], (Json{{"total", 20}, {"completed", 20}, {"failed", 0}}));
  EXPECT_EQ(batch["error_file_id"], nullptr);
  EXPECT_EQ(batch["errors"], nullptr);
  EXPECT_EQ(batch["completed_at"], clock_.UnixSeconds());
  EXPECT_EQ(Told(batch), EachOnce(20));
  std::set<std::string> request_ids;
  for (const Json& result : Results(batch, "output_file_id")) {
    EXPECT_EQ(result["response"]["status_code"], 200);
    EXPECT_EQ(result["response"]["body"]["user"], result["custom_id"]);
    EXPECT_EQ(result["error"], nullptr);
    request_ids.insert(result["response"]["request_id"]);
  }
  EXPECT_EQ(request_ids.size(), 20u);
  ASSERT_THAT(asked(), SizeIs(20));
  for (const auto& exchange : asked()) {
    EXPECT_TRUE(exchange->request().caller->is_batch);
    EXPECT_EQ(exchange->request().caller->tenant->number, 1);
    EXPECT_EQ(exchange->request().path, "/v1/chat/completions");
    EXPECT_TRUE(request_ids.contains(exchange->request().id));
  }
  const Json output = Get("/v1/files/" + batch["output_file_id"].get<std::string>());
  EXPECT_EQ(output["purpose"], "batch_output");
  EXPECT_THAT(service_->MetricsText(),
              HasSubstr("millpower_batch_lines_total{outcome=\"completed\"} 20"));
  EXPECT_THAT(service_->MetricsText(), HasSubstr("millpower_batches{status=\"completed\"} 1"));
}

TEST_F(BatchServiceTest, KeepsFailedLinesApart) {
  AnswerWith([](const std::shared_ptr<Exchange>& exchange) {
    if (exchange->request().id.ends_with("2"))
      return exchange->Reply(ErrorResponse({ErrorCode::kInvalidArgument, "bad", "messages"}));
    Echo(exchange);
  });
  Open();
  const Json batch = WaitFor(CreateId(Lines(3)), "completed");
  EXPECT_EQ(batch["request_counts"], (Json{{"total", 3}, {"completed", 2}, {"failed", 1}}));
  const std::vector<Json> errors = Results(batch, "error_file_id");
  ASSERT_THAT(errors, SizeIs(1));
  EXPECT_EQ(errors[0]["custom_id"], "line-1");
  EXPECT_EQ(errors[0]["response"]["status_code"], 400);
  EXPECT_EQ(errors[0]["response"]["body"]["error"]["message"], "bad");
  EXPECT_EQ(Told(batch), EachOnce(3));
}

TEST_F(BatchServiceTest, FailsWhatCannotBeRead) {
  Open();
  const Json batch =
      WaitFor(CreateId(Line("a") + "oops\n" + Line("a") + Line("b", "other")), "failed");
  EXPECT_THAT(asked(), IsEmpty());
  const Json& errors = batch["errors"]["data"];
  ASSERT_THAT(errors, SizeIs(3));
  EXPECT_EQ(errors[0]["code"], "invalid_json_line");
  EXPECT_EQ(errors[0]["line"], 2);
  EXPECT_EQ(errors[1]["code"], "duplicate_custom_id");
  EXPECT_EQ(errors[2]["code"], "model_not_found");
  EXPECT_EQ(errors[2]["param"], "body.model");
  EXPECT_EQ(batch["output_file_id"], nullptr);
  EXPECT_EQ(batch["failed_at"], clock_.UnixSeconds());
}

TEST_F(BatchServiceTest, RefusesBatchesThatAreNotOne) {
  Open();
  const std::string file = UploadId(Lines(1));
  EXPECT_EQ(Create("file-unknown").status, 404);
  for (const Json& more :
       {Json{{"endpoint", "/v1/embeddings"}}, Json{{"completion_window", "1h"}},
        Json{{"input_file_id", nullptr}}, Json{{"metadata", {{"a", 1}}}}, Json{{"metadata", "x"}},
        Json{{"output_expires_after", {{"seconds", 3600}}}}})
    EXPECT_EQ(Create(file, more).status, 400) << more;
  EXPECT_EQ(Call("POST", "/v1/batches", "{}", "text/plain").status, 415);
  EXPECT_EQ(Call("POST", "/v1/batches", "[]").status, 400);
  const Json done = WaitFor(Parsed(Create(file).body)["id"], "completed");
  EXPECT_EQ(Create(done["output_file_id"]).status, 400);  // of another purpose
  EXPECT_EQ(Call("POST", "/v1/batches/" + done["id"].get<std::string>() + "/cancel").status, 409);
}

TEST_F(BatchServiceTest, ListsBatchesInPages) {
  Open();
  const std::string file = UploadId(Lines(1));
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(Parsed(Create(file).body)["id"]);
  const Json first = Get("/v1/batches?limit=2");
  EXPECT_EQ(first["has_more"], true);
  EXPECT_EQ(first["data"][0]["id"], ids[2]);
  const Json last = Get("/v1/batches?after=" + ids[1]);
  ASSERT_THAT(last["data"], SizeIs(1));
  EXPECT_EQ(last["data"][0]["id"], ids[0]);
  EXPECT_EQ(Call("GET", "/v1/batches?limit=101").status, 400);
}

TEST_F(BatchServiceTest, AsksAgainLaterWhereTheServerIsBusy) {
  AnswerWith([](const std::shared_ptr<Exchange>& exchange) {
    const bool is_limit = exchange->request().id.ends_with("1");
    exchange->Reply(ErrorResponse(
        {is_limit ? ErrorCode::kRateLimited : ErrorCode::kUnavailable, "later", ""}, 3));
  });
  Open();
  const std::string id = CreateId(Lines(2));
  WaitUntil([&] { return asked().size() == 2; });
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_THAT(asked(), SizeIs(2));  // not before its time
  clock_.Advance(seconds(3));
  WaitUntil([&] { return retries() == 4; });
  AnswerWith(Echo);
  clock_.Advance(seconds(3));
  const Json batch = WaitFor(id, "completed");
  EXPECT_EQ(batch["request_counts"]["failed"], 0);
  EXPECT_EQ(Told(batch), EachOnce(2));
}

TEST_F(BatchServiceTest, FailsTheRestWhenCreditIsSpent) {
  // Credit for one line at a time, and for five in all.
  struct Credit {
    std::mutex mutex;
    int left = 5;
    bool held = false;
  };
  const auto credit = std::make_shared<Credit>();
  AnswerWith([credit](const std::shared_ptr<Exchange>& exchange) {
    {
      std::lock_guard lock(credit->mutex);
      if (credit->held || credit->left == 0)
        return exchange->Reply(ErrorResponse({ErrorCode::kQuotaExceeded, "spent", ""}));
      credit->held = true;
      --credit->left;
    }
    std::thread([credit, exchange] {
      std::this_thread::sleep_for(milliseconds(5));
      {
        std::lock_guard lock(credit->mutex);
        credit->held = false;
      }
      Echo(exchange);
    }).detach();
  });
  Open();
  const Json batch = WaitFor(CreateId(Lines(12)), "completed");
  EXPECT_EQ(batch["request_counts"], (Json{{"total", 12}, {"completed", 5}, {"failed", 7}}));
  EXPECT_EQ(Told(batch), EachOnce(12));
  for (const Json& result : Results(batch, "error_file_id"))
    EXPECT_EQ(result["response"]["body"]["error"]["code"], "insufficient_quota");
  EXPECT_LT(asked().size(), 12u + 5 * 4);
}

TEST_F(BatchServiceTest, TakesTurnsBetweenTenants) {
  config_.runner.lines_in_flight_max = 2;
  Hold();
  Open();
  CreateId(Lines(8));
  WaitUntil([&] { return asked().size() == 2; });
  CreateId(Lines(8), "b");
  const auto is_loaded = [&] {
    return Parsed(CallAs("b", "GET", "/v1/batches").body)["data"][0]["status"] == "in_progress";
  };
  WaitUntil(is_loaded);
  service_->Stop(milliseconds(0));  // what is asked is given up; b has got nothing yet
  Close();
  asked_.clear();
  AnswerWith(Echo);
  Open();
  WaitUntil([&] { return asked().size() == 16; });
  std::map<ledger::Number, int> first;
  for (size_t i = 0; i < 8; ++i) ++first[asked()[i]->request().caller->tenant->number];
  EXPECT_EQ(first[1], 4);
  EXPECT_EQ(first[2], 4);
}

// Whose lines take long does not get all places, one after the other, that others leave.
TEST_F(BatchServiceTest, LeavesHalfOfThePlacesToOthers) {
  std::atomic<int> of_a = 0, of_b = 0;
  AnswerWith([&](const std::shared_ptr<Exchange>& exchange) {
    const bool is_b = exchange->request().caller->tenant->number == 2;
    ++(is_b ? of_b : of_a);
    if (is_b) Echo(exchange);
  });
  Open();
  CreateId(Lines(40));
  WaitUntil([&] { return of_a == 4; });  // all, while nobody else wants any
  const std::string other = CreateId(Lines(20), "b");
  const auto other_is = [&](const char* status) {
    return Parsed(CallAs("b", "GET", "/v1/batches/" + other).body)["status"] == status;
  };
  WaitUntil([&] { return other_is("in_progress"); });
  int answered = 0;  // of a's, until b has a place
  for (; of_b == 0 && answered < 30; ++answered) {
    Echo(asked()[static_cast<size_t>(answered)]);
    WaitUntil([&] { return of_a + of_b > answered + 4; });
  }
  WaitUntil([&] { return other_is("completed"); });
  WaitUntil([&] { return of_a == answered + 4; });  // all again
  Close();
}

TEST_F(BatchServiceTest, ChecksFilesInTurns) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ledger::Number> checked;
  size_t allowed = 0;
  on_check_ = [&](const Caller& caller) {
    std::unique_lock lock(mutex);
    checked.push_back(caller.tenant->number);
    const size_t place = checked.size();
    changed.wait(lock, [&] { return allowed >= place; });
  };
  const auto is_checked = [&](size_t count) {
    std::lock_guard lock(mutex);
    return checked.size() == count;
  };
  const auto allow = [&](size_t count) {
    std::lock_guard lock(mutex);
    allowed = count;
    changed.notify_all();
  };
  Open();
  const std::string file = UploadId(Lines(1));
  for (int i = 0; i < 5; ++i) Create(file);
  WaitUntil([&] { return is_checked(2); });
  CreateId(Lines(1), "b");
  std::this_thread::sleep_for(milliseconds(20));
  allow(1);
  WaitUntil([&] { return is_checked(3); });
  {
    std::lock_guard lock(mutex);
    EXPECT_THAT(checked, ElementsAre(1, 1, 2));
  }
  allow(6);
  WaitUntil([&] { return is_checked(6); });
}

TEST_F(BatchServiceTest, OneBatchThatMustWaitHoldsUpNoOther) {
  AnswerWith([](const std::shared_ptr<Exchange>& exchange) {
    if (exchange->request().path == "/v1/completions") return Echo(exchange);
    exchange->Reply(ErrorResponse({ErrorCode::kUnavailable, "being loaded", ""}, 3));
  });
  Open();
  const std::string first = CreateId(Lines(4));
  WaitUntil([&] { return asked().size() >= 4; });
  std::string lines = Lines(8);
  for (size_t at = 0; (at = lines.find("/chat", at)) != std::string::npos;) lines.erase(at, 5);
  const HttpResponse second = Create(UploadId(lines), {{"endpoint", "/v1/completions"}});
  WaitFor(Parsed(second.body)["id"], "completed");
  EXPECT_EQ(BatchOf(first)["status"], "in_progress");
  EXPECT_THAT(asked(), SizeIs(4 + 8));
}

TEST_F(BatchServiceTest, WaitsForCreditThatIsHeldElsewhere) {
  AnswerWith([](const std::shared_ptr<Exchange>& exchange) {
    exchange->Reply(ErrorResponse({ErrorCode::kQuotaExceeded, "spent", ""}));
  });
  holds_credit_ = true;
  Open();
  const std::string id = CreateId(Lines(2));
  WaitUntil([&] { return retries() == 2; });
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_THAT(asked(), SizeIs(2));  // not before its time
  EXPECT_EQ(BatchOf(id)["request_counts"]["failed"], 0);
  holds_credit_ = false;
  AnswerWith(Echo);
  clock_.Advance(seconds(1));
  EXPECT_EQ(WaitFor(id, "completed")["request_counts"]["completed"], 2);
}

TEST_F(BatchServiceTest, NeedsTheScopeOfItsLines) {
  keys_[2].endpoints = {"batches", "files", "completions"};
  Open();
  const std::string file = UploadId(Lines(1), "b");
  const HttpResponse refused = Create(file, Json::object(), "b");
  EXPECT_EQ(refused.status, 403) << refused.body;
  EXPECT_EQ(Create(file, {{"endpoint", "/v1/completions"}}, "b").status, 200);
  EXPECT_THAT(Parsed(CallAs("b", "GET", "/v1/batches").body)["data"], SizeIs(1));
}

TEST_F(BatchServiceTest, CancelsWithinAStep) {
  AnswerWith([](const std::shared_ptr<Exchange>& exchange) {
    if (exchange->request().id.ends_with("1")) Echo(exchange);
  });
  Open();
  const std::string file = UploadId(Lines(10));
  const std::string id = Parsed(Create(file).body)["id"];
  WaitUntil([&] { return BatchOf(id)["request_counts"]["completed"] == 1; });
  WaitUntil([&] { return asked().size() == 5; });
  EXPECT_EQ(Call("DELETE", "/v1/files/" + file).status, 409);
  const Json cancelling = Parsed(Call("POST", "/v1/batches/" + id + "/cancel").body);
  EXPECT_EQ(cancelling["cancelling_at"], clock_.UnixSeconds());
  const Json batch = WaitFor(id, "cancelled");
  EXPECT_EQ(batch["request_counts"], (Json{{"total", 10}, {"completed", 1}, {"failed", 9}}));
  EXPECT_EQ(Told(batch), EachOnce(10));
  for (const Json& result : Results(batch, "error_file_id")) {
    EXPECT_EQ(result["response"], nullptr);
    EXPECT_EQ(result["error"]["code"], "batch_cancelled");
  }
  int gone = 0;
  for (const auto& exchange : asked()) gone += exchange->gone();
  EXPECT_EQ(gone, 4);
  EXPECT_EQ(Call("POST", "/v1/batches/" + id + "/cancel").status, 200);  // as often as one likes
  EXPECT_EQ(Call("DELETE", "/v1/files/" + file).status, 200);
}

TEST_F(BatchServiceTest, ExpiresWithWhatThereIs) {
  AnswerWith([](const std::shared_ptr<Exchange>& exchange) {
    if (exchange->request().id.ends_with("3")) Echo(exchange);
  });
  Open();
  const std::string id = CreateId(Lines(2500));
  WaitUntil([&] { return BatchOf(id)["request_counts"]["completed"] == 1; });
  clock_.Advance(seconds(24 * 3600 - 1));
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(BatchOf(id)["status"], "in_progress");
  clock_.Advance(seconds(1));
  const Json batch = WaitFor(id, "expired");
  EXPECT_EQ(batch["request_counts"]["completed"], 1);
  EXPECT_EQ(Told(batch), EachOnce(2500));
  EXPECT_EQ(Results(batch, "error_file_id")[0]["error"]["code"], "batch_expired");
}

// ---- Restarts

TEST_F(BatchServiceTest, GoesOnWhereItLeftOff) {
  constexpr int kLines = 12;
  for (int seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(static_cast<uint64_t>(seed));
    // Some answers, in any order, up to a point at which the process ends; several times over.
    std::string id;
    for (int life = 0; life < 3; ++life) {
      const auto left = std::make_shared<std::atomic<int>>(static_cast<int>(rng.Below(4)));
      AnswerWith([left](const std::shared_ptr<Exchange>& exchange) {
        if (--*left >= 0) Echo(exchange);
      });
      Open();
      if (id.empty()) id = CreateId(Lines(kLines));
      std::this_thread::sleep_for(std::chrono::microseconds(rng.Below(8000)));
      Close();
      // What a power cut may leave behind the last record.
      for (const fs::directory_entry& entry : fs::directory_iterator(config_.folder / "files"))
        if (std::string line; std::getline(std::ifstream(entry.path()), line) &&
                              line.find("batch_req_") != std::string::npos)
          std::ofstream(entry.path(), std::ios::app) << "{\"id\": \"half a li";
    }
    AnswerWith(Echo);
    Open();
    const Json batch = WaitFor(id, "completed");
    EXPECT_EQ(batch["request_counts"], (Json{{"total", 12}, {"completed", 12}, {"failed", 0}}));
    EXPECT_EQ(Told(batch), EachOnce(kLines));
    Close();
    std::lock_guard lock(mutex_);
    asked_.clear();
  }
}

TEST_F(BatchServiceTest, AsksALineUnderTheSameIdAfterARestart) {
  Hold();
  Open();
  const std::string id = CreateId(Lines(4));
  WaitUntil([&] { return asked().size() == 4; });
  Close();
  AnswerWith(Echo);
  Open();
  WaitFor(id, "completed");
  std::map<std::string, int> ids;
  for (const auto& exchange : asked()) ++ids[exchange->request().id];
  EXPECT_EQ(ids.size(), 4u);
  for (const auto& [request_id, count] : ids) EXPECT_EQ(count, 2) << request_id;
}

TEST_F(BatchServiceTest, CancelsWhatWasAskedToBeforeARestart) {
  Hold();
  Open();
  const std::string id = CreateId(Lines(4));
  WaitFor(id, "in_progress");
  service_->Stop(milliseconds(0));
  Call("POST", "/v1/batches/" + id + "/cancel");
  EXPECT_EQ(BatchOf(id)["status"], "cancelling");
  Close();
  Open();
  EXPECT_EQ(Told(WaitFor(id, "cancelled")), EachOnce(4));
}

TEST_F(BatchServiceTest, StopWaitsForAnswersUnderWay) {
  AnswerWith([](const std::shared_ptr<Exchange>& exchange) {
    std::thread([exchange] {
      std::this_thread::sleep_for(milliseconds(50));
      Echo(exchange);
    }).detach();
  });
  Open();
  const std::string id = CreateId(Lines(2000));
  WaitUntil([&] { return asked().size() >= 4; });
  service_->Stop(seconds(60));
  const auto asked_count = std::ssize(asked());
  EXPECT_LT(asked_count, 2000);
  EXPECT_EQ(BatchOf(id)["request_counts"]["completed"], asked_count);
}

TEST_F(BatchServiceTest, RemovesWhatNobodyOwns) {
  Open();
  const std::string file = UploadId("x");
  Close();
  std::ofstream(config_.folder / "files" / "file-lost") << "half an upload";
  Open();
  EXPECT_FALSE(fs::exists(config_.folder / "files" / "file-lost"));
  EXPECT_EQ(Content(file), "x");
}

}  // namespace
}  // namespace millpower::serve
