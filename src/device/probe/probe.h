// Measures the machine that it runs on, and describes it as a chip (chips/host.toml has the form).
//
// Little Programs, each of one kind of instruction, run on the CPU device in turns, again and again
// until the time is up; the constants of the host's cost functions (chip/cost_host.h) are those
// with which the timing device says most nearly what was measured. Machines are shared and drift
// from one second to the next: so every time is taken beside a product and a pass through memory
// that serve as measures of the machine's speed at that moment, and medians count.
//
// docs/chip.md says what is measured and how well it predicts.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/chip/description.h"
#include "kernels/kernels.h"

namespace millpower::device::probe {

struct ProbeOptions {
  int threads = 1;
  const kernels::KernelSet* kernels = nullptr;  // null: the fastest this machine has
  double seconds = 15;  // of measuring; every point is measured once at least
  // Taken to measure with, about: weights and pages that caches must not hold. Less, as in tests,
  // makes results rough.
  int64_t memory_bytes = int64_t{1} << 30;
  std::function<void(double share)> progress = {};  // 0 to 1, now and then; may be null
};

// How fast the machine is at a moment, by two measures that everything else is held to.
struct Speeds {
  double product_s = 0;  // a product whose weights caches hold, by all threads
  double pass_s = 0;     // a pass through weights in memory, by all threads
};

// One of the little Programs that were measured.
struct PointResult {
  std::string name;
  double measured_s = 0, predicted_s = 0;  // the latter by the description
};

struct Description {
  std::string toml;
  chip::Chip chip;  // the same, parsed, with figures settled
  // While it was measured, by short launches and by long ones.
  Speeds short_speeds, long_speeds;
  std::vector<PointResult> points;
  double fit_error = 0;  // mean |ln(predicted / measured)| of the probe's own points
};

class Prober {
 public:
  // Errors: kNoCapacity.
  static Result<std::unique_ptr<Prober>> Make(const ProbeOptions& options);
  virtual ~Prober() = default;

  // Errors: those of the device.
  virtual Result<Description> Describe() = 0;

  // The machine's speed now, for launches of about `step_s`, takes some 100 ms: by short launches
  // or by long ones, because where others work on the machine, threads come late to short ones, and
  // wait for each other more often.
  virtual Result<Speeds> Measure(double step_s) = 0;
};

// The described machine at another moment: what its cores do goes by product_s, what its memory
// does by pass_s. `now` is what Measure(step_s) found.
chip::Chip AtSpeeds(const Description& description, const Speeds& now, double step_s);

}  // namespace millpower::device::probe
