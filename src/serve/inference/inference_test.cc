// Both inference APIs over sockets, with a device that follows the test.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <thread>

#include "base/json.h"
#include "base/test_wait.h"
#include "serve/admin.h"
#include "serve/inference/compression.h"
#include "serve/inference/inference_api.h"
#include "serve/inference/test_models.h"
#include "serve/service.h"
#include "serve/test_client.h"
#include "serve/test_model.h"

namespace millpower::serve {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

const std::string kAdminKey = "0123456789abcdef";

Json Object(std::string_view text) { return ParseJson(text).value(); }

template <typename T>
std::string BytesOf(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

// What can be loaded while it runs: "regressor".
InferenceRepository TestRepository(ranking::Engine& engine) {
  InferenceRepository repository;
  repository.load = [&engine](const std::string& name, const Json&) -> Result<void> {
    if (name != "regressor")
      return Fail(ErrorCode::kNotFound, "there is no '" + name + "' in the repository", "model");
    TRY(engine.Load(FakeRegressor(name)));
    return {};
  };
  return repository;
}

class InferenceTest : public testing::Test {
 protected:
  InferenceTest() {
    for (auto loading :
         {ranking::FakeRecommender("rec"), FakeClassifier("cls"), FakeRegressor("reg")})
      EXPECT_TRUE(engine_.Load(std::move(loading)));
    auto second = FakeClassifier("cls");
    second.version = 2;
    EXPECT_TRUE(engine_.Load(std::move(second)));
    api_ = &service_.OpenInference(
        engine_, {.body_bytes_max = 1 << 20, .repository = TestRepository(engine_)});
    EXPECT_TRUE(service_.Start());
    admin_.emplace(AdminConfig{.port = 0, .key = kAdminKey, .body_bytes_max = 1 << 20}, host_,
                   AdminParts{.api = &service_.api(), .inference = api_});
    EXPECT_TRUE(admin_->Start());
  }

  TestResponse Send(std::string_view method, std::string_view path, std::string_view body = {},
                    std::string_view headers = {}) {
    TestClient client(service_.port());
    client.Send(fmt::format("{} {} HTTP/1.1\r\nHost: test\r\n{}Content-Length: {}\r\n\r\n{}",
                            method, path, headers, body.size(), body));
    return client.Read().value();
  }
  Json Get(std::string_view path, int status = 200) {
    const TestResponse response = Send("GET", path);
    EXPECT_EQ(response.status, status) << response.body;
    return Object(response.body);
  }
  Json Post(std::string_view path, const Json& body, int status = 200) {
    const TestResponse response = Send("POST", path, body.dump());
    EXPECT_EQ(response.status, status) << response.body;
    return Object(response.body);
  }
  std::string ErrorOf(std::string_view path, const Json& body, int status = 400) {
    const Json error = Post(path, body, status);
    EXPECT_TRUE(error["error"].is_string()) << error;
    return error["error"].is_string() ? error["error"].get<std::string>() : "";
  }
  // On the operator's port, with its key unless another is given.
  TestResponse Operate(std::string_view path, std::string_view body,
                       std::string_view type = "application/json", std::string_view key = kAdminKey,
                       std::string_view method = "POST") {
    TestClient client(admin_->port());
    client.Send(
        fmt::format("{} {} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n"
                    "Content-Type: {}\r\nContent-Length: {}\r\n\r\n{}",
                    method, path, key, type, body.size(), body));
    return client.Read().value();
  }
  // Of "cls", two rows.
  static Json ClassifierRequest() {
    return Object(R"({"id": "q1", "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]},
        {"name": "country", "datatype": "BYTES", "shape": [2], "data": ["fr", "nowhere"]}]})");
  }
  static constexpr std::string_view kInfer = "/v2/models/cls/infer";

  ranking::FakeDevice device_{RunFakeModels};
  SystemClock clock_;
  ranking::Engine engine_{device_, clock_};
  ModelRegistry models_;
  Service service_{{.port = 0}, models_, clock_};
  InferenceApi* api_ = nullptr;
  ModelHost host_{
      models_, [](const auto&, bool, const auto&) { return Fail(ErrorCode::kUnsupported, ""); }, 0};
  std::optional<AdminServer> admin_;
};

// ---- KServe

