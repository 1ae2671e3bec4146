// Usage and invoices, as they are asked for and told.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "ledger/directory.h"
#include "ledger/records.h"

namespace millpower::ledger {

enum class GroupBy : uint8_t { kTenant, kProject, kKey, kModel, kDay, kTier };

struct UsageQuery {
  int64_t from = 0, to = INT64_MAX;         // posted_at in [from, to)
  Number tenant = 0, project = 0, key = 0;  // 0: all
  std::string model{};                      // "": all
  std::string request_id{};                 // of the engine or the API; "": all
  std::vector<GroupBy> group_by{};
};

struct UsageGroup {
  Number tenant = 0, project = 0, key = 0;  // those grouped by
  std::string model;
  Tier tier = Tier::kOnDemand;
  int64_t day = 0;
  int64_t requests = 0;  // usage rows
  Quantities quantities{};
  Micros amount = 0;
  int64_t energy_uj = 0, co2e_ug = 0;
  Origin energy_origin = Origin::kNone;  // kModelled if any of it is
};

struct UsageReport {
  std::vector<GroupBy> group_by;
  std::vector<UsageGroup> groups;  // ordered by what they are grouped by
};

// "tenant", "day": what the API and the columns call it.
const char* Name(GroupBy by);
std::optional<GroupBy> GroupByFromName(std::string_view name);

// A UTC day as "2026-11-30"; days since 1970.
std::string FormatDay(int64_t day);
// A quantity in its unit, exactly: "1200" tokens, "0.25" share-hours.
std::string FormatQuantity(Unit unit, int64_t quantity);

// Ids and names in place of numbers. JSON: {"object": "list", "currency", "group_by", "data": [{...
// "requests", "input_tokens", "cached_tokens", "output_tokens", "inferences", "candidates",
// "chip_seconds", "joules", "share_hours", "amount", "energy_j", "gco2e", "energy_source"}]}, where
// "..." is what it is grouped by: "tenant" and "tenant_name", "project" and "project_name", "key"
// and "key_name", "model", "day", "tier"; null where a lease has none. CSV (RFC 4180): a header,
// then a line each; text that a spreadsheet would take for a formula begins with an apostrophe.
Json UsageJson(const UsageReport& report, const Directory& directory);
std::string UsageCsv(const UsageReport& report, const Directory& directory);

// One line of an invoice: one price version's work.
struct InvoiceLine {
  Number project = 0;
  std::string model;
  Tier tier = Tier::kOnDemand;
  Unit unit = Unit::kInputToken;
  Number price = 0;
  Micros rate = 0;
  int64_t quantity = 0;
  Micros amount = 0;
  int64_t requests = 0;
  std::string first_request_id, last_request_id;
};

struct Invoice {
  std::string number;  // "ten_..-2026-11"
  Tenant tenant;
  std::string currency;
  int64_t from = 0, to = 0;  // a month, UTC
  bool is_open = false;      // the month is not over
  std::vector<InvoiceLine> lines;
  Micros total = 0;
};

// The month "YYYY-MM" as [from, to), UTC, from 1970-01 to 9999-12. Errors: kInvalidArgument.
struct Month {
  int64_t from = 0, to = 0;
};
Result<Month> ParseMonth(std::string_view text);

// Lines and amounts of a month that is over never change, nor does anything here depend on when it
// is asked for. Names are those of today, beside ids, which stay.
Json InvoiceJson(const Invoice& invoice, const Directory& directory);
std::string InvoiceText(const Invoice& invoice, const Directory& directory);
// A page of its own, to print, that loads nothing; every value escaped.
std::string InvoiceHtml(const Invoice& invoice, const Directory& directory);

}  // namespace millpower::ledger
