// The HTTP layer over real sockets, with a handler that echoes. Timeouts are long but in the tests
// of clients that run into one.
#include "serve/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/test_wait.h"
#include "serve/errors.h"
#include "serve/test_client.h"

namespace millpower::serve {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

HttpConfig TestConfig() {
  HttpConfig config{.port = 0};
  config.limits = {.header_bytes_max = 4096,
                   .body_bytes_max = 100'000,
                   .bodies_bytes_max = 150'000,
                   .unsent_bytes_max = 1 << 18,
                   .connection_count_max = 8,
                   .idle_timeout = std::chrono::minutes(1),
                   .header_timeout = std::chrono::minutes(1),
                   .body_timeout = std::chrono::minutes(1),
                   .write_timeout = std::chrono::minutes(1)};
  return config;
}

// /echo answers with the body; /hold answers only when told; /stream sends until the client is
// gone.
class ServerTest : public testing::Test {
 protected:
  explicit ServerTest(const HttpConfig& config = TestConfig())
      : server_{config, [this](auto exchange) { Handle(std::move(exchange)); },
                [this](const Exchange&, auto) { ++observed_; }} {
    EXPECT_TRUE(server_.Start());
  }
  ~ServerTest() override {
    {
      std::lock_guard lock(mutex_);
      for (const auto& exchange : held_) exchange->Reply({.body = "late"});
    }
    server_.Drain(milliseconds(100));
    for (std::thread& thread : streams_) thread.join();
  }

  void Handle(std::shared_ptr<Exchange> exchange) {
    ++handled_;
    const std::string& path = exchange->request().path;
    if (path == "/hold") {
      exchange->OnGone([this] { ++gone_; });
      std::lock_guard lock(mutex_);
      held_.push_back(std::move(exchange));
    } else if (path == "/stream") {
      std::lock_guard lock(mutex_);
      streams_.emplace_back([this, exchange] {
        while (exchange->Stream(std::string(1000, 'x'))) streamed_bytes_ += 1000;
        ++gone_;
      });
    } else if (path == "/three") {
      for (const char* piece : {"one,", "two,", "three"}) exchange->Stream(piece);
      exchange->Finish();
    } else {
      exchange->Reply({.body = exchange->request().method + exchange->request().body});
    }
  }

  std::atomic<int> handled_{0}, gone_{0}, observed_{0};
  std::atomic<int64_t> streamed_bytes_{0};
  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> held_;
  std::vector<std::thread> streams_;
  HttpServer server_;
};

HttpConfig ImpatientConfig() {
  HttpConfig config = TestConfig();
  config.limits.header_timeout = config.limits.body_timeout = config.limits.write_timeout =
      milliseconds(200);
  return config;
}
struct ImpatientServerTest : ServerTest {
  ImpatientServerTest() : ServerTest(ImpatientConfig()) {}
};

HttpConfig BusyConfig() {
  HttpConfig config = TestConfig();
  config.limits.idle_timeout = milliseconds(100);
  return config;
}
struct BusyServerTest : ServerTest {
  BusyServerTest() : ServerTest(BusyConfig()) {}
};

TEST_F(ServerTest, AnswersOnOneConnectionAgainAndAgain) {
  TestClient client(server_.port());
  for (int i = 0; i < 3; ++i) {
    client.Post("/echo", "body " + std::to_string(i));
    const auto response = client.Read();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->body, "POSTbody " + std::to_string(i));
    EXPECT_THAT(response->headers.at("x-request-id"), testing::StartsWith("req-"));
    EXPECT_THAT(response->headers.at("date"), testing::EndsWith(" GMT"));
  }
  EXPECT_EQ(server_.connection_count(), 1);
}

TEST_F(ServerTest, RepeatsASaneRequestIdOnly) {
  TestClient client(server_.port());
  client.Send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: my-id.1\r\n\r\n");
  EXPECT_EQ(client.Read()->headers.at("x-request-id"), "my-id.1");
  client.Send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: my id\r\n\r\n");
  EXPECT_THAT(client.Read()->headers.at("x-request-id"), testing::StartsWith("req-"));
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrder) {
  TestClient client(server_.port());
  std::string all;
  for (int i = 0; i < 50; ++i)
    all += "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n" + std::to_string(10 + i);
  client.Send(all);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client.Read()->body, "POST" + std::to_string(10 + i));
}

