#include "cli/admin/texts.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace millpower::cli::admin {
namespace {

constexpr int64_t kDurationMaxS = int64_t{100} * 366 * 24 * 3600;

std::string Joined(const std::vector<std::string>& parts) {
  return parts.empty() ? "none" : fmt::format("{}", fmt::join(parts, ", "));
}

// Characters rather than bytes, so that names with accents stay aligned.
size_t WidthOf(const std::string& text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

Result<int64_t> ParseDuration(const std::string& text) {
  constexpr std::pair<char, int64_t> kUnits[] = {
      {'s', 1}, {'m', 60}, {'h', 3600}, {'d', 24 * 3600}, {'w', 7 * 24 * 3600}};
  int64_t count = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, count);
  for (const auto& [unit, seconds] : kUnits)
    if (error == std::errc() && end + 1 == last && *end == unit && count > 0 &&
        count <= kDurationMaxS / seconds)
      return count * seconds;
  return Fail(ErrorCode::kInvalidArgument,
              "'" + text + "' is not a duration; write for example 90d, 12h, 30m or 45s");
}

Result<Json> ParseCap(const std::string& text) {
  const size_t first = text.find(':');
  const size_t second = first == text.npos ? text.npos : text.find(':', first + 1);
  const auto fail = [&] {
    return Fail(ErrorCode::kInvalidArgument,
                "'" + text +
                    "' is not a cap; write day|month|total:money|tokens:LIMIT, for example "
                    "month:money:50.00");
  };
  if (second == text.npos) return fail();
  const std::string period = text.substr(0, first);
  const std::string measure = text.substr(first + 1, second - first - 1);
  const std::string limit = text.substr(second + 1);
  Json cap = {{"period", period}, {"measure", measure}, {"limit", limit}};
  if (measure == "money") return cap;
  int64_t tokens = 0;
  const auto [end, error] = std::from_chars(limit.data(), limit.data() + limit.size(), tokens);
  if (measure != "tokens" || error != std::errc() || end != limit.data() + limit.size())
    return fail();
  cap["limit"] = tokens;
  return cap;
}

Result<double> ParseShare(const std::string& text) {
  double share = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), share);
  const std::string unit(end, text.data() + text.size());
  if (error != std::errc() || (unit != "" && unit != "%"))
    return Fail(ErrorCode::kInvalidArgument,
                "'" + text + "' is not a share of the device; write 25% or 0.25");
  return unit == "%" ? share / 100 : share;
}

std::string FormatTime(const Json& unix_s, const std::string& otherwise) {
  if (!unix_s.is_number_integer()) return otherwise;
  return fmt::format("{:%Y-%m-%d %H:%M:%S}",
                     fmt::gmtime(static_cast<std::time_t>(unix_s.get<int64_t>())));
}

std::string FormatCaps(const Json& caps) {
  std::vector<std::string> parts;
  for (const Json& cap : caps) {
    const std::string period = cap.value("period", "");
    parts.push_back(fmt::format("{}{} {}", Cell(cap, "limit"),
                                cap.value("measure", "") == "tokens" ? " tokens" : "",
                                period == "total" ? "in all" : "a " + period));
  }
  return Joined(parts);
}

std::string FormatLimits(const Json& limits) {
  std::vector<std::string> parts;
  const auto add = [&](const char* name, const char* what) {
    if (limits.contains(name) && limits[name].is_number())
      parts.push_back(Cell(limits, name) + what);
  };
  add("requests_per_minute", " requests a minute");
  add("tokens_per_minute", " tokens a minute");
  add("concurrent_requests", " at a time");
  return Joined(parts);
}

void AddBoundsFlags(CLI::App& command, BoundsFlags& flags) {
  command
      .add_option(
          "--cap", flags.caps,
          "What may be used at most, PERIOD:MEASURE:LIMIT: day, month or total (UTC), money "
          "or tokens, e.g. month:money:50.00 or day:tokens:1000000; may be repeated, and "
          "replaces all caps there were; 'none' takes them away")
      ->allow_extra_args(false);
  command.add_option("--rpm", flags.requests_per_minute, "Requests a minute; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--tpm", flags.tokens_per_minute, "Tokens a minute; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--concurrent", flags.concurrent_requests, "Requests at a time; 0: no limit")
      ->check(CLI::NonNegativeNumber);
}

Result<void> AddBounds(const BoundsFlags& flags, Json& body) {
  if (flags.caps == std::vector<std::string>{"none"}) {
    body["caps"] = Json::array();
  } else {
    for (const std::string& text : flags.caps) {
      TRY_ASSIGN(Json cap, ParseCap(text));
      body["caps"].push_back(std::move(cap));
    }
  }
  const auto add = [&](const char* name, const std::optional<int64_t>& limit) {
    if (limit) body["limits"][name] = *limit;
  };
  add("requests_per_minute", flags.requests_per_minute);
  add("tokens_per_minute", flags.tokens_per_minute);
  add("concurrent_requests", flags.concurrent_requests);
  return {};
}

void Table::Add(std::vector<std::string> row) {
  CHECK(row.size() == columns_.size());
  rows_.push_back(std::move(row));
}

std::string Table::Text() const {
  std::vector<size_t> widths;
  std::vector<std::string> heads;
  for (const Column& column : columns_) {
    heads.push_back(column.head);
    widths.push_back(WidthOf(column.head));
  }
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], WidthOf(row[i]));
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string blanks(widths[i] - WidthOf(row[i]), ' ');
      if (i > 0) line += "  ";
      line += columns_[i].is_number ? blanks + row[i] : row[i] + blanks;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  add(heads);
  for (const auto& row : rows_) add(row);
  return text;
}

std::string Cell(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "-";
  if (found->is_boolean()) return found->get<bool>() ? "yes" : "no";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

}  // namespace millpower::cli::admin
