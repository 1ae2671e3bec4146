// Bounds on latencies that a service is to keep.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace millpower::plan {

// Seconds, by name: "ttft_p99".
using Latencies = std::map<std::string, double>;

// As written on the command line: "ttft_p99_s=1", "tpot_p50_ms=50".
struct Objective {
  std::string text;
  std::string latency;
  double bound_s = 0;
};
// Comma-separated, at least one. Errors: kInvalidArgument, listing the names there are.
Result<std::vector<Objective>> ParseObjectives(const std::string& text,
                                               std::span<const std::string> names);
// Those that are missed, as "ttft_p99_s=1: 1.5 s".
std::vector<std::string> Missed(const std::vector<Objective>& objectives,
                                const Latencies& latencies);

}  // namespace millpower::plan