TEST_F(InferenceTest, TellsWhatItIs) {
  EXPECT_EQ(Get("/v2")["name"], "millpower");
  EXPECT_EQ(Get("/v2/health/live")["live"], true);
  EXPECT_EQ(Get("/v2/health/ready")["ready"], true);
  EXPECT_EQ(Get("/health/ready")["status"], "ready");
  EXPECT_EQ(Get("/v2/models/cls/ready")["ready"], true);
  EXPECT_EQ(Get("/v2/models/cls/versions/2/ready")["ready"], true);
  EXPECT_THAT(Get("/v2/models/cls/versions/3/ready", 404)["error"], HasSubstr("version 3"));
  EXPECT_THAT(Get("/v2/models/what/ready", 404)["error"], HasSubstr("'what'"));
  EXPECT_THAT(Get("/v2/what", 404)["error"], HasSubstr("no such path"));
  EXPECT_TRUE(Get("/v2/models/cls/versions/x", 400)["error"].is_string());
}

TEST_F(InferenceTest, DescribesModels) {
  EXPECT_EQ(Get("/v2/models/cls"), Object(R"({"name": "cls", "versions": ["1", "2"],
      "platform": "millpower_saved_model",
      "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]},
                 {"name": "country", "datatype": "BYTES", "shape": [-1]}],
      "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}]})"));
  EXPECT_EQ(Get("/v2/models/cls/versions/1")["versions"], Object(R"(["1"])"));
  const Json config = Get("/v2/models/cls/config");
  EXPECT_EQ(config["max_batch_size"], 0);  // "country" has no other dimension
  EXPECT_EQ(config["input"][0],
            Object(R"({"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2]})"));
  EXPECT_EQ(config["input"][1]["data_type"], "TYPE_STRING");
  EXPECT_TRUE(config.contains("dynamic_batching"));
  const Json batched = Get("/v2/models/reg/config");
  EXPECT_EQ(batched["max_batch_size"], 16);
  EXPECT_EQ(batched["input"][0]["dims"], Object("[1]"));
  const Json ragged = Get("/v2/models/rec/config");
  EXPECT_EQ(ragged["max_batch_size"], 0);
  EXPECT_EQ(ragged["input"][1]["dims"], Object("[-1]"));
}

TEST_F(InferenceTest, InfersFromJson) {
  const Json answer = Post(kInfer, ClassifierRequest());
  EXPECT_EQ(answer, Object(R"({"model_name": "cls", "model_version": "2", "id": "q1", "outputs": [
      {"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [3, 4, 3, 4]}]})"));
  EXPECT_EQ(Post("/v2/models/cls/versions/1/infer", ClassifierRequest())["model_version"], "1");
  const Json ragged = Post("/v2/models/rec/infer", Object(R"({"inputs": [
      {"name": "offsets", "datatype": "INT64", "shape": [2], "data": [0, 1]},
      {"name": "items", "datatype": "INT64", "shape": [3], "data": [5, 6, 7]},
      {"name": "dense", "datatype": "FP32", "shape": [2, 2], "data": [1, 1, 0.5, 0]},
      {"name": "scale", "datatype": "FP32", "shape": [1], "data": [2]}],
      "outputs": [{"name": "first"}]})"));
  EXPECT_EQ(ragged["outputs"], Object(R"([{"name": "first", "datatype": "INT64", "shape": [2],
      "data": [5, 6]}])"));
}

// The JSON of a binary request to "cls", its tensors, and the length of the former.
struct BinaryRequest {
  std::string body, headers;
};
BinaryRequest MakeBinary(const char* outputs) {
  const std::string strings = BytesOf<uint32_t>({2}) + "de" + BytesOf<uint32_t>({0});
  const std::string json = fmt::format(
      R"({{"inputs": [{{"name": "country", "datatype": "BYTES", "shape": [2],
           "parameters": {{"binary_data_size": {}}}}},
          {{"name": "x", "datatype": "FP32", "shape": [2, 2],
           "parameters": {{"binary_data_size": 16}}}}]{}}})",
      strings.size(), outputs);
  return {.body = json + strings + BytesOf<float>({1, 2, 3, 4}),
          .headers = fmt::format("Inference-Header-Content-Length: {}\r\n", json.size())};
}

