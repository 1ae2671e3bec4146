// millpower simulate: what serving a model would be like on a chip that need not exist.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/planning.h"

namespace millpower::cli {
namespace {

struct Flags {
  PlanFlags plan;
  std::string chip = "h100";
  int chips = 1;
  std::string trace;
  std::string slo;
  int max_chips = 64;
  bool json = false;
  bool opcodes = false;
};

Json TrialJson(const plan::Trial& trial) {
  Json entry = ToJson(trial.layout);
  entry["meets"] = trial.meets();
  if (trial.outcome) {
    entry["report"] = trial.outcome->json;
    entry["missed"] = trial.missed;
  } else {
    entry["error"] = trial.error;
  }
  return entry;
}

Json SizingJson(const Flags& flags, const device::chip::Chip& chip, const Sizing& sizing) {
  const auto chips = [](const plan::Found& found) {
    return found.best ? Json(found.best->chips()) : Json(nullptr);
  };
  Json out{{"model", flags.plan.model},    {"chip", chip.name}, {"slo", flags.slo},
           {"max_chips", flags.max_chips}, {"chips", nullptr},  {"assumed", chip.assumed},
           {"tried", Json::array()}};
  if (sizing.value.best) {
    out.update(ToJson(*sizing.value.best));
    out["usd_per_hour"] = sizing.value.best->chips() * chip.price_usd_per_hour.value;
  }
  if (sizing.low) out["chips_low"] = chips(*sizing.low);
  if (sizing.high) out["chips_high"] = chips(*sizing.high);
  for (const plan::Trial& trial : sizing.value.tried) out["tried"].push_back(TrialJson(trial));
  return out;
}

void PrintSizing(const Flags& flags, const device::chip::Chip& chip, const Sizing& sizing) {
  for (const plan::Trial& trial : sizing.value.tried) {
    std::string verdict = trial.error;
    if (trial.meets()) verdict = "meets " + flags.slo;
    if (!trial.missed.empty()) verdict = fmt::format("misses {}", fmt::join(trial.missed, ", "));
    fmt::print("{:>4} x {:<3}{}\n", trial.layout.replicas, trial.layout.chips_per_replica, verdict);
  }
  const auto chips = [&](const plan::Found& found) {
    return found.best ? std::to_string(found.best->chips())
                      : fmt::format("over {}", flags.max_chips);
  };
  const std::optional<plan::Layout>& best = sizing.value.best;
  if (best) {
    const double price = best->chips() * chip.price_usd_per_hour.value;
    fmt::print("{} of {} {} enough{}\n", ToString(*best), chip.name,
               best->chips() == 1 ? "is" : "are",
               price > 0 ? fmt::format(", for {:.4g} $/h", price) : "");
  } else {
    fmt::print("no layout of up to {} chips meets {}\n", flags.max_chips, flags.slo);
  }
  if (sizing.low && sizing.high)
    fmt::print("with assumed figures all at their good or all at their bad end: {} to {} chips\n",
               chips(*sizing.high), chips(*sizing.low));
}

Result<void> Simulate(const Flags& flags) {
  TRY_ASSIGN(const device::chip::Chip chip, device::chip::ReadChip(flags.chip));
  if (!flags.slo.empty()) {
    TRY_ASSIGN(const Sizing sizing, SizeFor(flags.plan, chip, flags.slo, flags.max_chips));
    if (flags.json)
      fmt::print("{}\n", SizingJson(flags, chip, sizing).dump(2));
    else
      PrintSizing(flags, chip, sizing);
    return {};
  }
  const auto start = std::chrono::steady_clock::now();
  std::unique_ptr<device::TraceFile> trace;
  if (!flags.trace.empty()) {
    TRY_ASSIGN(trace, device::TraceFile::Open(flags.trace));
  }
  TRY_ASSIGN(const Planned planned, Plan(flags.plan, chip, flags.chips, trace.get()));
  if (trace) TRY(trace->Close());
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (flags.json) {
    Json out = ToJson(planned);
    out["host_seconds"] = took;
    fmt::print("{}\n", out.dump(2));
  } else {
    PrintTable(planned.model, {{planned.chip, planned.layout, planned, ""}});
    if (flags.opcodes) PrintOpcodes(planned);
    fmt::print("simulated {:.1f} s in {:.2f} s\n", planned.value.outcome.seconds, took);
  }
  return {};
}

}  // namespace

Command AddSimulate(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "simulate", "Serve a model in virtual time on a described chip: latency, energy, money");
  auto flags = std::make_shared<Flags>();
  AddPlanFlags(*command, flags->plan);
  command
      ->add_option("--chip", flags->chip,
                   "A built-in chip (h100, a100, millpower-1, ...) or a description's path")
      ->capture_default_str();
  command
      ->add_option("--chips", flags->chips,
                   "Chips of a replica, which run the model together (tensor parallel)")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option(
      "--slo", flags->slo,
      "Find the fewest chips that meet this, in replicas of 1, 2, 4 ... chips, e.g. "
      "ttft_p99_s=1,tpot_p99_ms=50, or for a recommender p99_ms=10");
  command->add_option("--max-chips", flags->max_chips, "Chips that --slo may use")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--trace", flags->trace,
                      "Write every instruction's time in Chrome's trace format (ui.perfetto.dev)");
  command->add_flag("--opcodes", flags->opcodes, "Print time and energy by opcode, too");
  command->add_flag("--json", flags->json, "Print everything as JSON");
  return [flags] { return Simulate(*flags); };
}

}  // namespace millpower::cli
