// What launches in virtual time asked of a chip, summed up, and what that is a second.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "device/chip/chip_device.h"
#include "isa/program.h"

namespace millpower::plan {

// What serving needs of any model, on replicas that each are a group of chips with an engine and a
// time of their own.
struct Deployment {
  std::shared_ptr<const isa::Program> program;  // of one rank
  // Of a pipeline: the Programs of its stages, each for `ranks` chips of its own; `program` is the
  // model uncut then.
  std::vector<std::shared_ptr<const isa::Program>> stages = {};
  device::chip::Chip chip;  // with figures settled
  int ranks = 1;            // chips that run the Program together
  int replicas = 1;         // groups that share the load (ShareOf)
  device::chip::RoutingModel routing;
  double turnaround_s = 0;  // of a closed loop: from an answer's end until its user asks again
  uint64_t seed = 1;
  // Called for each launch of the first replica, one at a time, those of an engine in its order;
  // may be null. With it, reports have spans.
  std::function<void(const device::chip::LaunchReport&)> on_launch;

  int stage_count() const { return stages.empty() ? 1 : static_cast<int>(stages.size()); }
  int chips_per_replica() const { return ranks * stage_count(); }
  int chips() const { return replicas * chips_per_replica(); }
};

// Sums over launches, of one chip of each stage of each replica.
struct ChipTotals {
  int64_t steps = 0;  // those of several stages are one
  double busy_s = 0;  // launches, as the host waits for them
  std::array<double, device::chip::kUnitCount> unit_busy_s{};
  std::array<double, device::chip::kUnitCount> unit_joules{};  // beyond idle
  device::chip::Traffic traffic;
  std::array<device::chip::OpcodeTime, isa::kOpcodeCount> by_opcode{};

  void Add(const device::chip::LaunchReport& report);
  void Add(const ChipTotals& other);
  // Of all chips for so long, idle time between launches included.
  double Joules(const Deployment& deployment, double seconds) const;
};

// From the first arrival to the last answer of requests that know both; 0 without any.
template <typename Request>
double SecondsOf(const std::vector<Request>& requests) {
  if (requests.empty()) return 0;
  return std::ranges::max(requests, {}, &Request::done_s).done_s -
         std::ranges::min(requests, {}, &Request::arrived_s).arrived_s;
}

// On average over all chips.
struct ChipUse {
  double seconds = 0;   // from the first arrival to the last answer
  int64_t steps = 0;    // launches, of all replicas together
  double launched = 0;  // part of the time in launches
  std::array<double, device::chip::kUnitCount> utilisation{};  // of all the time, 0 to 1
  std::string bottleneck;  // the unit that is busiest, or "host or arrivals" when launches are the
                           // lesser part
  double memory_bytes_per_s = 0;  // of one chip, while it works
  double matrix_ops_per_s = 0;
  double average_w = 0;  // of one chip
};
ChipUse UseOf(const ChipTotals& totals, const Deployment& deployment, double seconds);

// Its members, to be added to a report's.
Json ToJson(const ChipUse& use);

// Grams of CO2 equivalent of so much energy, from a grid of so many a kWh.
double GramsOf(double joules, double grid_g_per_kwh);
// What all chips cost for so long.
double UsdOf(const Deployment& deployment, double seconds);

}  // namespace millpower::plan