TEST_F(InferenceTest, InfersFromBinaryTensors) {
  for (const char* outputs :
       {R"(, "parameters": {"binary_data_output": true})",
        R"(, "outputs": [{"name": "scores", "parameters": {"binary_data": true}}])"}) {
    const BinaryRequest request = MakeBinary(outputs);
    const TestResponse response = Send("POST", kInfer, request.body, request.headers);
    ASSERT_EQ(response.status, 200) << response.body;
    const size_t length = std::stoul(response.headers.at("inference-header-content-length"));
    const Json json = Object(response.body.substr(0, length));
    EXPECT_EQ(json["outputs"][0]["parameters"]["binary_data_size"], 16);
    EXPECT_EQ(response.body.substr(length), BytesOf<float>({2, 3, 3, 4}));
  }
  // Binary in, JSON out.
  const BinaryRequest request = MakeBinary("");
  const TestResponse response = Send("POST", kInfer, request.body, request.headers);
  EXPECT_EQ(response.headers.count("inference-header-content-length"), 0u);
  EXPECT_EQ(Object(response.body)["outputs"][0]["data"], Object("[2, 3, 3, 4]"));
}

TEST_F(InferenceTest, RefusesBrokenBinaryTensors) {
  const BinaryRequest request = MakeBinary("");
  const auto status = [&](const std::string& body, const std::string& headers) {
    return Send("POST", kInfer, body, headers).status;
  };
  for (size_t cut = 1; cut <= 26; ++cut)
    EXPECT_EQ(status(request.body.substr(0, request.body.size() - cut), request.headers), 400);
  EXPECT_EQ(status(request.body + "x", request.headers), 400);
  EXPECT_EQ(status(request.body, "Inference-Header-Content-Length: 99999\r\n"), 400);
  EXPECT_EQ(status(request.body, "Inference-Header-Content-Length: -1\r\n"), 400);
  EXPECT_EQ(status(request.body, "Inference-Header-Content-Length: 0\r\n"), 400);
  EXPECT_EQ(status(request.body, ""), 400);
  std::string long_string = request.body;
  long_string[long_string.size() - 26] = 100;  // the length of "de"
  EXPECT_EQ(status(long_string, request.headers), 400);
}

TEST_F(InferenceTest, SpeaksCompressed) {
  for (const Coding coding : {Coding::kGzip, Coding::kDeflate}) {
    // Enough for an answer that is worth it.
    Json request = Object(R"({"inputs": [{"name": "x", "datatype": "FP32"}]})");
    request["inputs"][0]["shape"] = {16, 1};
    request["inputs"][0]["data"] = std::vector<float>(16, 0.1f);
    request["id"] = std::string(250, 'i');
    const TestResponse small =
        Send("POST", "/v2/models/reg/infer", Compress(request.dump(), coding),
             fmt::format("Content-Encoding: {0}\r\nAccept-Encoding: {0}\r\n", Name(coding)));
    EXPECT_EQ(small.status, 200) << small.body;
    EXPECT_EQ(small.headers.count("content-encoding"), 0u);
    Json rows = Json::object();
    rows["instances"] = std::vector<std::vector<double>>(16, {123456.78});
    const std::string longer = rows.dump() + std::string(100, ' ');
    EXPECT_EQ(Send("POST", "/v1/models/reg:predict", Compress(longer, coding),
                   fmt::format("Content-Encoding: {}\r\n", Name(coding)))
                  .status,
              200);
  }
  const std::string bomb = Compress(std::string(2 << 20, ' '), Coding::kGzip);
  EXPECT_THAT(Send("POST", kInfer, bomb, "Content-Encoding: gzip\r\n").body,
              HasSubstr("larger than 1048576 bytes"));
  EXPECT_EQ(Send("POST", kInfer, "x", "Content-Encoding: gzip\r\n").status, 400);
  EXPECT_EQ(Send("POST", kInfer, "x", "Content-Encoding: br\r\n").status, 400);
}

TEST_F(InferenceTest, CompressesLongAnswers) {
  // A name of a thousand characters makes the answer long.
  auto loading = FakeRegressor(std::string(2000, 'n'));
  const std::string path = "/v2/models/" + loading.name + "/infer";
  ASSERT_TRUE(engine_.Load(std::move(loading)));
  const Json request =
      Object(R"({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]})");
  const TestResponse response = Send("POST", path, request.dump(), "Accept-Encoding: deflate\r\n");
  EXPECT_EQ(response.headers.at("content-encoding"), "deflate");
  const auto text = Decompress(response.body, Coding::kDeflate, 1 << 20);
  EXPECT_EQ(Object(text.value())["outputs"][0]["data"], Object("[3.5]"));
}

