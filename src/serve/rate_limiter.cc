#include "serve/rate_limiter.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/check.h"

namespace millpower::serve {
namespace {

constexpr int64_t kMinuteNs = 60'000'000'000;
constexpr int64_t kSecondNs = 1'000'000'000;
// A request that waits for a place: nobody knows how long.
constexpr int kPlaceRetryAfterSeconds = 1;

int ToSeconds(int64_t wait_ns) {
  return static_cast<int>(std::clamp<int64_t>((wait_ns + kSecondNs - 1) / kSecondNs, 1, 3600));
}

}  // namespace

int64_t TokenBucket::Available(int64_t limit, int64_t now_ns) {
  const Parts flown = Parts{std::max<int64_t>(now_ns - refilled_ns_, 0)} * limit;
  // A debt stays, and what is in it never is more than a minute's worth.
  missing_ = std::max<Parts>(missing_ - flown, 0);
  refilled_ns_ = std::max(refilled_ns_, now_ns);
  const Parts available = Parts{limit} * kMinuteNs - missing_;
  // Rounded down.
  const Parts whole = available / kMinuteNs - (available % kMinuteNs < 0 ? 1 : 0);
  return static_cast<int64_t>(std::clamp<Parts>(whole, INT64_MIN, INT64_MAX));
}

void TokenBucket::Take(int64_t count) { missing_ += Parts{count} * kMinuteNs; }

void TokenBucket::Return(int64_t count) {
  missing_ = std::max<Parts>(missing_ - Parts{count} * kMinuteNs, 0);
}

int64_t TokenBucket::WaitNs(int64_t count, int64_t limit) const {
  const Parts room = Parts{limit - std::min(count, limit)} * kMinuteNs;
  const Parts wait = (missing_ - room + limit - 1) / limit;
  return static_cast<int64_t>(std::clamp<Parts>(wait, 0, INT64_MAX));
}

std::string FormatReset(int64_t duration_ns) {
  constexpr int64_t kMs = 1'000'000;
  const int64_t ms = std::max<int64_t>(duration_ns, 0) / kMs + (duration_ns % kMs > 0 ? 1 : 0);
  if (ms > 0 && ms < 1000) return fmt::format("{}ms", ms);
  const int64_t hours = ms / 3'600'000, minutes = ms / 60'000 % 60;
  std::string seconds = fmt::format("{}", ms / 1000 % 60);
  if (ms % 1000 != 0) {
    seconds += fmt::format(".{:03}", ms % 1000);
    seconds.erase(seconds.find_last_not_of('0') + 1);
  }
  if (hours > 0) return fmt::format("{}h{}m{}s", hours, minutes, seconds);
  return minutes > 0 ? fmt::format("{}m{}s", minutes, seconds) : seconds + "s";
}

std::vector<RateLimiter::Level> RateLimiter::LevelsLocked(const Caller& caller) {
  const int64_t now_ns = clock_.NowNs();
  std::vector<Level> levels;
  const auto add = [&](const char* name, ledger::Number number, const ledger::Bounds& bounds) {
    const std::pair id(static_cast<int>(levels.size()), number);
    levels.push_back({name, &bounds.limits, &buckets_.try_emplace(id, now_ns).first->second});
  };
  add("key", ledger::RootOf(*caller.key), caller.key->bounds);
  add("project", caller.project->number, caller.project->bounds);
  add("tenant", caller.tenant->number, caller.tenant->bounds);
  return levels;
}

Headers RateLimiter::HeadersLocked(const std::vector<Level>& levels) {
  Headers headers;
  const int64_t now_ns = clock_.NowNs();
  const auto add = [&](const char* what, int64_t ledger::RateLimits::* field,
                       TokenBucket Bucket::* bucket) {
    const Level* tightest = nullptr;
    int64_t remaining = 0;
    for (const Level& level : levels) {
      const int64_t limit = level.limits->*field;
      if (limit == 0) continue;
      const int64_t available =
          std::max<int64_t>((level.bucket->*bucket).Available(limit, now_ns), 0);
      if (tightest != nullptr && available >= remaining) continue;
      tightest = &level;
      remaining = available;
    }
    if (tightest == nullptr) return;
    const int64_t limit = tightest->limits->*field;
    const auto name = [&](const char* which) {
      return fmt::format("x-ratelimit-{}-{}", which, what);
    };
    headers.emplace_back(name("limit"), std::to_string(limit));
    headers.emplace_back(name("remaining"), std::to_string(remaining));
    headers.emplace_back(name("reset"),
                         FormatReset((tightest->bucket->*bucket).WaitNs(limit, limit)));
  };
  add("requests", &ledger::RateLimits::requests_per_minute, &Bucket::requests);
  add("tokens", &ledger::RateLimits::tokens_per_minute, &Bucket::tokens);
  return headers;
}

Result<RateLimiter::Admission> RateLimiter::Admit(std::shared_ptr<const Caller> caller,
                                                  int& retry_after_s, Headers& headers) {
  Admission admission;
  if (caller == nullptr || caller->is_batch) return admission;
  std::lock_guard lock(mutex_);
  const std::vector<Level> levels = LevelsLocked(*caller);
  const int64_t now_ns = clock_.NowNs();
  const auto refuse = [&](int seconds, std::string message) {
    retry_after_s = seconds;
    headers = HeadersLocked(levels);
    return Fail(ErrorCode::kRateLimited, std::move(message));
  };
  for (const Level& level : levels) {
    const int64_t places = level.limits->concurrent_requests;
    if (places > 0 && level.bucket->concurrent >= places)
      return refuse(kPlaceRetryAfterSeconds,
                    fmt::format("the {} has {} requests under way, as many as it may at a time",
                                level.name, places));
  }
  int64_t wait_ns = 0;
  const Level* full = nullptr;
  for (const Level& level : levels) {
    const int64_t limit = level.limits->requests_per_minute;
    if (limit == 0 || level.bucket->requests.Available(limit, now_ns) >= 1) continue;
    const int64_t level_wait_ns = level.bucket->requests.WaitNs(1, limit);
    if (level_wait_ns < wait_ns) continue;
    wait_ns = level_wait_ns;
    full = &level;
  }
  if (full != nullptr)
    return refuse(ToSeconds(wait_ns),
                  fmt::format("the {} may make {} requests a minute; come again in {}", full->name,
                              full->limits->requests_per_minute, FormatReset(wait_ns)));
  for (const Level& level : levels) {
    if (level.limits->requests_per_minute > 0) level.bucket->requests.Take(1);
    ++level.bucket->concurrent;
  }
  admission.limiter_ = this;
  admission.caller_ = std::move(caller);
  return admission;
}

RateLimiter::Admission::Admission(Admission&& other) noexcept { *this = std::move(other); }

RateLimiter::Admission& RateLimiter::Admission::operator=(Admission&& other) noexcept {
  Release();
  limiter_ = std::exchange(other.limiter_, nullptr);
  caller_ = std::move(other.caller_);
  tokens_ = other.tokens_;
  return *this;
}

Result<void> RateLimiter::Admission::TakeTokens(int64_t count, int& retry_after_s) {
  if (limiter_ == nullptr) return {};
  std::lock_guard lock(limiter_->mutex_);
  const std::vector<Level> levels = limiter_->LevelsLocked(*caller_);
  const int64_t now_ns = limiter_->clock_.NowNs();
  int64_t wait_ns = 0;
  const Level* full = nullptr;
  for (const Level& level : levels) {
    const int64_t limit = level.limits->tokens_per_minute;
    if (limit == 0 || level.bucket->tokens.Available(limit, now_ns) >= count) continue;
    const int64_t level_wait_ns = level.bucket->tokens.WaitNs(count, limit);
    if (full != nullptr && level_wait_ns < wait_ns) continue;
    wait_ns = level_wait_ns;
    full = &level;
  }
  if (full != nullptr) {
    const int64_t limit = full->limits->tokens_per_minute;
    retry_after_s = ToSeconds(wait_ns);
    if (count > limit)
      return Fail(ErrorCode::kRateLimited,
                  fmt::format("the request takes {} tokens at once, and the {} may use {} a minute",
                              count, full->name, limit));
    return Fail(ErrorCode::kRateLimited,
                fmt::format("the {} may use {} tokens a minute, and the request takes {} at first; "
                            "come again in {}",
                            full->name, limit, count, FormatReset(wait_ns)));
  }
  for (const Level& level : levels)
    if (level.limits->tokens_per_minute > 0) level.bucket->tokens.Take(count);
  tokens_ = count;
  return {};
}

void RateLimiter::Admission::CorrectTokens(int64_t used) {
  if (limiter_ == nullptr) return;
  std::lock_guard lock(limiter_->mutex_);
  for (const Level& level : limiter_->LevelsLocked(*caller_))
    if (level.limits->tokens_per_minute > 0) level.bucket->tokens.Return(tokens_ - used);
  tokens_ = used;
}

void RateLimiter::Admission::Release() {
  if (limiter_ == nullptr) return;
  {
    std::lock_guard lock(limiter_->mutex_);
    for (const Level& level : limiter_->LevelsLocked(*caller_)) --level.bucket->concurrent;
  }
  limiter_ = nullptr;
  caller_ = nullptr;
}

Headers RateLimiter::Admission::headers() const {
  if (limiter_ == nullptr) return {};
  std::lock_guard lock(limiter_->mutex_);
  return limiter_->HeadersLocked(limiter_->LevelsLocked(*caller_));
}

}  // namespace millpower::serve
