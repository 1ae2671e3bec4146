// A ledger's file in a folder of its own, and records to put into it. For tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ledger/audit.h"
#include "ledger/key_secret.h"
#include "ledger/money.h"
#include "ledger/records.h"
#include "ledger/sqlite_store.h"

namespace millpower::ledger {

class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(std::filesystem::temp_directory_path() / NewRecordId("millpower_ledger_")) {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Prices 20 to 22, of input, cached and output tokens of every model: 0.50, 0.05 and 2.00 for a
// million. 30: a share-hour.
inline constexpr Micros kRates[] = {500'000, 50'000, 2'000'000};
inline constexpr Number kFirstPrice = 20, kLeasePrice = 30;
inline constexpr int64_t kDay = 86400;
inline constexpr int64_t kStart = 20'000 * kDay;  // 2024-10-04

// Tenants 1 and 2, with a project (11, 12) and a key (101, 102) each, and the prices.
inline std::vector<Record> FirstRecords() {
  std::vector<Record> records;
  for (const Number number : {1, 2}) {
    const std::string digit = std::to_string(number);
    records.emplace_back(Tenant{.number = number,
                                .id = "ten_" + digit,
                                .name = "Tenant " + digit,
                                .created_at = kStart,
                                .bounds = {}});
    records.emplace_back(Project{.number = 10 + number,
                                 .id = "proj_" + digit,
                                 .name = "default",
                                 .tenant = number,
                                 .created_at = kStart,
                                 .bounds = {}});
    records.emplace_back(Key{.number = 100 + number,
                             .id = "key_" + digit,
                             .name = "key",
                             .tenant = number,
                             .project = 10 + number,
                             .prefix = "prefix0" + digit,
                             .hash = std::string(32, static_cast<char>(number)),
                             .created_at = kStart,
                             .models = {},
                             .endpoints = {},
                             .bounds = {}});
  }
  for (const Unit unit : {Unit::kInputToken, Unit::kCachedToken, Unit::kOutputToken}) {
    records.emplace_back(Price{.number = kFirstPrice + static_cast<Number>(unit),
                               .model = "*",
                               .tier = Tier::kOnDemand,
                               .unit = unit,
                               .rate = kRates[static_cast<size_t>(unit)],
                               .effective_at = kStart,
                               .created_at = kStart});
  }
  records.emplace_back(Price{.number = kLeasePrice,
                             .model = "*",
                             .tier = Tier::kLease,
                             .unit = Unit::kShareHour,
                             .rate = 4'000'000,
                             .effective_at = kStart,
                             .created_at = kStart});
  return records;
}

inline Hold MakeHold(const std::string& request_id, Number tenant, Micros amount,
                     int64_t at = kStart) {
  return {.request_id = request_id,
          .tenant = tenant,
          .project = 10 + tenant,
          .key = 100 + tenant,
          .model = "qwen3",
          .endpoint = "chat",
          .tier = Tier::kOnDemand,
          .admitted_at = at,
          .amount = amount,
          .tokens = 100};
}

// What `hold` used of input, cached and output tokens, at the prices above.
inline Usage MakeUsage(const Hold& hold, int64_t input, int64_t cached, int64_t output) {
  Usage usage{.request_id = hold.request_id,
              .api_request_id = "api-" + hold.request_id,
              .tenant = hold.tenant,
              .project = hold.project,
              .key = hold.key,
              .model = hold.model,
              .endpoint = hold.endpoint,
              .tier = hold.tier,
              .admitted_at = hold.admitted_at,
              .posted_at = hold.admitted_at + 1,
              .quantities = {input, cached, output},
              .lines = {},
              .reason = "stop",
              .energy_uj = 7,
              .co2e_ug = 3,
              .energy_origin = Origin::kModelled};
  for (size_t unit = 0; unit < std::size(kRates); ++unit) {
    const int64_t quantity = usage.quantities[unit];
    if (quantity == 0) continue;
    const Micros amount = CostOf(quantity, kRates[unit]);
    usage.lines.push_back({.unit = static_cast<Unit>(unit),
                           .quantity = quantity,
                           .price = kFirstPrice + static_cast<Number>(unit),
                           .amount = amount});
    usage.amount += amount;
  }
  return usage;
}

inline HoldClosed Posted(const Hold& hold, int64_t input, int64_t cached, int64_t output) {
  return {hold, MakeUsage(hold, input, cached, output), hold.admitted_at + 1};
}
inline HoldClosed Voided(const Hold& hold) { return {hold, std::nullopt, hold.admitted_at + 1}; }

// Entries that follow `last`.
inline AuditEntry NextAudit(const AuditEntry& last, const std::string& action) {
  AuditEntry entry{.number = last.number + 1,
                   .at = kStart,
                   .actor = "admin",
                   .action = action,
                   .subject = "ten_1",
                   .details = "{}",
                   .hash = ""};
  entry.hash = AuditHash(last.hash, entry);
  return entry;
}

inline bool AllLive(const std::string&) { return true; }
inline bool NoneLive(const std::string&) { return false; }

}  // namespace millpower::ledger