TEST_F(InferenceTest, RefusesRequestsByName) {
  const auto with = [&](const std::function<void(Json&)>& change) {
    Json body = ClassifierRequest();
    change(body);
    return ErrorOf(kInfer, body);
  };
  EXPECT_THAT(with([](Json& j) { j["inputs"].erase(0); }), HasSubstr("'x' is missing"));
  EXPECT_THAT(with([](Json& j) { j["inputs"] = 1; }), HasSubstr("inputs"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0] = 1; }), HasSubstr("inputs"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0]["name"] = "country"; }), HasSubstr("country"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][1]["name"] = "what"; }), HasSubstr("'what'"));
  EXPECT_THAT(with([](Json& j) { j["inputs"].push_back(j["inputs"][0]); }), HasSubstr("twice"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0]["datatype"] = "FP64"; }), HasSubstr("FP32"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0].erase("shape"); }), HasSubstr("shape"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0]["shape"] = {-2, 2}; }), HasSubstr("shape"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0]["shape"] = {3, 2}; }), HasSubstr("4 elements"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0]["shape"] = {INT64_MAX, INT64_MAX}; }),
              HasSubstr("larger than any"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0]["shape"] = {4, 1}; }), HasSubstr("[4, 1]"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0].erase("data"); }), HasSubstr("either data"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][0]["data"][0] = "1"; }), HasSubstr("which is no f32"));
  EXPECT_THAT(with([](Json& j) { j["inputs"][1]["data"][0] = 1; }), HasSubstr("no string"));
  EXPECT_THAT(with([](Json& j) { j["outputs"] = {{{"name", "what"}}}; }), HasSubstr("'what'"));
  EXPECT_THAT(with([](Json& j) {
                j["outputs"] = Json::array({{{"name", "scores"}}, {{"name", "scores"}}});
              }),
              HasSubstr("twice"));
  EXPECT_THAT(with([](Json& j) { j["parameters"] = {{"timeout", "soon"}}; }),
              HasSubstr("parameters.timeout"));
  EXPECT_THAT(with([](Json& j) {
                j["outputs"] =
                    Json::array({{{"name", "scores"}, {"parameters", {{"classification", 3}}}}});
              }),
              HasSubstr("not supported"));
  EXPECT_THAT(Object(Send("POST", kInfer, "{").body)["error"], HasSubstr("malformed JSON"));
  EXPECT_THAT(ErrorOf("/v2/models/what/infer", ClassifierRequest(), 404), HasSubstr("'what'"));
  EXPECT_THAT(ErrorOf("/v2/models/cls/generate", ClassifierRequest(), 404), HasSubstr("no such"));
  Json many = ClassifierRequest();
  many["inputs"][0]["shape"] = {17, 2};
  many["inputs"][0]["data"] = std::vector<int>(34);
  many["inputs"][1]["shape"] = {17};
  many["inputs"][1]["data"] = std::vector<std::string>(17);
  EXPECT_THAT(ErrorOf(kInfer, many), HasSubstr("at most 16"));
}

TEST_F(InferenceTest, TellsWhoseIndexIsWrong) {
  const Json request = Object(R"({"inputs": [
      {"name": "offsets", "datatype": "INT64", "shape": [1], "data": [0]},
      {"name": "items", "datatype": "INT64", "shape": [1], "data": [5000]},
      {"name": "dense", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]},
      {"name": "scale", "datatype": "FP32", "shape": [1], "data": [2]}]})");
  EXPECT_THAT(ErrorOf("/v2/models/rec/infer", request), HasSubstr("index 5000"));
}

TEST_F(InferenceTest, HonoursTimeouts) {
  device_.Hold();
  TestClient first(service_.port());
  first.Post(kInfer, ClassifierRequest().dump());
  device_.WaitUntilHeld();
  Json late = ClassifierRequest();
  constexpr milliseconds kTimeout(200);  // time enough to get into the queue
  late["parameters"] = {{"timeout", std::chrono::microseconds(kTimeout).count()}};
  TestClient second(service_.port());
  second.Post(kInfer, late.dump());
  ASSERT_TRUE(Eventually([&] { return engine_.Stats(*engine_.Find("cls")).waiting == 1; }));
  std::this_thread::sleep_for(kTimeout);
  device_.Release();
  EXPECT_EQ(first.Read()->status, 200);
  EXPECT_EQ(second.Read()->status, 504);
}

