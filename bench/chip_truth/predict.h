// What a chip is predicted to take for what a row measured: the row's operator as a graph, compiled
// to a Program, timed by the chip device.
#pragma once

#include <optional>
#include <string>

#include "chip_truth/rows.h"
#include "device/chip/description.h"
#include "device/trace.h"

namespace millpower::truth {

struct Prediction {
  std::string group;  // rows that are scored together: the type of numbers, the operation
  std::string shape;  // for people
  double predicted_s = 0;
  double measured_s = 0;
};

class Predictor {
 public:
  // `chip`: with figures settled. `trace`: null, or where each row's instructions are written, one
  // row after the other.
  Predictor(device::chip::Chip chip, device::TraceFile* trace);

  // One of each quantity that a row of this kind measures (serving: TTFT and TPOT; a decode rate:
  // the time between two tokens of a sequence).
  // Errors: kUnsupported, naming a type or setting that the instruction set does not have (the row
  // is refused, not scored); kInvalidArgument, naming line and column.
  Result<std::vector<Prediction>> Predict(Kind kind, const Row& row);

 private:
  device::chip::Chip chip_;
  device::TraceFile* trace_;
  double trace_us_ = 0;
};

}  // namespace millpower::truth
