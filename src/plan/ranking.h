// Ranking in virtual time: the engine that answers queries to recommenders, with its dynamic
// batching, on the device that times a described chip.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "plan/chip_use.h"
#include "plan/workload.h"
#include "ranking/signature.h"

namespace millpower::plan {

// Which rows of tables are looked up is no matter of the inputs, which are zeros: the device takes
// of each lookup what the routing model says (device/chip/routing.h).
struct RankingSetup : Deployment {
  ranking::Signature signature;
  int64_t max_batch = 0;           // candidates of one launch; 0: the Program's bound
  int64_t max_queue_delay_us = 0;  // how long a query may wait for others to share its launch
  int64_t ids_per_bag = 1;         // of inputs whose bags are cut by offsets: ids of each candidate
};

// What one query saw. Seconds.
struct Answered {
  double arrived_s = 0;
  double done_s = 0;
  int32_t items = 0;
  double chip_s = 0;  // of launches, its part
};

struct RankingResult : ChipTotals {
  std::vector<Answered> requests;  // by replica, then in the order in which they arrived
  double seconds = 0;              // from the first arrival to the last answer
  double joules = 0;               // of all chips, idle time between launches included
  device::chip::Footprint footprint;
};

// Arrival::input is a query's candidates: its rows along the batch symbol. Dimensions besides the
// batch and bags are as large as the Program allows.
// Errors: kNoCapacity ("does not fit", with the arithmetic); kUnsupported (several ranks);
// kOutOfRange (a query larger than a launch); those of the engine.
Result<RankingResult> SimulateRanking(const RankingSetup& setup, const Workload& workload);

}  // namespace millpower::plan
