#include "plan/report.h"

#include <algorithm>
#include <cmath>

namespace millpower::plan {
namespace {

namespace chip = device::chip;

constexpr double kLeastSeconds = 1e-12;  // to divide by

Json ToJson(const Percentiles& p) {
  return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}, {"mean", p.mean}};
}

Json Joined(Json json, const ChipUse& use) {
  json.update(ToJson(use));
  return json;
}

void AddLatencies(Latencies& latencies, const std::string& prefix, const Percentiles& p) {
  latencies[prefix + "p50"] = p.p50;
  latencies[prefix + "p90"] = p.p90;
  latencies[prefix + "p99"] = p.p99;
}

std::vector<std::string> NamesOf(const Latencies& latencies) {
  std::vector<std::string> names;
  for (const auto& [name, seconds] : latencies) names.push_back(name);
  return names;
}

Outcome Common(const ChipUse& use) {
  Outcome outcome;
  outcome.bottleneck = use.bottleneck;
  outcome.seconds = use.seconds;
  return outcome;
}

void AddUse(const ChipUse& use, std::vector<Measure>& measures) {
  constexpr const char* kNames[] = {"memory busy", "cache busy",  "scratchpad busy",
                                    "matrix busy", "vector busy", "link busy"};
  static_assert(std::size(kNames) == chip::kUnitCount);
  measures.push_back({"in launches", use.launched * 100, " %"});
  for (size_t unit = 0; unit < chip::kUnitCount; ++unit)
    measures.push_back({kNames[unit], use.utilisation[unit] * 100, " %"});
  measures.push_back({"power of a chip", use.average_w, " W"});
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
  static_cast<ChipUse&>(report) = UseOf(result, setup, result.seconds);
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
  report.preemptions = result.preemptions;
  const double seconds = std::max(result.seconds, kLeastSeconds);
  const auto tokens = static_cast<double>(std::max<int64_t>(report.output_tokens, 1));
  report.output_tokens_per_s = static_cast<double>(report.output_tokens) / seconds;
  report.total_tokens_per_s =
      static_cast<double>(report.output_tokens + report.input_tokens) / seconds;
  report.joules_per_output_token = result.joules / tokens;
  report.grams_co2e_per_output_token = GramsOf(report.joules_per_output_token, grid_g_per_kwh);
  report.usd_per_million_output_tokens = UsdOf(setup, result.seconds) / tokens * 1e6;
  return report;
}

RankingReport Report(const RankingResult& result, const RankingSetup& setup,
                     double grid_g_per_kwh) {
  RankingReport report;
  static_cast<ChipUse&>(report) = UseOf(result, setup, result.seconds);
  std::vector<double> latency;
  for (const Answered& answered : result.requests) {
    ++report.requests;
    report.items += answered.items;
    latency.push_back(answered.done_s - answered.arrived_s);
  }
  report.latency_s = PercentilesOf(std::move(latency));
  const double seconds = std::max(result.seconds, kLeastSeconds);
  const auto queries = static_cast<double>(std::max<int64_t>(report.requests, 1));
  const auto items = static_cast<double>(std::max<int64_t>(report.items, 1));
  report.queries_per_s = static_cast<double>(report.requests) / seconds;
  report.items_per_s = static_cast<double>(report.items) / seconds;
  report.items_per_launch =
      static_cast<double>(report.items) / static_cast<double>(std::max<int64_t>(result.steps, 1));
  report.joules_per_query = result.joules / queries;
  report.grams_co2e_per_query = GramsOf(report.joules_per_query, grid_g_per_kwh);
  const double usd = UsdOf(setup, result.seconds);
  report.usd_per_million_queries = usd / queries * 1e6;
  report.usd_per_million_items = usd / items * 1e6;
  return report;
}

Json ToJson(const ServingReport& r) {
  return Joined({{"requests", r.requests},
                 {"input_tokens", r.input_tokens},
                 {"output_tokens", r.output_tokens},
                 {"cached_tokens", r.cached_tokens},
                 {"preemptions", r.preemptions},
                 {"ttft_s", ToJson(r.ttft_s)},
                 {"tpot_s", ToJson(r.tpot_s)},
                 {"end_to_end_s", ToJson(r.end_to_end_s)},
                 {"output_tokens_per_s", r.output_tokens_per_s},
                 {"total_tokens_per_s", r.total_tokens_per_s},
                 {"joules_per_output_token", r.joules_per_output_token},
                 {"grams_co2e_per_output_token", r.grams_co2e_per_output_token},
                 {"usd_per_million_output_tokens", r.usd_per_million_output_tokens}},
                r);
}

