// Serving a language model in virtual time: the engine that serves traffic, with its scheduler, KV
// pages and prefix cache, on the device that times a described chip.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "device/chip/chip_device.h"
#include "isa/program.h"
#include "plan/workload.h"

namespace millpower::plan {

struct ServingSetup {
  std::shared_ptr<const isa::Program> program;  // of one rank
  // Of a pipeline: the Programs of its stages, each for `ranks` chips of its own; `program` is the
  // model uncut then. As many engines as there are stages serve the requests in turn, each with its
  // part of the KV pages, so that every stage has something to do.
  std::vector<std::shared_ptr<const isa::Program>> stages = {};
  device::chip::Chip chip;  // with figures settled
  int ranks = 1;            // chips that run the Program together
  device::chip::RoutingModel routing;
  int64_t kv_pages = 0;          // 0: what fits
  double kv_memory_share = 0.9;  // of what is left beside weights and scratch
  bool prefix_cache = true;
  // The host plans the next launch before the one under way is over, as serving loops do that hide
  // their host's work behind the chip's: what comes during a launch misses the next one.
  bool plans_ahead = false;
  double turnaround_s = 0;  // of a closed loop: from an answer's end until its user asks again
  uint64_t seed = 1;
  // Called for each launch, in its order; may be null. With it, reports have spans.
  // One call at a time; of several engines, in any order.
  std::function<void(const device::chip::LaunchReport&)> on_launch;

  int stage_count() const { return stages.empty() ? 1 : static_cast<int>(stages.size()); }
  int chips() const { return ranks * stage_count(); }
};

// What one request saw. Seconds.
struct Served {
  double arrived_s = 0;
  double first_token_s = 0;
  double done_s = 0;
  int32_t input = 0, output = 0;
  int32_t cached = 0;  // tokens of the prompt that were found in the prefix cache
  double chip_s = 0;   // of launches, its part

  double TimeToFirstToken() const { return first_token_s - arrived_s; }
  // Between two tokens, on average after the first; 0 for one token.
  double TimePerToken() const { return output > 1 ? (done_s - first_token_s) / (output - 1) : 0; }
};

struct ServingResult {
  std::vector<Served> requests;  // in the order in which they arrived
  double seconds = 0;            // from the first arrival to the last answer
  int64_t steps = 0;
  // Of one chip; of a pipeline's chips, on average.
  double busy_s = 0;  // launches, as the host waits for them
  std::array<double, device::chip::kUnitCount> unit_busy_s{};
  std::array<double, device::chip::kUnitCount> unit_joules{};  // beyond idle
  device::chip::Traffic traffic;
  double joules = 0;                  // of all chips, idle time between launches included
  device::chip::Footprint footprint;  // of the stage that has room for the fewest pages
  int64_t kv_pages = 0;
  int64_t preemptions = 0;
  // Of one rank, all stages together.
  std::array<device::chip::OpcodeTime, isa::kOpcodeCount> by_opcode{};
};

// Errors: kNoCapacity ("does not fit", with the arithmetic); kOutOfRange (a request that the
// context cannot hold); those of the engine.
Result<ServingResult> SimulateServing(const ServingSetup& setup, const Workload& workload);

}  // namespace millpower::plan
