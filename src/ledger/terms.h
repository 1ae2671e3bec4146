// What tenants, projects, keys, prices and leases may look like. Errors: kInvalidArgument, with the
// field as param.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ledger/records.h"

namespace millpower::ledger {

// 1 to 100 characters of UTF-8 that can be seen, or single spaces between them.
Result<void> CheckName(std::string_view name, std::string_view field = "name");

// No two caps of one period and measure; nothing negative, nor above kMaxMicros.
Result<void> CheckBounds(const Bounds& bounds);

// Each at most 100 different names; endpoints are of kEndpoints.
Result<void> CheckScopes(const std::vector<std::string>& models,
                         const std::vector<std::string>& endpoints);
inline constexpr std::string_view kEndpoints[] = {"chat",  "completions", "tokenize", "batches",
                                                  "files", "usage",       "models",   "inference"};

// `now`: it can't have been in effect before.
Result<void> CheckPrice(const Price& price, int64_t now);

// Of a share of the device, for at most five years from `now` on.
Result<void> CheckLease(const Lease& lease, int64_t now);
// Whether the shares of leases that are not cancelled leave `lease` room at each moment of it.
// Errors: kNoCapacity.
Result<void> CheckShares(const std::vector<Lease>& leases, const Lease& lease);

// What a share costs for some time, in quanta of kShareHour: rounded up.
int64_t ShareHours(int64_t share_ppm, int64_t seconds);

}  // namespace millpower::ledger
