// Requests and tokens per minute and requests at a time, of keys, projects and tenants.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "serve/caller.h"

namespace millpower::serve {

using Headers = std::vector<std::pair<std::string, std::string>>;

// How much may pass in a minute: a bucket that holds a minute's worth, is full at first and is
// refilled continuously. Whole numbers only: it counts in parts of a sixty-billionth, of which
// `limit` flow in every nanosecond. Not thread-safe.
class TokenBucket {
 public:
  explicit TokenBucket(int64_t now_ns) : refilled_ns_(now_ns) {}

  // What is in it at `now_ns`, with `limit` > 0 a minute; below zero when more was used than
  // reserved. A change of `limit` keeps the part that is missing.
  int64_t Available(int64_t limit, int64_t now_ns);
  void Take(int64_t count);    // after Available
  void Return(int64_t count);  // negative counts take
  // Until there are `count` (all of a minute's, if more), rounded up; 0 if there are now.
  int64_t WaitNs(int64_t count, int64_t limit) const;

 private:
  using Parts = __int128;
  Parts missing_ = 0;
  int64_t refilled_ns_;
};

// A time as OpenAI's headers have it: "20ms", "1s", "1.5s", "6m0s"; rounded up to a millisecond.
std::string FormatReset(int64_t duration_ns);

// Thread-safe.
class RateLimiter {
 public:
  // A request that was let in, until it is let go of. Move-only; outlived by the limiter.
  class Admission {
   public:
    Admission() = default;
    Admission(Admission&& other) noexcept;
    Admission& operator=(Admission&& other) noexcept;
    ~Admission() { Release(); }

    // Takes what it will use at first; a request that asks for nothing more than its count needs
    // none. Errors: kRateLimited, with the seconds to wait in `retry_after_s`.
    Result<void> TakeTokens(int64_t count, int& retry_after_s);
    // What it has used in the end, in place of what was taken.
    void CorrectTokens(int64_t used);
    // Its place is free for another. Idempotent.
    void Release();
    // x-ratelimit-..., of the level that is nearest to its limit; empty without limits.
    Headers headers() const;

   private:
    friend class RateLimiter;
    RateLimiter* limiter_ = nullptr;
    std::shared_ptr<const Caller> caller_;
    int64_t tokens_ = 0;
  };

  // `clock` outlives it.
  explicit RateLimiter(const Clock& clock) : clock_(clock) {}

  // Counts a request of `caller` and gives it a place, at all three levels or at none. A batch is
  // bound by its tenant's caps alone. Errors: kRateLimited, with the seconds to wait in
  // `retry_after_s` and the headers to send in `headers`.
  Result<Admission> Admit(std::shared_ptr<const Caller> caller, int& retry_after_s,
                          Headers& headers);

 private:
  struct Bucket {
    explicit Bucket(int64_t now_ns) : requests(now_ns), tokens(now_ns) {}
    TokenBucket requests, tokens;
    int64_t concurrent = 0;
  };
  struct Level {
    const char* name;  // "key"
    const ledger::RateLimits* limits;
    Bucket* bucket;
  };

  std::vector<Level> LevelsLocked(const Caller& caller);
  Headers HeadersLocked(const std::vector<Level>& levels);

  const Clock& clock_;
  std::mutex mutex_;
  // By level and number; never taken away, as keys and tenants are not.
  std::map<std::pair<int, ledger::Number>, Bucket> buckets_;
};

}  // namespace millpower::serve