Json ToJson(const RankingReport& r) {
  return Joined({{"requests", r.requests},
                 {"items", r.items},
                 {"latency_s", ToJson(r.latency_s)},
                 {"queries_per_s", r.queries_per_s},
                 {"items_per_s", r.items_per_s},
                 {"items_per_launch", r.items_per_launch},
                 {"joules_per_query", r.joules_per_query},
                 {"grams_co2e_per_query", r.grams_co2e_per_query},
                 {"usd_per_million_queries", r.usd_per_million_queries},
                 {"usd_per_million_items", r.usd_per_million_items}},
                r);
}

Outcome OutcomeOf(const ServingReport& r) {
  Outcome outcome = Common(r);
  outcome.requests = r.requests;
  AddLatencies(outcome.latencies, "ttft_", r.ttft_s);
  AddLatencies(outcome.latencies, "tpot_", r.tpot_s);
  AddLatencies(outcome.latencies, "e2e_", r.end_to_end_s);
  outcome.measures = {
      {"TTFT p50", r.ttft_s.p50 * 1e3, " ms"},      {"TTFT p90", r.ttft_s.p90 * 1e3, " ms"},
      {"TTFT p99", r.ttft_s.p99 * 1e3, " ms"},      {"TPOT p50", r.tpot_s.p50 * 1e3, " ms"},
      {"TPOT p90", r.tpot_s.p90 * 1e3, " ms"},      {"TPOT p99", r.tpot_s.p99 * 1e3, " ms"},
      {"end to end p50", r.end_to_end_s.p50, " s"}, {"end to end p99", r.end_to_end_s.p99, " s"},
      {"output tok/s", r.output_tokens_per_s},      {"all tok/s", r.total_tokens_per_s}};
  AddUse(r, outcome.measures);
  outcome.measures.push_back({"energy", r.joules_per_output_token, " J/token"});
  outcome.measures.push_back({"carbon", r.grams_co2e_per_output_token * 1e3, " mgCO2e/token"});
  outcome.measures.push_back({"energy", r.joules_per_output_token / 3.6, " kWh/M tokens"});
  outcome.measures.push_back({"money", r.usd_per_million_output_tokens, " $/M tokens"});
  outcome.usd_per_million = r.usd_per_million_output_tokens;
  outcome.joules_each = r.joules_per_output_token;
  outcome.plot_ms = r.tpot_s.p50 * 1e3;
  outcome.plot_per_s = r.output_tokens_per_s;
  outcome.json = ToJson(r);
  return outcome;
}

Outcome OutcomeOf(const RankingReport& r) {
  Outcome outcome = Common(r);
  outcome.requests = r.requests;
  AddLatencies(outcome.latencies, "", r.latency_s);
  outcome.measures = {{"latency p50", r.latency_s.p50 * 1e3, " ms"},
                      {"latency p90", r.latency_s.p90 * 1e3, " ms"},
                      {"latency p99", r.latency_s.p99 * 1e3, " ms"},
                      {"queries/s", r.queries_per_s},
                      {"items/s", r.items_per_s},
                      {"items/launch", r.items_per_launch}};
  AddUse(r, outcome.measures);
  outcome.measures.push_back({"energy", r.joules_per_query, " J/query"});
  outcome.measures.push_back({"carbon", r.grams_co2e_per_query * 1e3, " mgCO2e/query"});
  outcome.measures.push_back({"money", r.usd_per_million_queries, " $/M queries"});
  outcome.measures.push_back({"money", r.usd_per_million_items, " $/M items"});
  outcome.usd_per_million = r.usd_per_million_queries;
  outcome.joules_each = r.joules_per_query;
  outcome.plot_ms = r.latency_s.p99 * 1e3;
  outcome.plot_per_s = r.queries_per_s;
  outcome.json = ToJson(r);
  return outcome;
}

std::span<const std::string> ServingLatencies() {
  static const std::vector<std::string> names = NamesOf(OutcomeOf(ServingReport{}).latencies);
  return names;
}

std::span<const std::string> RankingLatencies() {
  static const std::vector<std::string> names = NamesOf(OutcomeOf(RankingReport{}).latencies);
  return names;
}

}  // namespace millpower::plan
