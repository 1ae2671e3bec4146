// host_truth: the timing device against the stopwatch, on the machine it runs on. Models with
// random weights run on the CPU device; the same Programs are timed on the description that the
// probe makes of this machine, just before. Machines drift: the probe's two measures of speed are
// taken beside every step. docs/chip.md has the results.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>

#include "base/json.h"
#include "base/system.h"
#include "device/probe/probe.h"
#include "host_truth/model.h"
#include "isa/opcodes.h"

namespace millpower::truth {
namespace {

namespace probe = device::probe;

struct Flags {
  std::vector<std::string> models = {"qwen3-0.6b", "qwen3-1.7b", "dlrm"};
  std::vector<int64_t> batches = {1, 2, 4, 8, 16, 32};
  std::string weights = "bf16";
  std::string dump, chip;
  double probe_s = 15;
  double case_s = 6;
  int rounds = 5;
  int64_t context = 256;
  int threads = 0;
  bool opcodes = false;
  bool points = false;
  bool json = false;
};

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Of one round: of many short steps what three in four exceed, as the probe has it of its short
// launches: quiet moments on both sides.
double OfRound(std::vector<double> times) {
  std::ranges::sort(times);
  return times[times.size() / 4];
}

struct OpcodeRow {
  double predicted_s = 0, measured_s = 0;
};

struct Row {
  std::string model, name;
  double predicted_s = 0, measured_s = 0;  // medians
  double ratio = 1;                        // median of predicted / measured, step by step
  double spread = 0;                       // of measured, (p75 - p25) / median
  std::map<std::string, OpcodeRow> opcodes;
  double Error() const { return std::abs(ratio - 1); }
};

std::vector<StepCase> CasesOf(const std::string& model, const Flags& flags) {
  std::vector<StepCase> cases;
  for (const int64_t batch : flags.batches) {
    if (model == "dlrm") {
      cases.push_back({.name = fmt::format("batch {}", batch), .batch = batch});
      continue;
    }
    cases.push_back({.name = fmt::format("decode, batch {} at {}", batch, flags.context),
                     .batch = batch,
                     .first = flags.context});
  }
  if (model == "dlrm") return cases;
  for (const int64_t batch : flags.batches) {
    const int64_t rows = std::max<int64_t>(4, 128 / batch);
    cases.push_back({.name = fmt::format("prefill, batch {} of {}", batch, rows),
                     .prefill = true,
                     .batch = batch,
                     .rows = rows});
  }
  return cases;
}

std::map<std::string, double> MeasuredOpcodes(device::cpu::Profile& profile) {
  std::map<std::string, double> seconds;
  for (const auto& line : profile.Lines())
    seconds[isa::Info(line.op).name] += static_cast<double>(line.ns) * 1e-9;
  return seconds;
}

// Steps of one kind, each between two looks at the machine's speed.
Result<Row> RunCase(const Flags& flags, probe::Prober& prober, const probe::Description& described,
                    HostModel& model, const StepCase& step) {
  Row row;
  row.name = step.name;
  std::vector<double> ratios, measured, predicted;
  model.Set(step);
  TRY(model.Run());  // warms up
  TRY_ASSIGN(const Measured warm, model.Run());
  std::map<std::string, double> before_s = MeasuredOpcodes(model.profile());
  double steps = 0, spent_s = 0;
  TRY_ASSIGN(probe::Speeds before, prober.Measure(warm.seconds));
  for (int round = 0; round < flags.rounds || spent_s < flags.case_s / 4; ++round) {
    if (round >= 3 && spent_s > flags.case_s) break;
    std::vector<double> times;
    double round_s = 0;
    // Short steps several times, so that a round is about as long as what measures the speed.
    while (times.empty() || (round_s < 0.05 && times.size() < 2000)) {
      model.Set(step);
      TRY_ASSIGN(const Measured took, model.Run());
      times.push_back(took.seconds);
      round_s += took.seconds;
      steps += 1;
    }
    spent_s += round_s;
    TRY_ASSIGN(const probe::Speeds after, prober.Measure(warm.seconds));
    const probe::Speeds between = {(before.product_s + after.product_s) / 2,
                                   (before.pass_s + after.pass_s) / 2};
    before = after;
    const device::chip::Chip chip =
        flags.chip.empty() ? probe::AtSpeeds(described, between, warm.seconds) : described.chip;
    TRY_ASSIGN(const device::chip::LaunchTime time, model.Predict(chip));
    const double predicted_s = chip.launch_s.value + time.seconds;
    measured.push_back(OfRound(times));
    predicted.push_back(predicted_s);
    ratios.push_back(predicted_s / measured.back());
    for (int op = 0; op < isa::kOpcodeCount; ++op)
      if (time.by_opcode[static_cast<size_t>(op)].instructions > 0)
        row.opcodes[isa::Info(static_cast<isa::Opcode>(op)).name].predicted_s +=
            time.by_opcode[static_cast<size_t>(op)].seconds * static_cast<double>(times.size());
  }
  for (const auto& [name, seconds] : MeasuredOpcodes(model.profile()))
    row.opcodes[name].measured_s = (seconds - before_s[name]) / steps;
  for (auto& [name, opcode] : row.opcodes) opcode.predicted_s /= steps;
  row.ratio = Median(ratios);
  row.measured_s = Median(measured);
  row.predicted_s = Median(predicted);
  std::ranges::sort(measured);
  row.spread = (measured[measured.size() * 3 / 4] - measured[measured.size() / 4]) / row.measured_s;
  return row;
}

void Print(const Flags& flags, const Row& row) {
  fmt::print(
      "{:<11} {:<26} predicted {:9.3f} ms  measured {:9.3f} ms  {:+6.1f}%  (spread {:.0f}%)\n",
      row.model, row.name, 1e3 * row.predicted_s, 1e3 * row.measured_s, 100 * (row.ratio - 1),
      100 * row.spread);
  if (flags.opcodes)
    for (const auto& [name, opcode] : row.opcodes)
      fmt::print("    {:<16} predicted {:9.3f} ms  measured {:9.3f} ms\n", name,
                 1e3 * opcode.predicted_s, 1e3 * opcode.measured_s);
  std::fflush(stdout);
}

struct Score {
  double mean = 0, median = 0, p90 = 0, worst = 0;  // percent
  size_t rows = 0;
};

Score ScoreOf(const std::vector<Row>& rows, const std::string& model) {
  std::vector<double> errors;
  for (const Row& row : rows)
    if (model.empty() || row.model == model) errors.push_back(100 * row.Error());
  Score score;
  score.rows = errors.size();
  if (errors.empty()) return score;
  std::ranges::sort(errors);
  for (const double error : errors) score.mean += error / static_cast<double>(errors.size());
  score.median = Median(errors);
  score.p90 = errors[(errors.size() * 9 + 9) / 10 - 1];
  score.worst = errors.back();
  return score;
}

Json ToJson(const Score& score) {
  return {{"mean_error_percent", score.mean},
          {"median_error_percent", score.median},
          {"p90_error_percent", score.p90},
          {"worst_error_percent", score.worst},
          {"rows", score.rows}};
}

Json ToJson(const std::vector<Row>& rows, const Flags& flags) {
  Json out = ToJson(ScoreOf(rows, ""));
  for (const std::string& model : flags.models) out["models"][model] = ToJson(ScoreOf(rows, model));
  out["cases"] = Json::array();
  for (const Row& row : rows) {
    Json entry = {{"model", row.model},
                  {"case", row.name},
                  {"predicted_ms", 1e3 * row.predicted_s},
                  {"measured_ms", 1e3 * row.measured_s},
                  {"error_percent", 100 * (row.ratio - 1)},
                  {"spread_percent", 100 * row.spread}};
    for (const auto& [name, opcode] : row.opcodes)
      entry["opcodes"][name] = {{"predicted_ms", 1e3 * opcode.predicted_s},
                                {"measured_ms", 1e3 * opcode.measured_s}};
    out["cases"].push_back(std::move(entry));
  }
  return out;
}

Result<void> Run(const Flags& flags) {
  probe::ProbeOptions options;
  options.threads = flags.threads > 0 ? flags.threads : UsableCpuCount();
  options.seconds = flags.probe_s;
  TRY_ASSIGN(const auto prober, probe::Prober::Make(options));
  std::vector<Row> rows;
  for (const std::string& name : flags.models) {
    HostModelOptions what;
    what.name = name;
    what.threads = options.threads;
    what.profiled = flags.opcodes;
    what.max_batch = *std::ranges::max_element(flags.batches);
    what.max_positions = flags.context + isa::kPagePositions;
    if (name != "dlrm") {
      const auto type = flags.weights == "int8"   ? DTypeFromName("q8_0")
                        : flags.weights == "int4" ? DTypeFromName("q4_0")
                                                  : DTypeFromName(flags.weights);
      if (!type) return Fail(ErrorCode::kInvalidArgument, "--weights " + flags.weights);
      what.weight_type = *type;
    }
    TRY_ASSIGN(const auto model, HostModel::Load(what));
    // Anew for each model.
    TRY_ASSIGN(probe::Description described, prober->Describe());
    if (!flags.chip.empty()) {
      TRY_ASSIGN(const device::chip::Chip chip, device::chip::ReadChip(flags.chip));
      described.chip = chip.At(device::chip::Bound::kValue);
    }
    if (!flags.dump.empty()) std::ofstream(flags.dump) << described.toml;
    if (!flags.json)
      fmt::print("probed: its own points come out within {:.1f}% on average\n",
                 100 * described.fit_error);
    if (flags.points && !flags.json)
      for (const probe::PointResult& point : described.points)
        fmt::print("    {:<40} {:10.2f} us {:+6.1f}%\n", point.name, point.measured_s * 1e6,
                   100 * (point.predicted_s / point.measured_s - 1));
    for (const StepCase& step : CasesOf(name, flags)) {
      TRY_ASSIGN(Row row, RunCase(flags, *prober, described, *model, step));
      row.model = name;
      if (!flags.json) Print(flags, row);
      rows.push_back(std::move(row));
    }
  }
  if (flags.json) {
    fmt::print("{}\n", ToJson(rows, flags).dump(2));
    return {};
  }
  const auto print = [](const std::string& name, const Score& score) {
    fmt::print("{:<11} {:>3} cases  mean {:.1f}%  median {:.1f}%  p90 {:.1f}%  worst {:.1f}%\n",
               name, score.rows, score.mean, score.median, score.p90, score.worst);
  };
  for (const std::string& model : flags.models) print(model, ScoreOf(rows, model));
  print("all", ScoreOf(rows, ""));
  return {};
}

int Main(int argc, char** argv) {
  CLI::App app("Holds the timing device to the stopwatch on this machine.", "host_truth");
  Flags flags;
  app.add_option("--models", flags.models, "dlrm, or published names of language models")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--batches", flags.batches, "Sequences of a step")
      ->delimiter(',')
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  app.add_option("--weights", flags.weights, "bf16, f32, int8, int4, or a block type")
      ->capture_default_str();
  app.add_option("--context", flags.context, "Positions behind each decoded token")
      ->check(CLI::Range(1, 32768))
      ->capture_default_str();
  app.add_option("--rounds", flags.rounds, "Steps of a kind, between looks at the machine's speed")
      ->check(CLI::Range(3, 1000))
      ->capture_default_str();
  app.add_option("--case-seconds", flags.case_s, "Spent on steps of a kind, about, after three")
      ->capture_default_str();
  app.add_option("--probe-seconds", flags.probe_s, "Spent on the probe before each model")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "0: all of the machine")->capture_default_str();
  app.add_option("--dump", flags.dump, "Write the probe's description here");
  app.add_option("--chip", flags.chip,
                 "Predict by this description as it is, instead of by the probe's");
  app.add_flag(
      "--opcodes", flags.opcodes,
      "Print what each opcode takes, too; looking at the clock so often slows small steps");
  app.add_flag("--points", flags.points, "Print what the probe measured, too");
  app.add_flag("--json", flags.json, "Print as JSON");
  CLI11_PARSE(app, argc, argv);
  const Result<void> done = Run(flags);
  if (done) return 0;
  fmt::print(stderr, "host_truth: error: {}\n", done.error().message);
  return 1;
}

}  // namespace
}  // namespace millpower::truth

int main(int argc, char** argv) { return millpower::truth::Main(argc, argv); }
