#include "plan/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

namespace millpower::plan {
namespace {

namespace chip = device::chip;

constexpr double kJoulesPerKwh = 3.6e6;

Json ToJson(const Percentiles& p) {
  return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}, {"mean", p.mean}};
}

struct Metric {
  const char* name;
  double (*value)(const ServingReport&);
};

constexpr Metric kMetrics[] = {
    {"ttft_p50", [](const ServingReport& r) { return r.ttft_s.p50; }},
    {"ttft_p90", [](const ServingReport& r) { return r.ttft_s.p90; }},
    {"ttft_p99", [](const ServingReport& r) { return r.ttft_s.p99; }},
    {"tpot_p50", [](const ServingReport& r) { return r.tpot_s.p50; }},
    {"tpot_p90", [](const ServingReport& r) { return r.tpot_s.p90; }},
    {"tpot_p99", [](const ServingReport& r) { return r.tpot_s.p99; }},
    {"e2e_p50", [](const ServingReport& r) { return r.end_to_end_s.p50; }},
    {"e2e_p90", [](const ServingReport& r) { return r.end_to_end_s.p90; }},
    {"e2e_p99", [](const ServingReport& r) { return r.end_to_end_s.p99; }},
};

Result<Objective> ParseObjective(const std::string& part) {
  const size_t equals = part.find('=');
  const std::string name = part.substr(0, equals);
  const bool is_ms = name.ends_with("_ms");
  if (equals != std::string::npos && (is_ms || name.ends_with("_s"))) {
    const std::string metric = name.substr(0, name.rfind('_'));
    const std::string number = part.substr(equals + 1);
    double bound = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), bound);
    const bool sound = error == std::errc() && end == number.data() + number.size() && bound > 0;
    for (const Metric& known : kMetrics)
      if (sound && metric == known.name)
        return Objective{part, is_ms ? bound / 1000 : bound, known.value};
  }
  std::string names;
  for (const Metric& known : kMetrics)
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  return Fail(ErrorCode::kInvalidArgument,
              "'" + part +
                  "' is no objective; expected NAME_s=SECONDS or NAME_ms=MILLISECONDS, "
                  "NAME one of " +
                  names);
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> values) {
  Percentiles result;
  if (values.empty()) return result;
  std::ranges::sort(values);
  const auto rank = [&](double p) {
    const double at = std::ceil(p / 100 * static_cast<double>(values.size()));
    return values[static_cast<size_t>(std::max(at, 1.0)) - 1];
  };
  for (const double value : values) result.mean += value / static_cast<double>(values.size());
  result.p50 = rank(50);
  result.p90 = rank(90);
  result.p99 = rank(99);
  return result;
}

ServingReport Report(const ServingResult& result, const ServingSetup& setup,
                     double grid_g_per_kwh) {
  ServingReport report;
  std::vector<double> ttft, tpot, end_to_end;
  for (const Served& served : result.requests) {
    ++report.requests;
    report.input_tokens += served.input;
    report.output_tokens += served.output;
    report.cached_tokens += served.cached;
    ttft.push_back(served.TimeToFirstToken());
    if (served.output > 1) tpot.push_back(served.TimePerToken());
    end_to_end.push_back(served.done_s - served.arrived_s);
  }
  report.ttft_s = PercentilesOf(std::move(ttft));
  report.tpot_s = PercentilesOf(std::move(tpot));
  report.end_to_end_s = PercentilesOf(std::move(end_to_end));
  report.seconds = result.seconds;
  report.steps = result.steps;
  report.preemptions = result.preemptions;
  const double seconds = std::max(result.seconds, 1e-12);
  const auto tokens = static_cast<double>(std::max<int64_t>(report.output_tokens, 1));
  report.output_tokens_per_s = static_cast<double>(report.output_tokens) / seconds;
  report.total_tokens_per_s =
      static_cast<double>(report.output_tokens + report.input_tokens) / seconds;
  report.launched = result.busy_s / seconds;
  size_t busiest = 0;
  for (size_t unit = 0; unit < chip::kUnitCount; ++unit) {
    report.utilisation[unit] = result.unit_busy_s[unit] / seconds;
    if (report.utilisation[unit] > report.utilisation[busiest]) busiest = unit;
  }
  report.bottleneck =
      report.launched < 0.5 ? "host or arrivals" : chip::Name(static_cast<chip::Unit>(busiest));
  const double busy = std::max(result.busy_s, 1e-12);
  report.memory_bytes_per_s = (result.traffic.memory_read + result.traffic.memory_written) / busy;
  report.matrix_ops_per_s = result.traffic.matrix_ops / busy;
  report.average_w = result.joules / setup.chips() / seconds;
  report.joules_per_output_token = result.joules / tokens;
  report.grams_co2e_per_output_token =
      report.joules_per_output_token / kJoulesPerKwh * grid_g_per_kwh;
  report.usd_per_million_output_tokens =
      setup.chip.price_usd_per_hour.value * setup.chips() * result.seconds / 3600 / tokens * 1e6;
  return report;
}

Json ToJson(const ServingReport& r) {
  Json utilisation;
  for (size_t unit = 0; unit < chip::kUnitCount; ++unit)
    utilisation[chip::Name(static_cast<chip::Unit>(unit))] = r.utilisation[unit];
  return {{"requests", r.requests},
          {"input_tokens", r.input_tokens},
          {"output_tokens", r.output_tokens},
          {"cached_tokens", r.cached_tokens},
          {"seconds", r.seconds},
          {"steps", r.steps},
          {"preemptions", r.preemptions},
          {"ttft_s", ToJson(r.ttft_s)},
          {"tpot_s", ToJson(r.tpot_s)},
          {"end_to_end_s", ToJson(r.end_to_end_s)},
          {"output_tokens_per_s", r.output_tokens_per_s},
          {"total_tokens_per_s", r.total_tokens_per_s},
          {"launched", r.launched},
          {"utilisation", utilisation},
          {"bottleneck", r.bottleneck},
          {"memory_bytes_per_s", r.memory_bytes_per_s},
          {"matrix_ops_per_s", r.matrix_ops_per_s},
          {"average_w", r.average_w},
          {"joules_per_output_token", r.joules_per_output_token},
          {"grams_co2e_per_output_token", r.grams_co2e_per_output_token},
          {"usd_per_million_output_tokens", r.usd_per_million_output_tokens}};
}

Result<std::vector<Objective>> ParseObjectives(const std::string& text) {
  std::vector<Objective> objectives;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    TRY_ASSIGN(Objective objective, ParseObjective(part));
    objectives.push_back(std::move(objective));
  }
  return objectives;
}

std::vector<std::string> Missed(const std::vector<Objective>& objectives,
                                const ServingReport& report) {
  std::vector<std::string> missed;
  for (const Objective& objective : objectives) {
    const double value = objective.value(report);
    if (value > objective.bound_s)
      missed.push_back(fmt::format("{}: {:.4g} s", objective.text, value));
  }
  return missed;
}

}  // namespace millpower::plan
