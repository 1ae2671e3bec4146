// What `simulate` and `compare` share: a model without weights, a workload, and a chip make a
// report, with a range where figures of the chip are assumed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "cli/commands.h"
#include "device/chip/chip_device.h"
#include "device/trace.h"
#include "plan/report.h"

namespace millpower::cli {

struct PlanFlags {
  std::string model;
  ModelFlags shared;  // weights, kv
  int32_t concurrency = 0;
  double rate = 0;
  std::string requests_file;
  int64_t requests = 0;
  int32_t input = 1024, output = 128;
  int64_t max_batch_tokens = 8192;
  int64_t max_num_seqs = 256;
  int stages = 1;  // of a pipeline; the chips are split evenly among them
  std::string experts = "uniform";
  double zipf = 0;
  bool prefix_cache = true;
  double grid_g_per_kwh = 400;
  uint64_t seed = 1;
};
void AddPlanFlags(CLI::App& command, PlanFlags& flags);

struct Planned {
  device::chip::Chip chip;
  std::string model;
  int chips = 1;
  plan::ServingReport value;
  // With every assumed figure at its bad end, and at its good end; absent when none is assumed.
  std::optional<plan::ServingReport> low, high;
  plan::ServingResult result;  // behind `value`
};

// `trace`: null, or where launches are written.
// Errors: kNoCapacity (does not fit, with the arithmetic); kNotFound, kInvalidArgument (flags).
Result<Planned> Plan(const PlanFlags& flags, const device::chip::Chip& chip, int chips,
                     device::TraceFile* trace);

Json ToJson(const Planned& planned);

// A chip of a table: what was planned, or why it could not be.
struct Column {
  device::chip::Chip chip;
  int chips = 1;
  std::optional<Planned> planned;
  std::string error;
};
// Why a plan failed is something to show beside others, and no mistake of the flags: it does not
// fit, or the chip cannot compute it.
bool IsVerdict(const Error& error);
// Wide enough for every cell; errors are wrapped in theirs.
void PrintTable(const std::string& model, const std::vector<Column>& columns);
void PrintOpcodes(const Planned& planned);

}  // namespace millpower::cli