TEST_F(InferenceTest, DropsRequestsOfClientsThatLeft) {
  device_.Hold();
  TestClient first(service_.port());
  first.Post(kInfer, ClassifierRequest().dump());
  device_.WaitUntilHeld();
  {
    TestClient leaves(service_.port());
    leaves.Post(kInfer, ClassifierRequest().dump());
    ASSERT_TRUE(Eventually([&] { return engine_.Stats(*engine_.Find("cls")).waiting == 1; }));
    leaves.Close();
  }
  ASSERT_TRUE(Eventually(
      [&] { return service_.metrics().Text().contains("route=\"inference\",status=\"499\"} 1"); }));
  device_.Release();
  EXPECT_EQ(first.Read()->status, 200);
  EXPECT_TRUE(Eventually([&] { return engine_.Stats(*engine_.Find("cls")).cancelled == 1; }));
}

TEST_F(InferenceTest, KeepsStatistics) {
  Post(kInfer, ClassifierRequest());
  Post(kInfer, ClassifierRequest());
  const Json stats = Get("/v2/models/cls/versions/2/stats")["model_stats"];
  ASSERT_EQ(stats.size(), 1u);
  EXPECT_EQ(stats[0]["name"], "cls");
  EXPECT_EQ(stats[0]["inference_count"], 4);
  EXPECT_EQ(stats[0]["execution_count"], 2);
  EXPECT_EQ(stats[0]["inference_stats"]["success"]["count"], 2);
  EXPECT_EQ(stats[0]["inference_stats"]["compute_infer"]["count"], 2);
  EXPECT_EQ(stats[0]["batch_stats"][0]["batch_size"], 2);
  EXPECT_EQ(Get("/v2/models/cls/stats")["model_stats"].size(), 2u);
  EXPECT_EQ(Get("/v2/models/stats")["model_stats"].size(), 4u);
  std::string metrics;
  // Eventually: an answer is counted once it has been sent.
  EXPECT_TRUE(Eventually([&] {
    metrics = Send("GET", "/metrics").body;
    return metrics.contains("route=\"inference\",status=\"200\"} 2");
  })) << metrics;
  EXPECT_THAT(metrics, HasSubstr("millpower_ranking_requests_total{model=\"cls\",version=\"2\","
                                 "outcome=\"success\"} 2"));
  EXPECT_THAT(metrics, HasSubstr("millpower_ranking_launch_rows_bucket{model=\"cls\",version=\"2\","
                                 "le=\"2\"} 2"));
}

// ---- The repository

TEST_F(InferenceTest, ListsTheRepository) {
  const Json index = Post("/v2/repository/index", Json::object());
  ASSERT_EQ(index.size(), 4u);
  EXPECT_EQ(index[0], Object(R"({"name": "cls", "version": "1", "state": "READY", "reason": ""})"));
  EXPECT_EQ(Send("POST", "/v2/repository/index").status, 200);
  EXPECT_EQ(Send("POST", "/v2/repository/index", "[]").status, 400);
}

TEST_F(InferenceTest, LoadingIsTheOperators) {
  EXPECT_THAT(ErrorOf("/v2/repository/models/regressor/load", Json::object(), 403),
              HasSubstr("operator"));
  const auto post = [&](std::string_view path, std::string_view key) {
    return Operate(path, "{}", "application/json", key);
  };
  EXPECT_EQ(post("/v2/repository/models/regressor/load", "").status, 401);
  EXPECT_EQ(post("/v2/repository/models/regressor/load", kAdminKey).status, 200);
  EXPECT_TRUE(engine_.Find("regressor"));
  EXPECT_EQ(Object(post("/v2/repository/index", kAdminKey).body).size(), 5u);
  EXPECT_EQ(post("/v2/repository/models/regressor/unload", kAdminKey).status, 200);
  EXPECT_FALSE(engine_.Find("regressor"));
  EXPECT_EQ(post("/v2/repository/models/regressor/unload", kAdminKey).status, 404);
  EXPECT_EQ(post("/v2/repository/models/what/load", kAdminKey).status, 404);
  EXPECT_EQ(post("/v2/repository/models/what/explode", kAdminKey).status, 404);
}

