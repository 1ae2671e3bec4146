// millpower probe: measures this machine and describes it as a chip.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "base/system.h"
#include "cli/commands.h"
#include "cli/text_file.h"
#include "device/probe/probe.h"

namespace millpower::cli {
namespace {

struct Flags {
  std::string out;
  double seconds = 15;
  bool points = false;
  ModelFlags shared;  // threads and kernels alone
};

Result<void> Probe(const Flags& flags) {
  device::probe::ProbeOptions options;
  TRY_ASSIGN(options.kernels, kernels::SelectKernels(flags.shared.kernels));
  options.threads = flags.shared.threads > 0 ? flags.shared.threads : UsableCpuCount();
  options.seconds = flags.seconds;
  const bool shows = isatty(STDERR_FILENO) == 1;
  int shown = -1;
  options.progress = [&](double share) {
    const int percent = static_cast<int>(100 * share);
    if (!shows && percent / 25 == shown / 25 && shown >= 0) return;
    if (percent == shown) return;
    shown = percent;
    fmt::print(stderr, "{}measuring {}%{}", shows ? "\r" : "", percent, shows ? "" : "\n");
    std::fflush(stderr);
  };
  TRY_ASSIGN(const auto prober, device::probe::Prober::Make(options));
  TRY_ASSIGN(const device::probe::Description described, prober->Describe());
  if (shows) fmt::print(stderr, "\r");
  fmt::print(stderr, "measured {} threads; its own points come out within {:.1f}% on average\n",
             options.threads, 100 * described.fit_error);
  if (flags.points)
    for (const device::probe::PointResult& point : described.points)
      fmt::print(stderr, "{:<40} {:10.2f} us {:+6.1f}%\n", point.name, point.measured_s * 1e6,
                 100 * (point.predicted_s / point.measured_s - 1));
  if (flags.out.empty()) {
    fmt::print("{}", described.toml);
    return {};
  }
  return WriteText(flags.out, described.toml);
}

}  // namespace

Command AddProbe(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "probe", "Measure this machine and describe it as a chip, for simulate and compare");
  command->add_option("--out", flags->out, "File to write; without it, standard output");
  command->add_option("--seconds", flags->seconds, "How long to measure")
      ->check(CLI::Range(0.1, 600.0))
      ->capture_default_str();
  command->add_flag("--points", flags->points,
                    "Tell of each little Program what it took, and how far the description is off");
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Probe(*flags); };
}

}  // namespace millpower::cli
