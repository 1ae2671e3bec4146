#include "serve/rate_limiter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace millpower::serve {
namespace {

using testing::HasSubstr;

constexpr int64_t kSecondNs = 1'000'000'000;

class StoppedClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns; }
  int64_t UnixSeconds() const override { return now_ns / kSecondNs; }
  int64_t now_ns = 77 * kSecondNs;
};

// One tenant with a project and keys of it.
class RateLimiterTest : public testing::Test {
 protected:
  std::shared_ptr<const Caller> Make(ledger::RateLimits key, ledger::RateLimits project = {},
                                     ledger::RateLimits tenant = {}, ledger::Number number = 3) {
    tenants_.push_back(std::make_unique<ledger::Tenant>());
    projects_.push_back(std::make_unique<ledger::Project>());
    keys_.push_back(std::make_unique<ledger::Key>());
    tenants_.back()->number = 1;
    tenants_.back()->bounds.limits = tenant;
    projects_.back()->number = 2;
    projects_.back()->bounds.limits = project;
    keys_.back()->number = number;
    keys_.back()->bounds.limits = key;
    auto caller = std::make_shared<Caller>();
    caller->tenant = tenants_.back().get();
    caller->project = projects_.back().get();
    caller->key = keys_.back().get();
    return caller;
  }
  Result<RateLimiter::Admission> Admit(const std::shared_ptr<const Caller>& caller) {
    refused_.clear();
    return limiter_.Admit(caller, retry_after_s_, refused_);
  }
  static std::map<std::string, std::string> Map(const Headers& headers) {
    return {headers.begin(), headers.end()};
  }

  std::vector<std::unique_ptr<ledger::Tenant>> tenants_;
  std::vector<std::unique_ptr<ledger::Project>> projects_;
  std::vector<std::unique_ptr<ledger::Key>> keys_;
  StoppedClock clock_;
  RateLimiter limiter_{clock_};
  int retry_after_s_ = 0;
  Headers refused_;
};