TEST_F(InferenceTest, IsReadyWhileThereIsAModel) {
  EXPECT_EQ(
      Operate("/v2/repository/models/regressor/load", R"({"parameters": {"config": "{}"}})").body,
      "{}");
  EXPECT_EQ(Get("/v2/models/regressor/ready")["ready"], true);
  Operate("/v2/repository/models/regressor/unload", "{}");
  Get("/v2/models/regressor/ready", 404);
  for (const char* name : {"cls", "rec", "reg"})
    Operate(fmt::format("/v2/repository/models/{}/unload", name), "{}");
  EXPECT_EQ(Get("/v2/health/ready", 503)["ready"], false);
  EXPECT_EQ(Send("GET", "/health/ready").status, 503);
}

// ---- Rows of tables

constexpr std::string_view kRows = "/v2/models/rec/tables/table/rows";

TEST_F(InferenceTest, ListsTables) {
  const Json tables = Object(R"({"model_name": "rec", "model_version": "1", "tables": [
      {"name": "table", "rows": 10, "columns": 4, "type": "int8"}]})");
  EXPECT_EQ(Get("/v2/models/rec/tables"), tables);
  EXPECT_EQ(Get("/v2/models/rec/versions/1/tables"), tables);
  EXPECT_EQ(Get("/v2/models/reg/tables")["tables"], Json::array());
  Get("/v2/models/what/tables", 404);
  const auto operate = [&](std::string_view path, std::string_view key) {
    return Operate(path, "", "application/json", key, "GET");
  };
  EXPECT_EQ(Object(operate("/v2/models/rec/tables", kAdminKey).body), tables);
  EXPECT_EQ(operate("/v2/models/rec/tables", "").status, 401);
}

TEST_F(InferenceTest, ChangesRowsOfTables) {
  const TestResponse changed =
      Operate(kRows, R"({"rows": [3, 7], "values": [[127, 0, 0, 0], [0, -127, 0, 0]]})");
  EXPECT_EQ(Object(changed.body), Object(R"({"model_name": "rec", "model_version": "1",
      "table": "table", "rows": 2})"));
  auto rows = device_.rows();
  EXPECT_EQ(rows.size(), 2u);
  EXPECT_EQ(static_cast<int8_t>(rows.at({"table", 7})[5]), -127);
  const std::string bytes = BytesOf<int64_t>({1, 9}) + BytesOf<float>({0, 0, 0, 127});
  EXPECT_EQ(
      Operate("/v2/models/rec/versions/1/tables/table/rows", bytes, "application/octet-stream")
          .status,
      200);
  rows = device_.rows();
  EXPECT_EQ(static_cast<int8_t>(rows.at({"table", 9})[7]), 127);
  const std::string metrics = Send("GET", "/metrics").body;
  EXPECT_THAT(metrics,
              HasSubstr("millpower_ranking_row_updates_total{model=\"rec\",version=\"1\"} 2"));
  EXPECT_THAT(metrics,
              HasSubstr("millpower_ranking_updated_rows_total{model=\"rec\",version=\"1\"} 3"));
}

TEST_F(InferenceTest, RefusesRowUpdatesByName) {
  const auto refuses = [&](std::string_view body, const char* what, int status = 400,
                           std::string_view path = kRows,
                           std::string_view type = "application/json") {
    const TestResponse response = Operate(path, body, type);
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_THAT(Object(response.body)["error"].get<std::string>(), HasSubstr(what));
  };
  refuses(R"({"rows": [10], "values": [[0, 0, 0, 0]]})", "no row 10");
  refuses(R"({"rows": [1, 1], "values": [[0, 0, 0, 0], [0, 0, 0, 0]]})", "row 1 is given twice");
  refuses(R"({"rows": [1, 2], "values": [[0, 0, 0, 0]]})", "2 rows of 4 values");
  refuses(R"({"rows": [1], "values": [[0, 0, 0]]})", "values[0] must be a list of 4 numbers");
  refuses(R"({"rows": [1], "values": [[0, 0, 0, null]]})", "values[0][3] is not a number");
  refuses(R"({"rows": [1], "values": [[0, 0, 1e300, 0]]})", "column 2: inf is not finite");
  refuses(R"({"rows": [1.5], "values": [[0, 0, 0, 0]]})", "rows[0] must be a whole number");
  refuses(R"({"rows": [1]})", "values must be a list");
  refuses(R"({"rows": [], "values": [], "table": "x"})", "'table'");
  refuses(R"({"rows": [], "values": []})", "no rows");
  refuses("[]", "object");
  refuses("{}", "no table 'what'", 404, "/v2/models/rec/tables/what/rows");
  refuses("{}", "'what'", 404, "/v2/models/what/tables/table/rows");
  refuses("{}", "no such path", 404, "/v2/models/rec/versions/x/tables/table/rows");
  const auto binary = [&](const std::string& body, const char* what) {
    refuses(body, what, 400, kRows, "application/octet-stream");
  };
  binary("1234567", "does not say how many rows");
  binary(BytesOf<int64_t>({1, 9}) + BytesOf<float>({0, 0, 0}), "20 bytes for 1 rows");
  binary(BytesOf<int64_t>({-1}), "-1 rows");
  binary(BytesOf<int64_t>({INT64_MAX}), "rows of table 'table'");
  binary(BytesOf<int64_t>({1, 9}) + BytesOf<float>({0, NAN, 0, 0}), "row 9, column 1: nan");
  EXPECT_TRUE(device_.rows().empty());
}

