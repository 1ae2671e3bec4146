#include "ledger/terms.h"

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <set>

namespace millpower::ledger {
namespace {

constexpr int64_t kPpm = 1'000'000;
constexpr int kMaxNameCharacters = 100;
constexpr size_t kMaxScopes = 100;
constexpr int64_t kSecondsPerHour = 3600;
constexpr int64_t kMaxLeaseSeconds = int64_t{5} * 366 * 86'400;
// A lease that "starts now" takes a while to be typed.
constexpr int64_t kLeaseGraceSeconds = 60;

std::unexpected<Error> Invalid(std::string_view field, std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message), std::string(field));
}

Result<void> CheckScope(const std::vector<std::string>& names, std::string_view field) {
  if (names.size() > kMaxScopes)
    return Invalid(field, fmt::format("{} has more than {} names", field, kMaxScopes));
  std::set<std::string_view> seen;
  for (const std::string& name : names) {
    TRY(CheckName(name, field));
    if (!seen.insert(name).second)
      return Invalid(field, fmt::format("{} has '{}' twice", field, name));
  }
  return {};
}

}  // namespace

Result<void> CheckName(std::string_view name, std::string_view field) {
  const auto invalid = [&](const char* why) {
    return Invalid(field, fmt::format("{} {}", field, why));
  };
  if (name.empty()) return invalid("must not be empty");
  int characters = 0;
  UChar32 before = ' ';
  const auto length = static_cast<int32_t>(std::min<size_t>(name.size(), INT32_MAX));
  for (int32_t at = 0; at < length;) {
    UChar32 character;
    U8_NEXT(name.data(), at, length, character);
    if (character < 0) return invalid("must be UTF-8");
    if (++characters > kMaxNameCharacters) return invalid("must have at most 100 characters");
    if (character != ' ' && !u_isgraph(character))
      return invalid("must have only characters that can be seen");
    if (character == ' ' && before == ' ')
      return invalid("must not have spaces at its ends, nor two together");
    before = character;
  }
  if (before == ' ') return invalid("must not have spaces at its ends, nor two together");
  return {};
}

Result<void> CheckBounds(const Bounds& bounds) {
  for (size_t i = 0; i < bounds.caps.size(); ++i) {
    const Cap& cap = bounds.caps[i];
    if (cap.limit < 0 || cap.limit > kMaxMicros)
      return Invalid("caps",
                     fmt::format("the limit of a cap must be 0 to {}",
                                 cap.measure == Measure::kMoney ? FormatMoney(kMaxMicros)
                                                                : std::to_string(kMaxMicros)));
    for (size_t j = 0; j < i; ++j) {
      if (bounds.caps[j].period == cap.period && bounds.caps[j].measure == cap.measure)
        return Invalid("caps", "two caps are of one period and measure");
    }
  }
  const RateLimits& limits = bounds.limits;
  for (const int64_t limit :
       {limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests}) {
    if (limit < 0 || limit > kMaxMicros)
      return Invalid("limits", fmt::format("a limit must be 0 (none) to {}", kMaxMicros));
  }
  return {};
}

Result<void> CheckScopes(const std::vector<std::string>& models,
                         const std::vector<std::string>& endpoints) {
  TRY(CheckScope(models, "models"));
  TRY(CheckScope(endpoints, "endpoints"));
  for (const std::string& endpoint : endpoints) {
    if (std::ranges::find(kEndpoints, endpoint) == std::end(kEndpoints))
      return Invalid("endpoints", fmt::format("'{}' is no endpoint; there are {}", endpoint,
                                              fmt::join(kEndpoints, ", ")));
  }
  return {};
}

Result<void> CheckPrice(const Price& price, int64_t now) {
  TRY(CheckName(price.model, "model"));
  if (price.rate < 0 || price.rate > kMaxMicros)
    return Invalid("rate", fmt::format("rate must be 0 to {}", FormatMoney(kMaxMicros)));
  if (price.effective_at < now)
    return Invalid("effective_at", "a price can't take effect in the past: it was billed already");
  const bool is_share = price.unit == Unit::kShareHour;
  if (is_share && (price.model != "*" || price.tier != Tier::kLease))
    return Invalid("unit", "a share_hour is of all models (\"*\") and of tier lease");
  return {};
}

Result<void> CheckLease(const Lease& lease, int64_t now) {
  if (lease.share_ppm <= 0 || lease.share_ppm > kPpm)
    return Invalid("share", "share must be above 0 and at most 1");
  if (lease.starts_at < now - kLeaseGraceSeconds)
    return Invalid("starts_at", "a lease can't start in the past");
  if (lease.ends_at <= lease.starts_at)
    return Invalid("ends_at", "a lease must end after it starts");
  if (lease.ends_at - now > kMaxLeaseSeconds)
    return Invalid("ends_at", "a lease must end within five years");
  return {};
}

Result<void> CheckShares(const std::vector<Lease>& leases, const Lease& lease) {
  const auto share_at = [&](int64_t at) {
    int64_t share_ppm = 0;
    for (const Lease& other : leases) {
      if (other.cancelled_at == 0 && other.starts_at <= at && at < other.ends_at)
        share_ppm += other.share_ppm;
    }
    return share_ppm;
  };
  // The sum grows only where one starts.
  int64_t most_ppm = share_at(lease.starts_at);
  for (const Lease& other : leases) {
    if (other.starts_at > lease.starts_at && other.starts_at < lease.ends_at)
      most_ppm = std::max(most_ppm, share_at(other.starts_at));
  }
  if (most_ppm + lease.share_ppm > kPpm)
    return Fail(
        ErrorCode::kNoCapacity,
        fmt::format("{:.6g} of the device is leased in that time; {:.6g} is left, not {:.6g}",
                    static_cast<double>(most_ppm) / kPpm,
                    static_cast<double>(kPpm - most_ppm) / kPpm,
                    static_cast<double>(lease.share_ppm) / kPpm),
        "share");
  return {};
}

int64_t ShareHours(int64_t share_ppm, int64_t seconds) {
  // At most 1e6 * 1.6e8: far from an overflow.
  return (share_ppm * seconds + kSecondsPerHour - 1) / kSecondsPerHour;
}

}  // namespace millpower::ledger
