// Loading and unloading while others are served, over sockets, with engines that follow a script.
#include "serve/admin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>

#include "base/clock.h"
#include "base/json.h"
#include "base/test_wait.h"
#include "serve/service.h"
#include "serve/test_client.h"
#include "serve/test_model.h"

namespace millpower::serve {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr int64_t kDrainNs = 200'000'000;
const std::string kKey = "0123456789abcdef";

Json Object(std::string_view text) { return ParseJson(text).value(); }

// A folder that is removed again.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "admin_test.XXXXXX").string();
    path_ = fs::canonical(::mkdtemp(pattern.data()));
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

class AdminTest : public testing::Test {
 protected:
  AdminTest() {
    for (const char* name : {"a", "b", "broken", "slow"}) fs::create_directory(root_.path() / name);
    EXPECT_TRUE(host_.LoadAtStart({{.name = "first", .path = "a"}}));
    EXPECT_TRUE(service_.Start());
    EXPECT_TRUE(admin_.Start());
  }
  ~AdminTest() override { Release(); }

  // "broken" fails, "slow" waits for Release.
  Result<ServedModel> Load(const ModelSpec& spec, const LoadProgress& progress) {
    progress(30, 100);
    const std::string folder = fs::path(spec.path).filename();
    if (folder == "slow") {
      std::unique_lock lock(mutex_);
      released_.wait(lock, [&] { return is_released_; });
    }
    if (folder == "broken") return Fail(ErrorCode::kCorrupt, "weights are missing");
    ++live_;
    std::shared_ptr<TestModel> model(
        new TestModel([](const engine::Request&) { return std::string(300, 'x'); }),
        [this](TestModel* gone) {
          delete gone;
          --live_;
        });
    model->engine.SetStepDelay(milliseconds(2));
    ServedModel served = model->served;
    served.name = spec.name;
    served.weights_bytes = 1000;
    served.kv_bytes = 200;
    served.owner = model;
    return served;
  }
  void Release() {
    std::lock_guard lock(mutex_);
    is_released_ = true;
    released_.notify_all();
  }

