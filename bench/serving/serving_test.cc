#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>

#include <atomic>
#include <set>
#include <thread>

#include "bench/serving/load.h"
#include "bench/serving/sse.h"

namespace millpower::bench {
namespace {

using boost::asio::ip::tcp;
using testing::ElementsAre;
using testing::HasSubstr;

// All events of `text`, pushed `step` bytes at a time.
std::vector<std::string> Events(std::string_view text, size_t step) {
  SseParser parser;
  std::vector<std::string> all;
  for (size_t at = 0; at < text.size(); at += step) {
    auto events = parser.Push(text.substr(at, step));
    EXPECT_TRUE(events);
    all.insert(all.end(), events->begin(), events->end());
  }
  return all;
}

TEST(Sse, GivesTheDataOfEachEventHoweverItIsCut) {
  constexpr std::string_view kText =
      ": a comment\n\ndata: {\"a\": 1}\n\ndata:no space\r\nid: 7\r\n\r\nevent: x\rdata: two\rdata: "
      " "
      "lines\r\rretry: 3\n\ndata\n\ndata: [DONE]\n\ndata: unfinished\n";
  for (size_t step = 1; step <= kText.size(); ++step)
    EXPECT_THAT(Events(kText, step),
                ElementsAre("{\"a\": 1}", "no space", "two\n lines", "", "[DONE]"))
        << step;
}

TEST(Sse, BoundsAnEvent) {
  SseParser parser;
  EXPECT_TRUE(parser.Push(std::string(SseParser::kMaxEventBytes, 'x')));
  const auto more = parser.Push("x");
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, ErrorCode::kOutOfRange);
}

TEST(Statistics, Quantiles) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.9), 4);
  EXPECT_EQ(Quantile({7}, 0.01), 7);
  EXPECT_TRUE(Spread({})["median"].is_null());
  EXPECT_EQ(Spread({1, 2, 6})["mean"], 3.0);
}

TEST(Statistics, SumsUpARun) {
  Outcome first, second, refused, broken;
  first = {.status = 200,
           .start_s = 1,
           .first_token_s = 2,
           .last_token_s = 5,
           .end_s = 5,
           .prompt_tokens = 10,
           .cached_tokens = 4,
           .output_tokens = 4,
           .gaps_s = {1, 1, 1}};
  second = {.status = 200,
            .start_s = 3,
            .first_token_s = 6,
            .last_token_s = 6,
            .end_s = 11,
            .prompt_tokens = 20,
            .output_tokens = 1};
  refused.error = "HTTP 429: full";
  refused.status = 429;
  refused.end_s = broken.end_s = 100;
  broken.error = "broke off";
  const Json sum = Summarise({refused, first, broken, second});
  EXPECT_EQ(sum["requests"], 4);
  EXPECT_EQ(sum["failed"], 2);
  EXPECT_EQ(sum["refused"], 1);
  EXPECT_EQ(sum["first_error"], "HTTP 429: full");
  EXPECT_EQ(sum["seconds"], 10.0);  // 1 .. 11
  EXPECT_EQ(sum["prompt_tokens"], 30);
  EXPECT_EQ(sum["cached_tokens"], 4);
  EXPECT_EQ(sum["output_tok_s"], 0.5);
  EXPECT_EQ(sum["total_tok_s"], 3.5);
  EXPECT_EQ(sum["request_s"], 0.2);
  EXPECT_EQ(sum["ttft_s"]["median"], 1.0);
  EXPECT_EQ(sum["ttft_s"]["max"], 3.0);
  EXPECT_EQ(sum["tpot_s"]["max"], 1.0);  // of the first alone: 3 s for 3 tokens
  EXPECT_EQ(sum["tpot_s"]["mean"], 1.0);
  EXPECT_EQ(sum["latency_s"]["max"], 8.0);
  const Json none = Summarise({broken});
  EXPECT_TRUE(none["output_tok_s"].is_null());
  EXPECT_TRUE(none["ttft_s"]["median"].is_null());
}

TEST(Url, OnlyThisMachine) {
  const auto target = ParseUrl("http://127.0.0.1:8080");
  ASSERT_TRUE(target);
  EXPECT_EQ(target->address, "127.0.0.1");
  EXPECT_EQ(target->port, 8080);
  EXPECT_EQ(target->prefix, "");
  EXPECT_EQ(ParseUrl("http://localhost:1/v1/")->prefix, "");
  EXPECT_EQ(ParseUrl("http://localhost/a/v1")->prefix, "/a");
  EXPECT_EQ(ParseUrl("http://localhost")->port, 80);
  EXPECT_EQ(ParseUrl("http://[::1]:9")->address, "::1");
  EXPECT_EQ(ParseUrl("http://127.8.9.10:9")->address, "127.8.9.10");
  for (const char* url :
       {"http://10.0.0.1:8080", "http://example.com", "http://0.0.0.0:80", "http://[::]:80",
        "http://127.0.0.1.example.com", "http://localhost@10.0.0.1", "http://2130706433"}) {
    const auto refused = ParseUrl(url);
    ASSERT_FALSE(refused) << url;
    EXPECT_THAT(refused.error().message, HasSubstr("loopback")) << url;
  }
  for (const char* url : {"", "127.0.0.1:80", "https://127.0.0.1", "http://127.0.0.1:0",
                          "http://127.0.0.1:65536", "http://127.0.0.1:8x", "http://127.0.0.1:",
                          "http://[::1", "http://[::1]80", "http://localhost/v1?x"})
    EXPECT_FALSE(ParseUrl(url)) << url;
}