TEST_F(ServerTest, ReadsABodyThatComesByteByByte) {
  TestClient client(server_.port());
  for (const char c : std::string("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"))
    client.Send(std::string(1, c));
  EXPECT_EQ(client.Read()->body, "POSTabc");
}

TEST_F(ServerTest, ReadsChunkedBodiesAndSendsChunkedStreams) {
  TestClient client(server_.port());
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.Read()->body, "POSTabcde");
  client.Get("/three");
  const auto response = client.Read();
  EXPECT_EQ(response->headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(response->body, "one,two,three");
}

TEST_F(ServerTest, ClosesAfterHttp10WithoutChunks) {
  TestClient client(server_.port());
  client.Send("GET /three HTTP/1.0\r\n\r\n");
  const auto response = client.Read();
  EXPECT_EQ(response->body, "one,two,three");
  EXPECT_EQ(response->headers.at("connection"), "close");
  EXPECT_TRUE(client.ReadEnd());
}

TEST_F(ServerTest, ClosesWhenAskedTo) {
  TestClient client(server_.port());
  client.Send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.Read()->headers.at("connection"), "close");
  EXPECT_TRUE(client.ReadEnd());
}

TEST_F(ServerTest, AnswersHeadWithoutABody) {
  TestClient client(server_.port());
  client.Send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.Read(true)->headers.at("content-length"), "4");
  client.Get("/");
  EXPECT_EQ(client.Read()->body, "GET");
}

TEST_F(ServerTest, SaysContinueOnlyToThoseWhoWait) {
  TestClient client(server_.port());
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Read()->status, 100);
  client.Send("abc");
  EXPECT_EQ(client.Read()->body, "POSTabc");
  client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: a miracle\r\n\r\n");
  EXPECT_EQ(client.Read()->status, 417);
}

struct Refused {
  const char* why;
  std::string request;
  int status;
};

