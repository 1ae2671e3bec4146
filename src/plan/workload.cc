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

std::vector<Workload> Split(const Workload& workload, int parts) {
  std::vector<Workload> split(static_cast<size_t>(parts));
  for (int32_t user = 0; user < workload.concurrency; ++user)
    ++split[static_cast<size_t>(user % parts)].concurrency;
  // Of a closed loop, those without a user take nothing.
  const int servers = workload.concurrency > 0 ? std::min(parts, workload.concurrency) : parts;
  for (size_t i = 0; i < workload.requests.size(); ++i)
    split[i % static_cast<size_t>(servers)].requests.push_back(workload.requests[i]);
  return split;
}

Result<Workload> ReadTrace(const std::filesystem::path& path) {
  TRY_ASSIGN(const std::string text, ReadFile(path, kMaxTraceBytes));
  std::stringstream lines(text);
  std::string line;
  int64_t number = 1;
  const auto bad = [&](const std::string& message) {
    return Fail(ErrorCode::kInvalidArgument,
                path.string() + ":" + std::to_string(number) + ": " + message);
  };
  if (!std::getline(lines, line)) return bad("is empty; expected a header at_s,input,output");
  std::map<std::string, size_t> columns;
  for (const std::string& cell : Cells(line)) columns.emplace(cell, columns.size());
  for (const char* name : {"at_s", "input", "output"})
    if (!columns.contains(name)) return bad(std::string("has no column '") + name + "'");
  Workload workload;
  while (std::getline(lines, line)) {
    ++number;
    const std::vector<std::string> cells = Cells(line);
    if (cells.empty()) continue;
    const auto get = [&](const char* name, double least, double most) -> Result<double> {
      const auto column = columns.find(name);
      const std::string cell = column != columns.end() && column->second < cells.size()
                                   ? cells[column->second]
                                   : std::string();
      double value = 0;
      const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
      if (error != std::errc() || end != cell.data() + cell.size() || !(value >= least) ||
          value > most)
        return bad(std::string(name) + " is '" + cell + "', not a number from " +
                   std::to_string(static_cast<int64_t>(least)) + " to " +
                   std::to_string(static_cast<int64_t>(most)));
      return value;
    };
    Arrival arrival;
    TRY_ASSIGN(arrival.at_s, get("at_s", 0, 1e9));
    TRY_ASSIGN(const double input, get("input", 1, kMaxTokens));
    TRY_ASSIGN(const double output, get("output", 1, kMaxTokens));
    arrival.input = static_cast<int32_t>(input);
    arrival.output = static_cast<int32_t>(output);
    if (columns.contains("prefix_group") && columns.contains("prefix_tokens")) {
      TRY_ASSIGN(const double group, get("prefix_group", -1, 1e9));
      TRY_ASSIGN(const double tokens, get("prefix_tokens", 0, kMaxTokens));
      arrival.prefix_group = static_cast<int32_t>(group);
      arrival.prefix_tokens = static_cast<int32_t>(std::min(tokens, input));
    }
    workload.requests.push_back(arrival);
  }
  if (workload.requests.empty()) return bad("has no requests");
  std::ranges::stable_sort(workload.requests, {}, &Arrival::at_s);
  return workload;
}

}  // namespace millpower::plan