TEST(Requests, AreFixedBySeedAndIndex) {
  LoadOptions options;
  options.model = "m";
  options.input_tokens = 50;
  options.shared_prefix = 20;
  options.vocab = 100;
  const Json body = RequestBody(options, 3);
  EXPECT_EQ(body, RequestBody(options, 3));
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
  EXPECT_EQ(body["max_tokens"], 64);
  std::set<std::string> tails;
  for (int index = -3; index < 20; ++index) {
    const auto prompt = RequestBody(options, index)["prompt"].get<std::vector<int>>();
    ASSERT_EQ(prompt.size(), 50u);
    for (size_t i = 0; i < prompt.size(); ++i) {
      EXPECT_TRUE(prompt[i] >= 0 && prompt[i] < 100);
      if (i < 20) {
        EXPECT_EQ(prompt[i], body["prompt"][i]);
      }
    }
    tails.insert(DumpJson(Json(std::vector<int>(prompt.begin() + 20, prompt.end()))));
  }
  EXPECT_EQ(tails.size(), 23u);
  options.seed = 2;
  EXPECT_NE(body, RequestBody(options, 3));
  options.api = Api::kChat;
  EXPECT_FALSE(RequestBody(options, 0).contains("prompt"));
  EXPECT_EQ(RequestBody(options, 0)["messages"][0]["role"], "user");
}

TEST(Arrivals, ComeAtTheRateOnAverage) {
  LoadOptions options;
  options.requests = 4000;
  options.rate = 8;
  const auto arrivals = Arrivals(options);
  ASSERT_EQ(arrivals.size(), 4000u);
  EXPECT_EQ(arrivals[0], 0);
  EXPECT_TRUE(std::ranges::is_sorted(arrivals));
  EXPECT_NEAR(arrivals.back(), 3999 / 8.0, 30);  // standard deviation: sqrt(4000) / 8 = 8
  // Exponential: of gaps, 1 - 1/e are shorter than the mean.
  int shorter = 0;
  for (size_t i = 1; i < arrivals.size(); ++i) shorter += arrivals[i] - arrivals[i - 1] < 1 / 8.0;
  EXPECT_NEAR(shorter / 3999.0, 0.632, 0.03);
  EXPECT_EQ(arrivals, Arrivals(options));
}

// Answers every request, each on a thread of its own, with the bytes it was given.
class TestServer {
 public:
  explicit TestServer(std::vector<std::string> answers, bool hang = false)
      : answers_(std::move(answers)), hang_(hang), thread_([this] { Serve(); }) {}
  ~TestServer() {
    stop_ = true;
    tcp::socket wake(context_);
    boost::system::error_code ignored;
    wake.connect(acceptor_.local_endpoint(), ignored);
    thread_.join();
    for (std::thread& worker : workers_) worker.join();
  }
  LoadOptions Options() const {
    LoadOptions options;
    options.target =
        *ParseUrl("http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port()));
    options.model = "m";
    options.requests = 5;
    options.concurrency = 2;
    options.timeout = std::chrono::seconds(20);
    return options;
  }
  int most_at_once() const { return most_; }
  int count() const { return count_; }

 private:
  void Serve() {
    while (true) {
      auto socket = std::make_shared<tcp::socket>(context_);
      acceptor_.accept(*socket);
      if (stop_) return;
      const size_t index = static_cast<size_t>(count_++);
      workers_.emplace_back([this, socket, index] { Answer(*socket, index); });
    }
  }
  void Answer(tcp::socket& socket, size_t index) {
    const int open = ++open_;
    for (int most = most_; most < open && !most_.compare_exchange_weak(most, open);) {
    }
    boost::system::error_code ignored;
    boost::asio::streambuf request;
    boost::asio::read_until(socket, request, "]}", ignored);  // the prompt ends it
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (hang_) boost::asio::read_until(socket, request, "never", ignored);
    const std::string& answer = answers_[std::min(index, answers_.size() - 1)];
    // In pieces that cut lines and chunks anywhere.
    for (size_t at = 0; at < answer.size() && !hang_; at += 23) {
      if (at + 23 >= answer.size()) --open_;  // before the client can know that it is answered
      boost::asio::write(socket, boost::asio::buffer(answer.substr(at, 23)), ignored);
    }
    socket.shutdown(tcp::socket::shutdown_both, ignored);
    socket.close(ignored);
  }

  const std::vector<std::string> answers_;
  const bool hang_;
  boost::asio::io_context context_;
  tcp::acceptor acceptor_{context_, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0)};
  std::atomic<int> open_{0}, most_{0}, count_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
  std::thread thread_;
};

