// Serving a language model in virtual time: the engine that serves traffic, with its scheduler, KV
// pages and prefix cache, on the device that times a described chip.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "device/chip/chip_device.h"
#include "plan/chip_use.h"
#include "plan/workload.h"

namespace millpower::plan {

// As many engines as a pipeline has stages serve a replica's requests in turn, each with its part
// of the KV pages, so that every stage has something to do.
struct ServingSetup : Deployment {
  int64_t kv_pages = 0;          // 0: what fits
  double kv_memory_share = 0.9;  // of what is left beside weights and scratch
  bool prefix_cache = true;
  // The host plans the next launch before the one under way is over, as serving loops do that hide
  // their host's work behind the chip's: what comes during a launch misses the next one.
  bool plans_ahead = false;
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

struct ServingResult : ChipTotals {
  std::vector<Served> requests;  // by replica and engine, then in the order in which they arrived
  double seconds = 0;            // from the first arrival to the last answer
  double joules = 0;             // of all chips, idle time between launches included
  device::chip::Footprint footprint;  // of the stage that has room for the fewest pages
  int64_t kv_pages = 0;               // of each replica
  int64_t preemptions = 0;
};

// Errors: kNoCapacity ("does not fit", with the arithmetic); kOutOfRange (a request that the
// context cannot hold); those of the engine.
Result<ServingResult> SimulateServing(const ServingSetup& setup, const Workload& workload);

}  // namespace millpower::plan
