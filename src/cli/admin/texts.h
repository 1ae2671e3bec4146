// What operators write and read: durations, caps, times, tables.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace millpower::cli::admin {

// "90d", "12h", "30m", "45s", "2w" -> seconds, more than none. Errors: kInvalidArgument.
Result<int64_t> ParseDuration(const std::string& text);

// "month:money:50.00", "day:tokens:1000000" -> as the API takes a cap. Errors: kInvalidArgument.
Result<Json> ParseCap(const std::string& text);

// "25%" or "0.25" -> 0.25. Errors: kInvalidArgument.
Result<double> ParseShare(const std::string& text);

// Unix seconds as "2026-12-01 09:30:00", UTC; `otherwise` for what is no number.
std::string FormatTime(const Json& unix_s, const std::string& otherwise = "never");

// "50.00 a month, 1000000 tokens a day"; "none".
std::string FormatCaps(const Json& caps);
// "60 requests a minute, 8 at a time"; "none".
std::string FormatLimits(const Json& limits);

// --cap, --rpm, --tpm and --concurrent, which tenants, projects and keys share.
struct BoundsFlags {
  std::vector<std::string> caps;
  std::optional<int64_t> requests_per_minute, tokens_per_minute, concurrent_requests;
};
void AddBoundsFlags(CLI::App& command, BoundsFlags& flags);
// Adds what was given to a body. Errors: kInvalidArgument.
Result<void> AddBounds(const BoundsFlags& flags, Json& body);

// Aligned columns under heads; numbers to the right.
class Table {
 public:
  struct Column {
    std::string head;
    bool is_number = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  void Add(std::vector<std::string> row);  // a cell for each column
  std::string Text() const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// The text of a field, a number's digits; "-" for null and what is not there.
std::string Cell(const Json& object, const char* name);

}  // namespace millpower::cli::admin
