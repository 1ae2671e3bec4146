// What `simulate` and `compare` share: a model without weights, a workload, and chips make a
// report, with a range where figures of the chip are assumed.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/tensor_flags.h"
#include "device/chip/chip_device.h"
#include "device/trace.h"
#include "plan/report.h"
#include "plan/search.h"

namespace millpower::cli {

struct PlanFlags {
  std::string model;
  ModelFlags shared;  // weights, kv
  int32_t concurrency = 0;
  double rate = 0;
  std::string requests_file;
  int64_t requests = 0;
  int replicas = 1;
  // Of language models.
  int32_t input = 1024, output = 128;
  int64_t max_batch_tokens = 8192;
  int64_t max_num_seqs = 256;
  int stages = 1;  // of a pipeline; the chips are split evenly among them
  std::string experts = "uniform";
  bool prefix_cache = true;
  // Of recommenders.
  TensorFlags tensor;
  int32_t items = 128;
  int64_t ids_per_bag = 1;
  int64_t max_queue_delay_us = 0;
  double zipf = 0;

  double grid_g_per_kwh = 400;
  uint64_t seed = 1;
};
void AddPlanFlags(CLI::App& command, PlanFlags& flags);

// Whether a model is asked queries rather than prompts: a published recommender's name, or a file
// of tensors.
bool IsRecommender(const std::string& model);

// What came of one simulation.
struct Simulated {
  plan::Outcome outcome;
  plan::ChipTotals totals;
  device::chip::Footprint footprint;
  int64_t kv_pages = 0;  // of each replica
};

// A model, compiled for groups of so many chips, and its load. Immutable.
class Planner {
 public:
  // Errors: kNotFound, kInvalidArgument (flags); kUnsupported (no such groups); the compiler's.
  static Result<Planner> Make(const PlanFlags& flags, int chips_per_replica);

  // `settled`: Chip::At. `on_launch`: see plan::Deployment; may be null.
  // Errors: kNoCapacity (does not fit, with the arithmetic), kUnsupported (the chip computes no
  // such numbers, or joins fewer chips).
  Result<Simulated> Run(
      const device::chip::Chip& settled, int replicas,
      std::function<void(const device::chip::LaunchReport&)> on_launch = nullptr) const;

  const plan::Workload& workload() const { return workload_; }

 private:
  std::variant<plan::ServingSetup, plan::RankingSetup> setup_;  // but for chip and replicas
  plan::Workload workload_;
  double grid_g_per_kwh_ = 0;
};

struct Planned {
  device::chip::Chip chip;
  std::string model;
  plan::Layout layout;
  Simulated value;
  // With every assumed figure at its bad end, and at its good end; absent when none is assumed.
  std::optional<plan::Outcome> low, high;
};

// `trace`: null, or where launches are written. Errors: those of Planner.
Result<Planned> Plan(const PlanFlags& flags, const device::chip::Chip& chip, int chips_per_replica,
                     device::TraceFile* trace);

Json ToJson(const Planned& planned);

// The fewest chips that keep latencies within bounds, with figures as they are and, where some are
// assumed, all at their bad and all at their good end.
struct Sizing {
  plan::Found value;
  std::optional<plan::Found> low, high;
};
// `flags.replicas` does not matter. Errors: those of Planner that are no verdicts;
// kInvalidArgument (the objectives).
Result<Sizing> SizeFor(const PlanFlags& flags, const device::chip::Chip& chip,
                       const std::string& objectives, int max_chips);
Json ToJson(const plan::Layout& layout);
// "2 replicas of 4 chips", "3 chips".
std::string ToString(const plan::Layout& layout);

// A chip of a table: what was planned, or why it could not be.
struct Column {
  device::chip::Chip chip;
  plan::Layout layout;
  std::optional<Planned> planned;
  std::string error;
};
// Wide enough for every cell; errors are wrapped in theirs.
void PrintTable(const std::string& model, const std::vector<Column>& columns);
void PrintOpcodes(const Planned& planned);

}  // namespace millpower::cli
