#include "serve/cors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/exchange.h"
#include "serve/server.h"
#include "serve/test_client.h"

namespace millpower::serve {
namespace {

using testing::HasSubstr;

const std::vector<std::string> kOne = {"https://a.example", "http://localhost:3000"};

TEST(Cors, KnowsWhatAnOriginIs) {
  for (const char* good : {"*", "https://a.example", "http://localhost:3000", "http://[::1]:80"})
    EXPECT_TRUE(CheckOrigin(good)) << good;
  for (const char* bad : {"", "a.example", "https://", "https://a.example/", "https://A.example",
                          "null", "ftp://a", "https://a b", "https://a\r\nx: y"}) {
    const auto checked = CheckOrigin(bad);
    ASSERT_FALSE(checked) << bad;
    EXPECT_EQ(checked.error().param, "cors-origin");
  }
}

TEST(Cors, SaysNothingUnlessAsked) {
  EXPECT_EQ(CorsHeaders({}, "https://a.example", nullptr), "");
  const std::string asked = "authorization";
  EXPECT_EQ(CorsHeaders({}, "https://a.example", &asked), "");
}

TEST(Cors, NamesTheOriginThatMay) {
  const std::string headers = CorsHeaders(kOne, "http://localhost:3000", nullptr);
  EXPECT_THAT(headers, HasSubstr("access-control-allow-origin: http://localhost:3000\r\n"));
  EXPECT_THAT(headers,
              HasSubstr("access-control-expose-headers: x-request-id, retry-after, x-ratelimit-"));
  EXPECT_THAT(headers, HasSubstr("vary: origin\r\n"));
  // Others, and requests of no page, learn nothing; caches still keep them apart.
  for (const char* other :
       {"", "null", "https://a.example.org", "https://a.exampl", "https://a.example:81", "*"})
    EXPECT_EQ(CorsHeaders(kOne, other, nullptr), "vary: origin\r\n") << other;
  EXPECT_EQ(CorsHeaders({"*"}, "https://x", nullptr),
            "access-control-allow-origin: *\r\n"
            "access-control-expose-headers: x-request-id, retry-after, "
            "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
            "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
            "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens\r\n");
}

TEST(Cors, RepeatsOnlyHeadersThatAreNames) {
  const std::string good = "authorization, x-stainless-lang";
  EXPECT_THAT(CorsHeaders({"*"}, "https://x", &good),
              HasSubstr("access-control-allow-headers: authorization, x-stainless-lang\r\n"));
  for (const std::string& bad : {std::string("a\r\nset-cookie: x"), std::string("a;b"),
                                 std::string(3000, 'a'), std::string("")})
    EXPECT_THAT(CorsHeaders({"*"}, "https://x", &bad),
                testing::Not(HasSubstr("access-control-allow-headers")))
        << bad;
}

TEST(Cors, IsOnEveryAnswer) {
  HttpServer server(
      {.port = 0, .cors_origins = kOne, .limits = {.body_bytes_max = 10}},
      [](const auto& exchange) { exchange->Reply({.status = 204, .body = ""}); },
      [](const Exchange&, auto) {});
  ASSERT_TRUE(server.Start());
  const auto ask = [&](const std::string& head) {
    TestClient client(server.port());
    client.Send(head + "Host: h\r\n\r\n");
    return client.Read(true).value();
  };
  TestResponse response = ask(
      "OPTIONS /v1/models HTTP/1.1\r\nOrigin: https://a.example\r\n"
      "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n");
  EXPECT_EQ(response.status, 204);
  EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://a.example");
  EXPECT_EQ(response.headers.at("access-control-allow-headers"), "content-type");
  // An answer that no handler made.
  response = ask("POST / HTTP/1.1\r\nOrigin: https://a.example\r\nContent-Length: 11\r\n");
  EXPECT_EQ(response.status, 413);
  EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://a.example");
  response = ask("GET / HTTP/1.1\r\nOrigin: https://b.example\r\n");
  EXPECT_FALSE(response.headers.contains("access-control-allow-origin"));
  EXPECT_EQ(response.headers.at("vary"), "origin");
}

}  // namespace
}  // namespace millpower::serve