  TestResponse Ask(const std::string& method, const std::string& path, const std::string& body = "",
                   const std::string& key = kKey) {
    TestClient client(admin_.port());
    client.Send(method + " " + path + " HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + key +
                "\r\nContent-Type: application/json\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    return client.Read().value();
  }
  Json Status(const std::string& name) {
    return Object(Ask("GET", "/admin/v1/models/" + name).body);
  }
  TestResponse Load(const std::string& name, const std::string& path) {
    return Ask("POST", "/admin/v1/models", Json{{"name", name}, {"path", path}}.dump());
  }
  TestResponse Complete(const std::string& model, int max_tokens = 3) {
    TestClient client(service_.port());
    client.Post("/v1/completions",
                Json{{"model", model}, {"prompt", "x"}, {"max_tokens", max_tokens}}.dump());
    return client.Read().value();
  }

  const Folder root_;
  std::mutex mutex_;
  std::condition_variable released_;
  bool is_released_ = false;
  std::atomic<int> live_{0};

  SystemClock clock_;
  ModelRegistry registry_;
  ModelHost host_{registry_,
                  [this](const ModelSpec& spec, bool, const LoadProgress& progress) {
                    return Load(spec, progress);
                  },
                  kDrainNs};
  Service service_{{.port = 0}, registry_, clock_};
  AdminServer admin_{{.port = 0, .key = kKey, .model_root = root_.path()}, host_};
};

TEST_F(AdminTest, NeedsItsKey) {
  for (const std::string& key :
       {std::string(), std::string("0123456789abcdeF"), kKey + "0", kKey.substr(1), " " + kKey}) {
    const TestResponse response = Ask("GET", "/admin/v1/models", "", key);
    EXPECT_EQ(response.status, 401) << key;
    EXPECT_EQ(response.headers.at("www-authenticate"), "Bearer");
    EXPECT_EQ(Object(response.body)["error"]["code"], "invalid_api_key");
  }
  TestClient client(admin_.port());
  client.Send("GET /admin/v1/models HTTP/1.1\r\nHost: h\r\nAuthorization: " + kKey + "\r\n\r\n");
  EXPECT_EQ(client.Read()->status, 401);
  EXPECT_EQ(Ask("DELETE", "/admin/v1/models/first", "", "x").status, 401);
  EXPECT_EQ(Complete("first").status, 200);
}

TEST_F(AdminTest, WantsAKeyWorthTheName) {
  AdminServer other({.port = 0, .key = "short"}, host_);
  EXPECT_EQ(other.Start().error().param, "admin-key-file");
  EXPECT_EQ(NewAdminKey().size(), 64u);
  EXPECT_NE(NewAdminKey(), NewAdminKey());
}

TEST_F(AdminTest, TellsWhatIsLoaded) {
  Complete("first");
  const Json list = Object(Ask("GET", "/admin/v1/models").body);
  ASSERT_EQ(list["data"].size(), 1u);
  const Json& model = list["data"][0];
  EXPECT_EQ(model["id"], "first");
  EXPECT_EQ(model["state"], "ready");
  EXPECT_EQ(model["error"], nullptr);
  EXPECT_EQ(model["memory"], Object(R"({"weights_bytes": 1000, "kv_bytes": 200})"));
  EXPECT_EQ(model["stats"]["generated_tokens"], 3);
  EXPECT_EQ(Status("first")["id"], "first");
  EXPECT_EQ(Ask("GET", "/admin/v1/models/none").status, 404);
  EXPECT_EQ(Ask("GET", "/admin/v2").status, 404);
  const TestResponse wrong = Ask("PUT", "/admin/v1/models");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "GET, HEAD, POST, OPTIONS");
}

TEST_F(AdminTest, LoadsWhileOthersAnswer) {
  TestResponse response = Load("second", "slow");
  EXPECT_EQ(response.status, 202);
  EXPECT_EQ(Object(response.body)["state"], "loading");
  EXPECT_TRUE(Eventually([&] { return Status("second")["progress"]["done_bytes"] == 30; }));
  EXPECT_EQ(Complete("second").status, 503);
  EXPECT_EQ(Complete("first").status, 200);
  EXPECT_EQ(Load("second", "b").status, 409);
  EXPECT_EQ(Load("first", "b").status, 409);
  Release();
  EXPECT_TRUE(Eventually([&] { return Status("second")["state"] == "ready"; }));
  EXPECT_EQ(Complete("second").status, 200);
}

TEST_F(AdminTest, RemembersWhatFailed) {
  EXPECT_EQ(Load("second", "broken").status, 202);
  EXPECT_TRUE(Eventually([&] { return Status("second")["state"] == "failed"; }));
  EXPECT_EQ(Status("second")["error"], "weights are missing");
  EXPECT_EQ(Complete("second").status, 404);
  // It gives way to another try, or is forgotten.
  EXPECT_EQ(Load("second", "a").status, 202);
  EXPECT_TRUE(Eventually([&] { return Status("second")["state"] == "ready"; }));
  Load("third", "broken");
  EXPECT_TRUE(Eventually([&] { return Status("third")["state"] == "failed"; }));
  EXPECT_EQ(Object(Ask("DELETE", "/admin/v1/models/third").body)["state"], "unloaded");
  EXPECT_EQ(Ask("GET", "/admin/v1/models/third").status, 404);
}

TEST_F(AdminTest, UnloadsWhenRunningRequestsHaveEnded) {
  TestClient client(service_.port());
  client.Post("/v1/completions",
              R"({"model": "first", "prompt": "x", "max_tokens": 10, "stream": true})");
  ASSERT_TRUE(client.ReadUntil("data: "));
  EXPECT_EQ(Ask("DELETE", "/admin/v1/models/first").status, 202);
  EXPECT_EQ(Complete("first").status, 404);
  EXPECT_EQ(Ask("DELETE", "/admin/v1/models/first").status, 404);
  EXPECT_TRUE(client.ReadUntil("\"finish_reason\":\"length\""));
  EXPECT_TRUE(client.ReadUntil("[DONE]"));
  EXPECT_TRUE(Eventually([&] { return live_ == 0; }));
  EXPECT_TRUE(Eventually([&] { return host_.List().empty(); }));
  EXPECT_EQ(Load("first", "b").status, 202);
  EXPECT_TRUE(Eventually([&] { return Complete("first").status == 200; }));
}

TEST_F(AdminTest, CancelsWhatRunsTooLong) {
  TestClient client(service_.port());
  client.Post("/v1/completions",
              R"({"model": "first", "prompt": "x", "max_tokens": 300, "stream": true})");
  ASSERT_TRUE(client.ReadUntil("data: "));
  EXPECT_EQ(Ask("DELETE", "/admin/v1/models/first").status, 202);
  EXPECT_TRUE(client.ReadUntil("the generation was cancelled"));
  EXPECT_TRUE(Eventually([&] { return live_ == 0; }));
}

TEST_F(AdminTest, UnloadsWhatIsStillLoading) {
  Load("second", "slow");
  EXPECT_EQ(Ask("DELETE", "/admin/v1/models/second").status, 202);
  EXPECT_EQ(Complete("second").status, 404);
  EXPECT_EQ(Load("second", "a").status, 409);  // until it is gone
  Release();
  EXPECT_TRUE(Eventually([&] { return Ask("GET", "/admin/v1/models/second").status == 404; }));
  EXPECT_EQ(live_, 1);
}

TEST_F(AdminTest, RefusesWhatItDoesNotUnderstand) {
  const auto post = [&](const std::string& body) { return Ask("POST", "/admin/v1/models", body); };
  const std::pair<const char*, const char*> cases[] = {
      {R"({"path": "a"})", "name"},
      {R"({"name": "x"})", "path"},
      {R"({"name": "", "path": "a"})", "name"},
      {R"({"name": "a b", "path": "a"})", "name"},
      {R"({"name": "x", "path": "a", "weights": "int3"})", "weights"},
      {R"({"name": "x", "path": "a", "kv": "int4"})", "kv"},
      {R"({"name": "x", "path": "a", "kv_memory": "2GiB"})", "kv_memory"},
      {R"({"name": "x", "path": "a", "kv_memory": 0})", "kv_memory"},
      {R"({"name": "x", "path": "a", "kv-memory": 5})", "kv-memory"},
      {R"({"name": "x", "path": "none"})", "path"},
  };
  for (const auto& [body, param] : cases) {
    const TestResponse response = post(body);
    EXPECT_EQ(response.status, 400) << body;
    EXPECT_EQ(Object(response.body)["error"]["param"], param) << response.body;
  }
  EXPECT_EQ(post("{").status, 400);
  EXPECT_EQ(post("").status, 400);
  EXPECT_EQ(post(std::string(100'000, ' ')).status, 413);
  EXPECT_EQ(host_.List().size(), 1u);
}

TEST_F(AdminTest, StaysInItsRoot) {
  const Folder other;
  fs::create_directory(root_.path() / "sub");
  fs::create_directory_symlink(other.path(), root_.path() / "link");
  fs::create_directory_symlink(root_.path() / "a", root_.path() / "inner");
  fs::create_directory(root_.path() / "mixed");
  std::ofstream(other.path() / "secret") << "x";
  fs::create_symlink(other.path() / "secret", root_.path() / "mixed" / "model.safetensors");
  const std::string outside = "/../" + other.path().filename().string();
  for (const std::string& path :
       {std::string(".."), std::string("../.."), std::string("a/../.."), std::string("link"),
        std::string("link/secret"), other.path().string(), std::string("/etc"),
        root_.path().string() + outside, root_.path().string() + "x", std::string("mixed"),
        std::string("a\0b", 3), std::string()}) {
    const auto resolved = ResolveModelPath(path, root_.path());
    ASSERT_FALSE(resolved) << path;
    EXPECT_EQ(resolved.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(resolved.error().param, "path");
  }
  for (const auto& [path, resolved] : {std::pair<std::string, fs::path>{"a", "a"},
                                       {"sub/../a", "a"},
                                       {"inner", "a"},
                                       {(root_.path() / "b").string(), "b"}})
    EXPECT_EQ(ResolveModelPath(path, root_.path()).value(), root_.path() / resolved);
  // Without a root, any.
  EXPECT_EQ(ResolveModelPath(other.path().string(), "").value(), other.path());
}

TEST_F(AdminTest, TwoModelsHaveTwoNames) {
  ModelRegistry registry;
  ModelHost host(
      registry,
      [](const auto&, bool, const auto&) -> Result<ServedModel> {
        return Fail(ErrorCode::kInternal, "not reached");
      },
      0);
  const auto loaded = host.LoadAtStart({{.name = "x", .path = "a"}, {.name = "x", .path = "b"}});
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message, HasSubstr("NAME=PATH"));
}

}  // namespace
}  // namespace millpower::serve
