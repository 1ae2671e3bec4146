// What a simulated service comes to: latencies, rates, utilisation, energy, carbon and money.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/json.h"
#include "device/chip/description.h"
#include "plan/serving.h"

namespace millpower::plan {

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0, mean = 0;
};
// Nearest rank: the smallest value that p percent of all are not above. Zeros for none.
Percentiles PercentilesOf(std::vector<double> values);

struct ServingReport {
  int64_t requests = 0;
  int64_t input_tokens = 0, output_tokens = 0, cached_tokens = 0;
  double seconds = 0;
  int64_t steps = 0, preemptions = 0;
  Percentiles ttft_s, tpot_s, end_to_end_s;
  double output_tokens_per_s = 0, total_tokens_per_s = 0;
  std::array<double, device::chip::kUnitCount> utilisation{};  // of all the time, 0 to 1
  double launched = 0;                                         // part of the time in launches
  std::string bottleneck;  // the unit that is busiest, or "host" when launches are the lesser part
  double memory_bytes_per_s = 0;  // of one chip, while it works
  double matrix_ops_per_s = 0;
  double average_w = 0;  // of one chip
  double joules_per_output_token = 0;
  double grams_co2e_per_output_token = 0;
  double usd_per_million_output_tokens = 0;
};

// `grid_g_per_kwh`: carbon intensity of the electricity, grams of CO2 equivalent.
ServingReport Report(const ServingResult& result, const ServingSetup& setup, double grid_g_per_kwh);

Json ToJson(const ServingReport& report);

// A bound on a percentile, as written on the command line: "ttft_p99_s=1", "tpot_p50_ms=50",
// "e2e_p90_s=10".
struct Objective {
  std::string text;
  double bound_s = 0;
  double (*value)(const ServingReport&) = nullptr;
};
// Comma-separated. Errors: kInvalidArgument, listing the names.
Result<std::vector<Objective>> ParseObjectives(const std::string& text);
// Those that are missed, as sentences.
std::vector<std::string> Missed(const std::vector<Objective>& objectives,
                                const ServingReport& report);

}  // namespace millpower::plan
