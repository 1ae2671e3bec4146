// What a simulated service comes to: latencies, rates, utilisation, energy, carbon and money.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "plan/objectives.h"
#include "plan/ranking.h"
#include "plan/serving.h"

namespace millpower::plan {

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0, mean = 0;
};
// Nearest rank: the smallest value that p percent of all are not above. Zeros for none.
Percentiles PercentilesOf(std::vector<double> values);

struct ServingReport : ChipUse {
  int64_t requests = 0;
  int64_t input_tokens = 0, output_tokens = 0, cached_tokens = 0;
  int64_t preemptions = 0;
  Percentiles ttft_s, tpot_s, end_to_end_s;
  double output_tokens_per_s = 0, total_tokens_per_s = 0;
  double joules_per_output_token = 0;
  double grams_co2e_per_output_token = 0;
  double usd_per_million_output_tokens = 0;
};

// `grid_g_per_kwh`: carbon intensity of the electricity, grams of CO2 equivalent.
ServingReport Report(const ServingResult& result, const ServingSetup& setup, double grid_g_per_kwh);

struct RankingReport : ChipUse {
  int64_t requests = 0;  // queries
  int64_t items = 0;     // candidates of all queries
  Percentiles latency_s;
  double queries_per_s = 0, items_per_s = 0;
  double items_per_launch = 0;
  double joules_per_query = 0;
  double grams_co2e_per_query = 0;
  double usd_per_million_queries = 0, usd_per_million_items = 0;
};
RankingReport Report(const RankingResult& result, const RankingSetup& setup, double grid_g_per_kwh);

Json ToJson(const ServingReport& report);
Json ToJson(const RankingReport& report);

// A line of a table: a number, in a unit that people read.
struct Measure {
  const char* name;  // "TTFT p50"
  double value = 0;
  const char* unit = "";  // " ms", to stand behind the number
};

// A report of either kind, as those need it who put several side by side.
struct Outcome {
  int64_t requests = 0;
  std::string bottleneck;
  double seconds = 0;
  std::vector<Measure> measures;       // of one kind of report always the same lines
  Latencies latencies;                 // what objectives may be about
  double usd_per_million = 0;          // output tokens, or queries
  double joules_each = 0;              // likewise of one
  double plot_ms = 0, plot_per_s = 0;  // median time per token and tokens a second; p99 and queries
  Json json;                           // ToJson of the report
};
Outcome OutcomeOf(const ServingReport& report);
Outcome OutcomeOf(const RankingReport& report);

// Names of Outcome::latencies: "ttft_p50", ... and "p50", "p90", "p99".
std::span<const std::string> ServingLatencies();
std::span<const std::string> RankingLatencies();

}  // namespace millpower::plan
