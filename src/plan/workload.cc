#include "plan/workload.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <sstream>

#include "base/mapped_file.h"
#include "base/rng.h"

namespace millpower::plan {
namespace {

constexpr size_t kMaxTraceBytes = size_t{1} << 30;
constexpr double kMaxTokens = 1 << 24;
constexpr double kMaxSeconds = 1e9;  // and groups of prefixes

std::vector<std::string> Cells(const std::string& line) {
  std::vector<std::string> cells;
  std::stringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) {
    const size_t begin = cell.find_first_not_of(" \t\r");
    const size_t end = cell.find_last_not_of(" \t\r");
    cells.push_back(begin == std::string::npos ? "" : cell.substr(begin, end - begin + 1));
  }
  return cells;
}

// One line of a CSV file, by the names of its header.
class Row {
 public:
  Row(std::string place, const std::map<std::string, size_t>& columns,
      std::vector<std::string> cells)
      : place_(std::move(place)), columns_(columns), cells_(std::move(cells)) {}

  bool Has(const char* name) const { return columns_.contains(name); }

  Result<double> Get(const char* name, double least, double most) const {
    const auto column = columns_.find(name);
    const std::string cell = column != columns_.end() && column->second < cells_.size()
                                 ? cells_[column->second]
                                 : std::string();
    double value = 0;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    if (error == std::errc() && end == cell.data() + cell.size() && value >= least && value <= most)
      return value;
    return Fail(ErrorCode::kInvalidArgument,
                place_ + name + " is '" + cell + "', not a number from " +
                    std::to_string(static_cast<int64_t>(least)) + " to " +
                    std::to_string(static_cast<int64_t>(most)));
  }

 private:
  std::string place_;  // "requests.csv:3: "
  const std::map<std::string, size_t>& columns_;
  std::vector<std::string> cells_;
};

// A request a line, in the order of time. `needed`: columns that the header must have.
Result<Workload> ReadCsv(const std::filesystem::path& path, const std::vector<std::string>& needed,
                         Result<Arrival> (*read)(const Row&)) {
  TRY_ASSIGN(const std::string text, ReadFile(path, kMaxTraceBytes));
  std::stringstream lines(text);
  std::string line;
  int64_t number = 1;
  const auto place = [&] { return path.string() + ":" + std::to_string(number) + ": "; };
  const auto bad = [&](const std::string& message) {
    return Fail(ErrorCode::kInvalidArgument, place() + message);
  };
  if (!std::getline(lines, line)) {
    std::string header;
    for (const std::string& name : needed) header += (header.empty() ? "" : ",") + name;
    return bad("is empty; expected a header " + header);
  }
  std::map<std::string, size_t> columns;
  for (const std::string& cell : Cells(line)) columns.emplace(cell, columns.size());
  for (const std::string& name : needed)
    if (!columns.contains(name)) return bad("has no column '" + name + "'");
  Workload workload;
  while (std::getline(lines, line)) {
    ++number;
    std::vector<std::string> cells = Cells(line);
    if (cells.empty()) continue;
    TRY_ASSIGN(workload.requests.emplace_back(), read(Row(place(), columns, std::move(cells))));
  }
  if (workload.requests.empty()) return bad("has no requests");
  std::ranges::stable_sort(workload.requests, {}, &Arrival::at_s);
  return workload;
}

}  // namespace

Workload ClosedLoop(int32_t concurrency, int64_t count, int32_t input, int32_t output) {
  Workload workload{concurrency, {}};
  workload.requests.assign(static_cast<size_t>(count), {0, input, output});
  return workload;
}

Workload PoissonArrivals(double rate, int64_t count, int32_t input, int32_t output, uint64_t seed) {
  Workload workload;
  Rng rng(seed);
  double at_s = 0;
  for (int64_t i = 0; i < count; ++i) {
    at_s -= std::log1p(-static_cast<double>(rng.Uniform())) / rate;
    workload.requests.push_back({at_s, input, output});
  }
  return workload;
}

Result<Workload> ReadTrace(const std::filesystem::path& path) {
  return ReadCsv(path, {"at_s", "input", "output"}, [](const Row& row) -> Result<Arrival> {
    Arrival arrival;
    TRY_ASSIGN(arrival.at_s, row.Get("at_s", 0, kMaxSeconds));
    TRY_ASSIGN(const double input, row.Get("input", 1, kMaxTokens));
    TRY_ASSIGN(const double output, row.Get("output", 1, kMaxTokens));
    arrival.input = static_cast<int32_t>(input);
    arrival.output = static_cast<int32_t>(output);
    if (row.Has("prefix_group") && row.Has("prefix_tokens")) {
      TRY_ASSIGN(const double group, row.Get("prefix_group", -1, kMaxSeconds));
      TRY_ASSIGN(const double tokens, row.Get("prefix_tokens", 0, kMaxTokens));
      arrival.prefix_group = static_cast<int32_t>(group);
      arrival.prefix_tokens = static_cast<int32_t>(std::min(tokens, input));
    }
    return arrival;
  });
}

Result<Workload> ReadQueries(const std::filesystem::path& path) {
  return ReadCsv(path, {"at_s", "items"}, [](const Row& row) -> Result<Arrival> {
    Arrival arrival;
    TRY_ASSIGN(arrival.at_s, row.Get("at_s", 0, kMaxSeconds));
    TRY_ASSIGN(const double items, row.Get("items", 1, kMaxTokens));
    arrival.input = static_cast<int32_t>(items);
    return arrival;
  });
}

Workload ShareOf(const Workload& workload, int replica, int replicas) {
  const auto count = static_cast<size_t>(replicas), mine = static_cast<size_t>(replica);
  const auto users = static_cast<size_t>(workload.concurrency);
  Workload share;
  for (size_t user = mine; user < users; user += count) ++share.concurrency;
  for (size_t i = 0; i < workload.requests.size(); ++i)
    if ((users > 0 ? i % users : i) % count == mine) share.requests.push_back(workload.requests[i]);
  return share;
}

}  // namespace millpower::plan