std::string Chunked(const std::vector<std::string>& events) {
  std::string body =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
      "chunked\r\n\r\n";
  for (const std::string& event : events) {
    const std::string data = "data: " + event + "\n\n";
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", data.size());
    body += size + data + "\r\n";
  }
  return body + "0\r\n\r\n";
}

const std::vector<std::string> kGood = {
    R"({"choices":[{"text":"a","finish_reason":null}]})",
    R"({"choices":[{"text":"","finish_reason":null}]})",
    R"({"choices":[{"text":"bc","finish_reason":null}]})",
    R"({"choices":[{"text":"","finish_reason":"length"}]})",
    R"({"choices":[],"usage":{"prompt_tokens":128,"completion_tokens":4,)"
    R"("prompt_tokens_details":{"cached_tokens":16}}})",
    "[DONE]"};

TEST(Load, CountsWhatTheServerSays) {
  TestServer server({Chunked(kGood)});
  LoadOptions options = server.Options();
  options.warmup = 3;
  const auto outcomes = RunLoad(options);
  ASSERT_EQ(outcomes.size(), 5u);
  for (const Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.error, "");
    EXPECT_EQ(outcome.prompt_tokens, 128);
    EXPECT_EQ(outcome.cached_tokens, 16);
    EXPECT_EQ(outcome.output_tokens, 4);
    EXPECT_EQ(outcome.gaps_s.size(), 2u);  // the last event only ends
    EXPECT_GE(outcome.TimeToFirstToken(), 0.015);
    EXPECT_LE(outcome.first_token_s, outcome.last_token_s);
    EXPECT_LE(outcome.last_token_s, outcome.end_s);
  }
  EXPECT_EQ(server.count(), 8);
  EXPECT_EQ(server.most_at_once(), 2);
}

TEST(Load, CountsPiecesOfAServerThatDoesNot) {
  std::vector<std::string> events = kGood;
  events.erase(events.begin() + 4);
  TestServer server({Chunked(events)});
  for (const Outcome& outcome : RunLoad(server.Options())) {
    EXPECT_EQ(outcome.error, "");
    EXPECT_EQ(outcome.output_tokens, 3);
  }
}

TEST(Load, ArrivesWhateverIsRunning) {
  TestServer server({Chunked(kGood)});
  LoadOptions options = server.Options();
  options.requests = 8;
  options.rate = 2000;  // all of them within the 20 ms of the first answer
  for (const Outcome& outcome : RunLoad(options)) EXPECT_EQ(outcome.error, "");
  EXPECT_GT(server.most_at_once(), 2);
}

TEST(Load, SaysWhatWentWrong) {
  const std::string refused = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nfull";
  const std::string whole = Chunked(kGood);
  TestServer server({refused, whole.substr(0, whole.size() / 2),
                     Chunked({R"({"error":{"message":"out of luck"}})"}),
                     Chunked({kGood[0], kGood[3]}), Chunked({"[DONE]"}), Chunked({"{"}), whole});
  LoadOptions options = server.Options();
  options.concurrency = 1;
  options.requests = 7;
  const auto outcomes = RunLoad(options);
  ASSERT_EQ(outcomes.size(), 7u);
  EXPECT_EQ(outcomes[0].error, "HTTP 429: full");
  EXPECT_EQ(outcomes[0].status, 429);
  EXPECT_THAT(outcomes[1].error, HasSubstr("broke off"));
  EXPECT_THAT(outcomes[2].error, HasSubstr("out of luck"));
  EXPECT_THAT(outcomes[3].error, HasSubstr("[DONE]"));
  EXPECT_THAT(outcomes[4].error, HasSubstr("no events"));
  EXPECT_THAT(outcomes[5].error, HasSubstr("JSON"));
  EXPECT_EQ(outcomes[6].error, "");
}

TEST(Load, NobodyThere) {
  LoadOptions options;
  {
    TestServer server({""});
    options = server.Options();
  }
  for (const Outcome& outcome : RunLoad(options))
    EXPECT_THAT(outcome.error, HasSubstr("cannot connect"));
}

TEST(Load, StopsAtTheTimeLimit) {
  std::vector<Outcome> outcomes;
  TestServer server({""}, true);
  LoadOptions options = server.Options();
  options.timeout = std::chrono::milliseconds(150);
  const auto start = std::chrono::steady_clock::now();
  outcomes = RunLoad(options);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  ASSERT_EQ(outcomes.size(), 5u);
  for (const Outcome& outcome : outcomes) EXPECT_THAT(outcome.error, HasSubstr("time limit"));
}

}  // namespace
}  // namespace millpower::bench