TEST_F(InferenceTest, RowsAreChangedByTheOperatorOnly) {
  const std::string body = R"({"rows": [3], "values": [[0, 0, 0, 0]]})";
  EXPECT_THAT(ErrorOf(kRows, Object(body), 403), HasSubstr("operator"));
  EXPECT_EQ(Operate(kRows, body, "application/json", "wrong").status, 401);
  EXPECT_TRUE(device_.rows().empty());
}

// ---- TensorFlow Serving

TEST_F(InferenceTest, PredictsByRow) {
  const Json answer = Post("/v1/models/cls:predict", Object(R"({"instances": [
      {"x": [1, 2], "country": "de"}, {"x": [0.5, 0], "country": {"b64": "ZnI="}}]})"));
  EXPECT_EQ(answer, Object(R"({"predictions": [[2, 3], [2.5, 2]]})"));
  EXPECT_EQ(Post("/v1/models/reg/versions/1:predict",
                 Object(R"({"signature_name": "serving_default", "instances": [[1], [5]]})")),
            Object(R"({"predictions": [[3.5], [5.5]]})"));
}

TEST_F(InferenceTest, PredictsByColumn) {
  EXPECT_EQ(Post("/v1/models/reg:predict", Object(R"({"inputs": [[1], [5]]})")),
            Object(R"({"outputs": [[3.5], [5.5]]})"));
  const Json answer = Post("/v1/models/rec:predict", Object(R"({"inputs": {
      "dense": [[1, 1], [0, 0]], "items": [5, 6, 7], "offsets": [0, 1], "scale": [1]}})"));
  EXPECT_EQ(answer, Object(R"({"outputs": {"score": [7, 13], "first": [5, 6]}})"));
  // No items at all.
  EXPECT_EQ(Post("/v1/models/rec:predict", Object(R"({"inputs": {
      "dense": [[1, 1]], "items": [], "offsets": [0], "scale": [1]}})")),
            Object(R"({"outputs": {"score": [2], "first": [-1]}})"));
}

TEST_F(InferenceTest, ClassifiesAndRegresses) {
  EXPECT_EQ(Post("/v1/models/cls:classify", Object(R"({"context": {"country": ["fr"]}, "examples": [
      {"x": [1, 2]}, {"x": [3, 4], "country": ["de"]}]})")),
            Object(R"({"results": [[["", 3], ["", 4]], [["", 4], ["", 5]]]})"));
  EXPECT_EQ(Post("/v1/models/reg:regress", Object(R"({"examples": [{"x": [1]}, {"x": [2]}],
      "signature_name": "tensorflow/serving/regress"})")),
            Object(R"({"results": [3.5, 4]})"));
  EXPECT_THAT(ErrorOf("/v1/models/cls:regress", Object(R"({"examples": [{"x": [1, 2]}]})")),
              HasSubstr(":predict"));
}