TEST_F(ServerTest, RefusesWhatIsMalformedOrTooLarge) {
  const std::string post = "POST /echo HTTP/1.1\r\nHost: h\r\n";
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  const Refused cases[] = {
      {"not HTTP", "\x16\x03\x01\x02 TLS, perhaps\r\n\r\n", 400},
      {"no version", "GET /\r\n\r\n", 400},
      {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
      {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"space in a header's name", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"negative length", post + "Content-Length: -1\r\n\r\n", 400},
      {"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
      {"length and chunks",
       post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"bad chunk size", chunked + "zz\r\nabc\r\n", 400},
      {"headers too large", "GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(8000, 'x'), 431},
      {"target too large", "GET /" + std::string(8000, 'x'), 431},
      {"declared body too large", post + "Content-Length: 100001\r\n\r\n", 413},
      {"huge declared body", post + "Content-Length: 18446744073709551615\r\n\r\n", 413},
      {"chunks too large", chunked + "20000\r\n" + std::string(0x20000, 'x') + "\r\n", 413},
      {"body sent although too large",
       post + "Content-Length: 300000\r\n\r\n" + std::string(300'000, 'x'), 413},
  };
  for (const Refused& item : cases) {
    TestClient client(server_.port());
    client.Send(item.request);
    const auto response = client.Read();
    ASSERT_TRUE(response) << item.why;
    EXPECT_EQ(response->status, item.status) << item.why << ": " << response->body;
    EXPECT_THAT(response->body, HasSubstr("invalid_request_error")) << item.why;
    client.Close();
  }
  EXPECT_EQ(handled_, 0);
}

TEST_F(ServerTest, BoundsAllLargeBodiesTogether) {
  const std::string post = "POST /hold HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n";
  TestClient first(server_.port());
  first.Send(post + std::string(90'000, 'x'));
  ASSERT_TRUE(Eventually([&] { return handled_ == 1; }));
  TestClient second(server_.port());
  second.Send(post);
  EXPECT_EQ(second.Read()->status, 503);
  TestClient small(server_.port());
  small.Post("/echo", "small");
  EXPECT_EQ(small.Read()->status, 200);
  held_.at(0)->TakeBody();
  TestClient third(server_.port());
  third.Send(post + std::string(90'000, 'x'));
  EXPECT_TRUE(Eventually([&] { return handled_ == 3; }));
}

TEST_F(ImpatientServerTest, TimesOutASlowHeaderOrBody) {
  for (const char* start :
       {"GET / HTT", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\nab"}) {
    TestClient client(server_.port());
    client.Send(start);
    // One more byte now and then does not help.
    std::jthread slow([&](std::stop_token stop) {
      while (!stop.stop_requested()) {
        std::this_thread::sleep_for(milliseconds(30));
        client.Send("P");
      }
    });
    const auto response = client.Read();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 408);
  }
}

TEST_F(BusyServerTest, ClosesIdleConnectionsSilently) {
  TestClient client(server_.port());
  EXPECT_TRUE(client.ReadEnd());
  EXPECT_EQ(handled_, 0);
}

TEST_F(ServerTest, RefusesConnectionsBeyondTheLimit) {
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<TestClient>(server_.port()));
    clients.back()->Get("/hold");
  }
  ASSERT_TRUE(Eventually([&] { return handled_ == 8; }));
  TestClient late(server_.port());
  EXPECT_EQ(late.Read()->status, 503);
  clients.clear();
  EXPECT_TRUE(Eventually([&] { return server_.connection_count() == 0; }));
  TestClient next(server_.port());
  next.Get("/");
  EXPECT_EQ(next.Read()->status, 200);
}

TEST_F(ServerTest, NoticesAClientThatLeavesWhileItsRequestWaits) {
  for (const bool reset : {false, true}) {
    const int before = gone_;
    TestClient client(server_.port());
    client.Get("/hold");
    ASSERT_TRUE(Eventually([&] { return handled_ == before + 1; }));
    client.Close(reset);
    EXPECT_TRUE(Eventually([&] { return gone_ == before + 1; }));
  }
}

TEST_F(ServerTest, KeepsPipelinedRequestsWhileOneIsHeld) {
  TestClient client(server_.port());
  client.Get("/hold");
  ASSERT_TRUE(Eventually([&] { return handled_ == 1; }));
  client.Get("/");
  std::this_thread::sleep_for(milliseconds(20));
  {
    std::lock_guard lock(mutex_);
    held_.at(0)->Reply({.body = "held"});
  }
  EXPECT_EQ(client.Read()->body, "held");
  EXPECT_EQ(client.Read()->body, "GET");
}

TEST_F(ImpatientServerTest, GivesUpAStreamThatIsNotRead) {
  TestClient stalled(server_.port(), 4096);
  stalled.Get("/stream");
  ASSERT_TRUE(Eventually([&] { return handled_ == 1; }));
  TestClient other(server_.port());
  other.Get("/");
  EXPECT_EQ(other.Read()->status, 200);  // nobody else waits
  EXPECT_TRUE(Eventually([&] { return gone_ == 1; }));
  EXPECT_LT(streamed_bytes_, 8 << 20);  // what the kernel takes, and our bound
  EXPECT_TRUE(Eventually([&] { return observed_ == 2; }));
}

TEST_F(ServerTest, DrainFinishesWhatIsLiveAndClosesWhatIsIdle) {
  TestClient idle(server_.port());
  TestClient busy(server_.port());
  busy.Get("/hold");
  ASSERT_TRUE(Eventually([&] { return handled_ == 1; }));
  std::thread drain([&] { server_.Drain(milliseconds(5000)); });
  EXPECT_TRUE(idle.ReadEnd());
  {
    std::lock_guard lock(mutex_);
    held_.at(0)->Reply({.body = "done"});
  }
  EXPECT_EQ(busy.Read()->body, "done");
  EXPECT_TRUE(busy.ReadEnd());
  drain.join();
  EXPECT_EQ(server_.connection_count(), 0);
}

TEST_F(ServerTest, DrainCutsOffWhatTakesTooLong) {
  TestClient client(server_.port());
  client.Get("/hold");
  ASSERT_TRUE(Eventually([&] { return handled_ == 1; }));
  server_.Drain(milliseconds(50));
  EXPECT_EQ(gone_, 1);
  EXPECT_TRUE(client.ReadEnd());
}

TEST_F(ServerTest, SaysWhenTheAddressIsInUse) {
  HttpServer second({.port = server_.port()}, nullptr, nullptr);
  const auto started = second.Start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::kIo);
  EXPECT_THAT(started.error().message, HasSubstr("in use"));
  HttpServer nowhere({.host = "no such host.invalid", .port = 0}, nullptr, nullptr);
  EXPECT_FALSE(nowhere.Start());
}

}  // namespace
}  // namespace millpower::serve
