#include "ledger/reports.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iterator>

namespace millpower::ledger {
namespace {

// By GroupBy.
constexpr const char* kGroupNames[] = {"tenant", "project", "key", "model", "day", "tier"};
constexpr const char* kOriginNames[] = {"none", "modelled", "measured"};  // by Origin
constexpr int64_t kMicro = 1'000'000;

// Millionths as decimal text, without zeros at the end: "0.25", "3".
std::string FormatMicro(int64_t value) {
  std::string text = FormatMoney(value);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text;
}

// As a number for JSON: shortest to read back, so exact to 15 digits.
double FromMicro(int64_t value) { return static_cast<double>(value) / kMicro; }

std::string QuantityName(Unit unit) { return std::string(Name(unit)) + "s"; }

// One column of a usage report; text is null where there is none.
struct Cell {
  std::string name;
  std::optional<std::string> text;
};

// What a group is of, by ids and names.
std::vector<Cell> CellsOf(const UsageReport& report, const UsageGroup& group,
                          const Directory& directory) {
  std::vector<Cell> cells;
  const auto add_named = [&](const std::string& what, Number number, const auto* found) {
    Cell id{what, std::nullopt}, name{what + "_name", std::nullopt};
    if (found) {
      id.text = found->id;
      name.text = found->name;
    } else if (number != 0) {
      id.text = std::to_string(number);
    }
    cells.push_back(std::move(id));
    cells.push_back(std::move(name));
  };
  for (const GroupBy by : report.group_by) {
    switch (by) {
      case GroupBy::kTenant:
        add_named("tenant", group.tenant, directory.FindTenant(group.tenant));
        break;
      case GroupBy::kProject:
        add_named("project", group.project, directory.FindProject(group.project));
        break;
      case GroupBy::kKey:
        add_named("key", group.key, directory.FindKey(group.key));
        break;
      case GroupBy::kModel:
        cells.push_back({"model", group.model.empty() ? std::nullopt : std::optional(group.model)});
        break;
      case GroupBy::kDay:
        cells.push_back({"day", FormatDay(group.day)});
        break;
      case GroupBy::kTier:
        cells.push_back({"tier", Name(group.tier)});
        break;
    }
  }
  return cells;
}

// A text field: what begins like a formula is made a text for spreadsheets as well.
std::string CsvField(std::string_view text) {
  std::string field;
  if (!text.empty() && std::string_view("=+-@\t\r\n").find(text[0]) != std::string_view::npos)
    field += '\'';
  field += text;
  if (field.find_first_of(",\"\r\n") == field.npos) return field;
  std::string quoted = "\"";
  for (const char c : field) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace

const char* Name(GroupBy by) { return kGroupNames[static_cast<size_t>(by)]; }

std::optional<GroupBy> GroupByFromName(std::string_view name) {
  const auto found = std::ranges::find(kGroupNames, name);
  if (found == std::end(kGroupNames)) return std::nullopt;
  return static_cast<GroupBy>(found - std::begin(kGroupNames));
}

std::string FormatDay(int64_t day) {
  // Beyond what the calendar counts, years 0 to 9999, a day is a number.
  constexpr int64_t kFirst = -719'528, kLast = 2'932'896;
  if (day < kFirst || day > kLast) return std::to_string(day);
  const std::chrono::year_month_day date(
      std::chrono::sys_days(std::chrono::days(static_cast<int>(day))));
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
}

std::string FormatQuantity(Unit unit, int64_t quantity) {
  return QuantaOf(unit) == 1 ? std::to_string(quantity) : FormatMicro(quantity);
}

Json UsageJson(const UsageReport& report, const Directory& directory) {
  Json names = Json::array(), data = Json::array();
  for (const GroupBy by : report.group_by) names.push_back(Name(by));
  for (const UsageGroup& group : report.groups) {
    Json row = Json::object();
    for (const Cell& cell : CellsOf(report, group, directory))
      row[cell.name] = cell.text ? Json(*cell.text) : Json(nullptr);
    row["requests"] = group.requests;
    for (int i = 0; i < kUnitCount; ++i) {
      const auto unit = static_cast<Unit>(i);
      const int64_t quantity = group.quantities[static_cast<size_t>(i)];
      row[QuantityName(unit)] = QuantaOf(unit) == 1 ? Json(quantity) : Json(FromMicro(quantity));
    }
    row["amount"] = FormatMoney(group.amount);
    row["energy_j"] = FromMicro(group.energy_uj);
    row["gco2e"] = FromMicro(group.co2e_ug);
    row["energy_source"] = kOriginNames[static_cast<size_t>(group.energy_origin)];
    data.push_back(std::move(row));
  }
  return {{"object", "list"},
          {"currency", directory.currency()},
          {"group_by", std::move(names)},
          {"data", std::move(data)}};
}

std::string UsageCsv(const UsageReport& report, const Directory& directory) {
  std::string csv;
  for (const Cell& cell : CellsOf(report, {}, directory)) csv += cell.name + ",";
  csv += "requests,";
  for (int i = 0; i < kUnitCount; ++i) csv += QuantityName(static_cast<Unit>(i)) + ",";
  csv += "amount,currency,energy_j,gco2e,energy_source\r\n";
  for (const UsageGroup& group : report.groups) {
    for (const Cell& cell : CellsOf(report, group, directory))
      csv += CsvField(cell.text.value_or("")) + ",";
    csv += std::to_string(group.requests) + ",";
    for (int i = 0; i < kUnitCount; ++i) {
      csv += FormatQuantity(static_cast<Unit>(i), group.quantities[static_cast<size_t>(i)]) + ",";
    }
    csv +=
        fmt::format("{},{},{},{},{}\r\n", FormatMoney(group.amount), CsvField(directory.currency()),
                    FormatMicro(group.energy_uj), FormatMicro(group.co2e_ug),
                    kOriginNames[static_cast<size_t>(group.energy_origin)]);
  }
  return csv;
}

Result<Month> ParseMonth(std::string_view text) {
  const auto fail = [&] {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is not a month like 2026-11", text.substr(0, 40)));
  };
  if (text.size() != 7 || text[4] != '-') return fail();
  int year = 0;
  unsigned month = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 4) continue;
    if (text[i] < '0' || text[i] > '9') return fail();
    if (i < 4)
      year = year * 10 + (text[i] - '0');
    else
      month = month * 10 + static_cast<unsigned>(text[i] - '0');
  }
  if (year < 1970 || month < 1 || month > 12) return fail();
  const std::chrono::year_month_day first(std::chrono::year(year), std::chrono::month(month),
                                          std::chrono::day(1));
  const auto start = [](const std::chrono::year_month_day& day) {
    return std::chrono::sys_seconds(std::chrono::sys_days(day)).time_since_epoch().count();
  };
  return Month{.from = start(first), .to = start(first + std::chrono::months(1))};
}

}  // namespace millpower::ledger