TEST_F(InferenceTest, RefusesPredictionsByName) {
  const auto predict = [&](std::string_view text, int status = 400) {
    return ErrorOf("/v1/models/cls:predict", Object(text), status);
  };
  EXPECT_THAT(predict("{}"), HasSubstr("either"));
  EXPECT_THAT(predict(R"({"instances": [], "inputs": []})"), HasSubstr("either"));
  EXPECT_THAT(predict(R"({"instances": []})"), HasSubstr("not empty"));
  EXPECT_THAT(predict(R"({"instances": [[1, 2]]})"), HasSubstr("2 inputs"));
  EXPECT_THAT(predict(R"({"instances": [{"x": [1, 2]}]})"), HasSubstr("'country' is missing"));
  EXPECT_THAT(predict(R"({"instances": [{"x": [1, 2], "country": "de", "y": 1}]})"),
              HasSubstr("'y'"));
  EXPECT_THAT(predict(R"({"instances": [{"x": [1, 2], "country": "de"}, 3]})"), HasSubstr("alike"));
  EXPECT_THAT(predict(R"({"instances": [{"x": [1, 2], "country": "de"},
                                        {"x": [1], "country": "de"}]})"),
              HasSubstr("different shapes"));
  EXPECT_THAT(predict(R"({"inputs": {"x": [[1, 2], [3]], "country": ["a", "b"]}})"),
              HasSubstr("different lengths"));
  EXPECT_THAT(predict(R"({"inputs": {"x": [[1, 2]], "country": ["a", "b"]}})"),
              HasSubstr("does not fit"));
  EXPECT_THAT(predict(R"({"instances": [[1]], "more": 1})"), HasSubstr("'more'"));
  EXPECT_THAT(predict(R"({"instances": [[1]], "signature_name": "other"})", 404),
              HasSubstr("'other'"));
  EXPECT_THAT(ErrorOf("/v1/models/rec:predict", Object(R"({"instances": [{"dense": [1, 1],
      "items": 1, "offsets": 0, "scale": 1}]})")),
              HasSubstr("by column"));
  EXPECT_THAT(ErrorOf("/v1/models/cls:explode", Json::object(), 404), HasSubstr("no such method"));
  EXPECT_THAT(ErrorOf("/v1/models/cls/labels/stable:predict", Json::object(), 404),
              HasSubstr("label"));
  EXPECT_THAT(ErrorOf("/v1/models/what:predict", Json::object(), 404), HasSubstr("'what'"));
}

TEST_F(InferenceTest, DescribesModelsAsTfServingDoes) {
  const Json status = Get("/v1/models/cls")["model_version_status"];
  ASSERT_EQ(status.size(), 2u);
  EXPECT_EQ(status[1], Object(R"({"version": "2", "state": "AVAILABLE",
      "status": {"error_code": "OK", "error_message": ""}})"));
  EXPECT_EQ(Get("/v1/models/cls/versions/1")["model_version_status"].size(), 1u);
  EXPECT_TRUE(Get("/v1/models/cls/versions/3", 404)["error"].is_string());
  EXPECT_TRUE(Get("/v1/models/cls/labels/stable", 404)["error"].is_string());
  const Json metadata = Get("/v1/models/cls/metadata");
  EXPECT_EQ(metadata["model_spec"]["version"], "2");
  const Json& signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
  EXPECT_EQ(signature["inputs"]["x"]["dtype"], "DT_FLOAT");
  EXPECT_EQ(signature["inputs"]["x"]["tensor_shape"]["dim"][1]["size"], "2");
  EXPECT_EQ(signature["inputs"]["country"]["dtype"], "DT_STRING");
  EXPECT_EQ(signature["method_name"], "tensorflow/serving/predict");
}

TEST_F(InferenceTest, LanguageModelsStayWhatTheyAre) {
  TestModel model([](const engine::Request&) { return "Hello!"; });
  models_.Add(model.served);
  EXPECT_EQ(Get("/v1/models/test")["object"], "model");
  EXPECT_EQ(Get("/v1/models")["data"].size(), 1u);
  EXPECT_EQ(Get("/v1/models/what", 404)["error"]["code"], "model_not_found");
  models_.Remove("test");
}

TEST_F(InferenceTest, RefusesNewWorkWhileItDrains) {
  api_->StartDraining();
  EXPECT_EQ(ErrorOf(kInfer, ClassifierRequest(), 503), "the server is shutting down");
  EXPECT_EQ(Get("/v2/health/ready", 503)["ready"], false);
  EXPECT_EQ(Send("GET", "/v2/models/cls/ready").status, 503);
}

TEST_F(InferenceTest, AnswersManyAtOnce) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      TestClient client(service_.port());
      for (int i = 0; i < 100; ++i) {
        const float x = static_cast<float>(100 * t + i);
        client.Post("/v1/models/reg:predict", fmt::format(R"({{"instances": [[{}]]}})", x));
        const auto response = client.Read();
        ASSERT_TRUE(response);
        EXPECT_EQ(Object(response->body)["predictions"][0][0], x / 2 + 3);
      }
    });
}

}  // namespace
}  // namespace millpower::serve