TEST(FormatReset, LooksAsOpenAiHasIt) {
  const std::pair<int64_t, const char*> cases[] = {
      {0, "0s"},
      {-5, "0s"},
      {1, "1ms"},
      {20'000'000, "20ms"},
      {999'000'001, "1s"},
      {kSecondNs, "1s"},
      {1'500'000'000, "1.5s"},
      {7'660'000'000, "7.66s"},
      {360 * kSecondNs, "6m0s"},
      {86'400'000'000, "1m26.4s"},
      {3'661 * kSecondNs, "1h1m1s"},
  };
  for (const auto& [duration_ns, text] : cases) EXPECT_EQ(FormatReset(duration_ns), text);
}

TEST(TokenBucket, IsRefilledContinuously) {
  TokenBucket bucket(0);
  EXPECT_EQ(bucket.Available(60, 0), 60);
  bucket.Take(60);
  EXPECT_EQ(bucket.Available(60, 0), 0);
  EXPECT_EQ(bucket.WaitNs(1, 60), kSecondNs);
  EXPECT_EQ(bucket.Available(60, kSecondNs - 1), 0);
  EXPECT_EQ(bucket.WaitNs(1, 60), 1);
  EXPECT_EQ(bucket.Available(60, kSecondNs), 1);
  EXPECT_EQ(bucket.Available(60, 10 * kSecondNs), 10);
  EXPECT_EQ(bucket.Available(60, 1000 * kSecondNs), 60);  // never more
  bucket.Return(5);
  EXPECT_EQ(bucket.Available(60, 1000 * kSecondNs), 60);
  bucket.Return(-90);  // it took more than there was
  EXPECT_EQ(bucket.Available(60, 1000 * kSecondNs), -30);
  EXPECT_EQ(bucket.WaitNs(1, 60), 31 * kSecondNs);
  // A clock that goes back gives nothing and takes nothing.
  EXPECT_EQ(bucket.Available(60, 0), -30);
}

TEST(TokenBucket, TakesAnyLimit) {
  TokenBucket bucket(0);
  EXPECT_EQ(bucket.Available(INT64_MAX, INT64_MAX), INT64_MAX);
  bucket.Take(INT64_MAX);
  EXPECT_EQ(bucket.Available(INT64_MAX, INT64_MAX), 0);
}

// Over any time no more passes than a minute's worth at once and what flows in.
TEST(TokenBucket, NeverGivesMoreThanFlowsIn) {
  uint64_t state = 42;
  const auto random = [&](uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int64_t>((state >> 33) % below);
  };
  for (const int64_t limit : {1, 7, 60, 1'000'003}) {
    TokenBucket bucket(0);
    int64_t now_ns = 0, given = 0;
    for (int i = 0; i < 10'000; ++i) {
      now_ns += random(50'000'000);
      const int64_t wanted = 1 + random(static_cast<uint64_t>(limit) / 100 + 3);
      if (bucket.Available(limit, now_ns) < wanted) continue;
      bucket.Take(wanted);
      given += wanted;
    }
    const __int128 most = __int128{limit} + __int128{limit} * now_ns / (60 * __int128{kSecondNs});
    EXPECT_LE(given, static_cast<int64_t>(most)) << limit;
    EXPECT_GE(given, static_cast<int64_t>(most) - limit) << limit;
  }
}

TEST_F(RateLimiterTest, LetsThroughWhatTheMinuteHas) {
  const auto caller = Make({.requests_per_minute = 2});
  EXPECT_EQ(Map(Admit(caller)->headers()),
            (std::map<std::string, std::string>{{"x-ratelimit-limit-requests", "2"},
                                                {"x-ratelimit-remaining-requests", "1"},
                                                {"x-ratelimit-reset-requests", "30s"}}));
  EXPECT_TRUE(Admit(caller));
  const auto refused = Admit(caller);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kRateLimited);
  EXPECT_THAT(refused.error().message, HasSubstr("2 requests a minute"));
  EXPECT_EQ(retry_after_s_, 30);
  EXPECT_EQ(Map(refused_)["x-ratelimit-remaining-requests"], "0");
  EXPECT_EQ(Map(refused_)["x-ratelimit-reset-requests"], "1m0s");
  clock_.now_ns += 29 * kSecondNs + 1;
  EXPECT_FALSE(Admit(caller));
  EXPECT_EQ(retry_after_s_, 1);
  clock_.now_ns += kSecondNs - 1;
  EXPECT_TRUE(Admit(caller));
}

TEST_F(RateLimiterTest, HoldsAllThreeLevels) {
  // Two keys of one project: the project's limit is for both.
  const auto one = Make({}, {.requests_per_minute = 2}, {.requests_per_minute = 100}, 3);
  const auto two = Make({}, {.requests_per_minute = 2}, {.requests_per_minute = 100}, 4);
  EXPECT_EQ(Map(Admit(one)->headers())["x-ratelimit-limit-requests"], "2");  // the tightest
  EXPECT_TRUE(Admit(two));
  const auto refused = Admit(one);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("the project"));
  // What was refused at one level is not counted at the others.
  const auto tenant = Make({}, {}, {.requests_per_minute = 100});
  EXPECT_EQ(Map(Admit(tenant)->headers())["x-ratelimit-remaining-requests"], "97");
}

TEST_F(RateLimiterTest, GivesPlacesBack) {
  const auto caller = Make({.concurrent_requests = 2});
  auto first = Admit(caller);
  auto second = Admit(caller);
  ASSERT_TRUE(first && second);
  EXPECT_TRUE(first->headers().empty());
  EXPECT_FALSE(Admit(caller));
  first->Release();
  first->Release();  // once
  {
    auto third = Admit(caller);
    ASSERT_TRUE(third);
    const RateLimiter::Admission moved = std::move(*third);
    EXPECT_FALSE(Admit(caller));
  }
  EXPECT_TRUE(Admit(caller));
}

TEST_F(RateLimiterTest, CorrectsTokensToWhatWasUsed) {
  const auto caller = Make({.tokens_per_minute = 600});
  auto first = Admit(caller);
  ASSERT_TRUE(first->TakeTokens(100, retry_after_s_));
  EXPECT_EQ(Map(first->headers())["x-ratelimit-remaining-tokens"], "500");
  first->CorrectTokens(40);
  EXPECT_EQ(Map(first->headers())["x-ratelimit-remaining-tokens"], "560");
  first->CorrectTokens(700);  // it ran on for long
  EXPECT_EQ(Map(first->headers())["x-ratelimit-remaining-tokens"], "0");
  auto second = Admit(caller);
  const auto refused = second->TakeTokens(10, retry_after_s_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kRateLimited);
  EXPECT_EQ(retry_after_s_, 11);  // a debt of 100, and 10
  clock_.now_ns += 11 * kSecondNs;
  EXPECT_TRUE(second->TakeTokens(10, retry_after_s_));
}

TEST_F(RateLimiterTest, SaysWhenARequestNeverFits) {
  auto admission = Admit(Make({.tokens_per_minute = 50}));
  const auto refused = admission->TakeTokens(51, retry_after_s_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("51 tokens at once"));
  EXPECT_TRUE(admission->TakeTokens(50, retry_after_s_));
}

TEST_F(RateLimiterTest, LeavesBatchesAndOpenServersAlone) {
  auto batch = std::make_shared<Caller>(*Make({.requests_per_minute = 1}));
  batch->is_batch = true;
  for (int i = 0; i < 3; ++i) {
    auto admission = Admit(batch);
    ASSERT_TRUE(admission);
    EXPECT_TRUE(admission->TakeTokens(1000, retry_after_s_));
    EXPECT_TRUE(admission->headers().empty());
    EXPECT_TRUE(Admit(nullptr));
  }
}

}  // namespace
}  // namespace millpower::serve
