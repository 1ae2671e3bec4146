// A device that computes nothing and knows how long a described chip would have taken: the other
// device beside cpu/. Engines drive it under a virtual clock, which it moves.
//
// Outputs are stand-ins: `sample` draws tokens from the launch's seeds alone, never a padding or
// end; other outputs are zeros. Output lengths and shared prefixes come from the workload.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.h"
#include "device/chip/description.h"
#include "device/chip/expand.h"
#include "device/chip/timer.h"
#include "device/chip/turns.h"
#include "device/device.h"

namespace millpower::device::chip {

// What a launch took, told when it completes; valid during the call.
struct LaunchReport {
  const Timer* timer = nullptr;  // what its instructions asked for
  const LaunchTime* time = nullptr;
  std::span<const Span> spans;  // when each ran, from the launch's start; empty if not wanted
  int64_t start_ns = 0;         // by the clock
  int64_t end_ns = 0;           // of the chip's part
  int stage = 0;                // of a pipeline
};

// Which stage of a pipeline (device/pipeline.h) a device runs, and with whom it shares the chips.
struct StageOptions {
  int stage = 0;
  int stages = 1;
  // Null: it has them alone. Else launches wait for the turn of `user`.
  std::shared_ptr<Turns> turns;
  int user = 0;
};

struct ChipOptions {
  Chip chip;  // with figures settled (Chip::At)
  ExpandOptions expand;
  // Null: time does not pass. Else Complete moves it by what the launch took: the chip's part, then
  // the host's (Chip::host_s, of a pipeline's last stage, and sampling_s where the Program
  // samples).
  VirtualClock* clock = nullptr;
  // Of a later stage, each launch first receives its inputs of f32 from the stage before
  // (ReceiveWork). They go from chip to chip: their values are nobody's, and outputs of all stages
  // but the last are empty.
  StageOptions stage;
  // Called at the end of Complete, in its thread; may be null. Moves of the clock come before it.
  std::function<void(const LaunchReport&)> on_launch;
  bool with_spans = false;
};

// Bytes on one chip of what a Program needs, and whether there is room.
struct Footprint {
  int64_t weights = 0;
  int64_t scratch = 0;   // at the Program's bounds, in the chip's activation type
  int64_t kv_page = 0;   // of one page
  int64_t kv_pages = 0;  // that fit beside them
  int64_t memory = 0;
};
// Errors: kNoCapacity when weights and scratch alone do not fit, with the arithmetic.
Result<Footprint> FootprintOn(const Chip& chip, const isa::Program& program);

// Weights of Load are not looked at, and may be empty. Load's errors: kNoCapacity, with the
// arithmetic, when weights, scratch and pages do not fit in the chip's memory.
std::unique_ptr<Device> MakeChipDevice(ChipOptions options);

}  // namespace millpower::device::chip
