// millpower simulate: what serving a model would be like on a chip that need not exist.
#include <fmt/format.h>

#include <algorithm>
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
  bool json = false;
  bool opcodes = false;
};

// The fewest chips, from what Programs can be split to, with which all objectives are met.
constexpr int kChipCounts[] = {1, 2, 4, 8, 16, 32};

Result<Json> SearchChips(const Flags& flags, const device::chip::Chip& chip) {
  TRY_ASSIGN(const auto objectives, plan::ParseObjectives(flags.slo));
  Json tried = Json::array();
  for (const int chips : kChipCounts) {
    if (chips > static_cast<int>(chip.links.max_chips.value)) break;
    const auto planned = Plan(flags.plan, chip, chips, nullptr);
    Json entry{{"chips", chips}};
    if (!planned && planned.error().code != ErrorCode::kNoCapacity &&
        planned.error().code != ErrorCode::kUnsupported)
      return std::unexpected(planned.error());
    if (planned) {
      const auto missed = plan::Missed(objectives, planned->value);
      entry["report"] = plan::ToJson(planned->value);
      entry["missed"] = missed;
      entry["meets"] = missed.empty();
    } else {
      entry["error"] = planned.error().message;
      entry["meets"] = false;
    }
    const bool meets = entry["meets"].get<bool>();
    tried.push_back(std::move(entry));
    if (meets) return Json{{"slo", flags.slo}, {"chips", chips}, {"tried", tried}};
  }
  return Json{{"slo", flags.slo}, {"chips", nullptr}, {"tried", tried}};
}

void PrintSearch(const Json& found) {
  for (const Json& entry : found["tried"]) {
    fmt::print("{:>3} chips: ", entry["chips"].get<int>());
    if (entry.contains("error")) {
      fmt::print("{}\n", entry["error"].get<std::string>());
      continue;
    }
    std::string missed;
    for (const Json& one : entry["missed"])
      missed += (missed.empty() ? "" : ", ") + one.get<std::string>();
    fmt::print("{}\n", entry["meets"].get<bool>() ? "meets the objectives" : "misses " + missed);
  }
  if (found["chips"].is_null())
    fmt::print("no number of chips in one group meets them; several groups share the requests\n");
  else
    fmt::print("{} chips are enough\n", found["chips"].get<int>());
}

Result<void> Simulate(const Flags& flags) {
  TRY_ASSIGN(const device::chip::Chip chip, device::chip::ReadChip(flags.chip));
  if (!flags.slo.empty()) {
    TRY_ASSIGN(const Json found, SearchChips(flags, chip));
    if (flags.json)
      fmt::print("{}\n", found.dump(2));
    else
      PrintSearch(found);
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
    PrintTable(planned.model, {{planned.chip, planned.chips, planned, ""}});
    if (flags.opcodes) PrintOpcodes(planned);
    fmt::print("simulated {:.1f} s in {:.2f} s\n", planned.value.seconds, took);
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
      ->add_option("--chips", flags->chips, "Chips that run the model together (tensor parallel)")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--slo", flags->slo,
                      "Find the fewest chips that meet this, e.g. ttft_p99_s=1,tpot_p99_ms=50");
  command->add_option("--trace", flags->trace,
                      "Write every instruction's time in Chrome's trace format (ui.perfetto.dev)");
  command->add_flag("--opcodes", flags->opcodes, "Print time and energy by opcode, too");
  command->add_flag("--json", flags->json, "Print everything as JSON");
  return [flags] { return Simulate(*flags); };
}

}  // namespace millpower::cli
