#include "plan/chip_use.h"

#include <algorithm>

namespace millpower::plan {
namespace {

namespace chip = device::chip;

constexpr double kJoulesPerKwh = 3.6e6;
constexpr double kLeastSeconds = 1e-12;  // to divide by

}  // namespace

void ChipTotals::Add(const chip::LaunchReport& report) {
  const chip::LaunchTime& time = *report.time;
  Add({.steps = report.stage == 0,
       .busy_s = static_cast<double>(report.end_ns - report.start_ns) * 1e-9,
       .unit_busy_s = time.busy_s,
       .unit_joules = time.unit_joules,
       .traffic = time.traffic,
       .by_opcode = time.by_opcode});
}

void ChipTotals::Add(const ChipTotals& other) {
  steps += other.steps;
  busy_s += other.busy_s;
  for (size_t unit = 0; unit < chip::kUnitCount; ++unit) {
    unit_busy_s[unit] += other.unit_busy_s[unit];
    unit_joules[unit] += other.unit_joules[unit];
  }
  for (size_t op = 0; op < isa::kOpcodeCount; ++op) {
    by_opcode[op].instructions += other.by_opcode[op].instructions;
    by_opcode[op].seconds += other.by_opcode[op].seconds;
    by_opcode[op].joules += other.by_opcode[op].joules;
  }
  traffic += other.traffic;
}

double ChipTotals::Joules(const Deployment& deployment, double seconds) const {
  const int stages = deployment.replicas * deployment.stage_count();
  double joules = stages * deployment.chip.idle_w.value * seconds;
  for (const double unit : unit_joules) joules += unit;
  return deployment.ranks * joules;
}

ChipUse UseOf(const ChipTotals& totals, const Deployment& deployment, double seconds) {
  ChipUse use;
  use.seconds = seconds;
  use.steps = totals.steps;
  const double all =
      std::max(seconds, kLeastSeconds) * deployment.replicas * deployment.stage_count();
  use.launched = totals.busy_s / all;
  size_t busiest = 0;
  for (size_t unit = 0; unit < chip::kUnitCount; ++unit) {
    use.utilisation[unit] = totals.unit_busy_s[unit] / all;
    if (use.utilisation[unit] > use.utilisation[busiest]) busiest = unit;
  }
  use.bottleneck =
      use.launched < 0.5 ? "host or arrivals" : chip::Name(static_cast<chip::Unit>(busiest));
  const double busy = std::max(totals.busy_s, kLeastSeconds);
  use.memory_bytes_per_s = (totals.traffic.memory_read + totals.traffic.memory_written) / busy;
  use.matrix_ops_per_s = totals.traffic.matrix_ops / busy;
  use.average_w =
      totals.Joules(deployment, seconds) / deployment.chips() / std::max(seconds, kLeastSeconds);
  return use;
}

Json ToJson(const ChipUse& use) {
  Json utilisation;
  for (size_t unit = 0; unit < chip::kUnitCount; ++unit)
    utilisation[chip::Name(static_cast<chip::Unit>(unit))] = use.utilisation[unit];
  return {{"seconds", use.seconds},
          {"steps", use.steps},
          {"launched", use.launched},
          {"utilisation", utilisation},
          {"bottleneck", use.bottleneck},
          {"memory_bytes_per_s", use.memory_bytes_per_s},
          {"matrix_ops_per_s", use.matrix_ops_per_s},
          {"average_w", use.average_w}};
}

double GramsOf(double joules, double grid_g_per_kwh) {
  return joules / kJoulesPerKwh * grid_g_per_kwh;
}

double UsdOf(const Deployment& deployment, double seconds) {
  return deployment.chip.price_usd_per_hour.value * deployment.chips() * seconds / 3600;
}

}  // namespace millpower::plan
