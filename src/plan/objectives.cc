#include "plan/objectives.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <sstream>

namespace millpower::plan {
namespace {

Result<Objective> ParseObjective(const std::string& part, std::span<const std::string> names) {
  const size_t equals = part.find('=');
  const std::string name = part.substr(0, equals);
  const bool is_ms = name.ends_with("_ms");
  if (equals != std::string::npos && (is_ms || name.ends_with("_s"))) {
    const std::string latency = name.substr(0, name.rfind('_'));
    const std::string number = part.substr(equals + 1);
    double bound = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), bound);
    const bool sound = error == std::errc() && end == number.data() + number.size() && bound > 0;
    if (sound && std::ranges::find(names, latency) != names.end())
      return Objective{part, latency, is_ms ? bound / 1000 : bound};
  }
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("'{}' is no objective; expected NAME_s=SECONDS or NAME_ms=MILLISECONDS, "
                          "NAME one of {}",
                          part, fmt::join(names, ", ")));
}

}  // namespace

Result<std::vector<Objective>> ParseObjectives(const std::string& text,
                                               std::span<const std::string> names) {
  std::vector<Objective> objectives;
  std::stringstream parts(text);
  std::string part;
  do {
    std::getline(parts, part, ',');
    TRY_ASSIGN(objectives.emplace_back(), ParseObjective(part, names));
  } while (!parts.eof());
  return objectives;
}

std::vector<std::string> Missed(const std::vector<Objective>& objectives,
                                const Latencies& latencies) {
  std::vector<std::string> missed;
  for (const Objective& objective : objectives) {
    const double value = latencies.at(objective.latency);
    if (value > objective.bound_s)
      missed.push_back(fmt::format("{}: {:.4g} s", objective.text, value));
  }
  return missed;
}

}  // namespace millpower::plan
