// chip_truth: scores the timing device against measured rows. Every row goes the whole way: its
// operator is compiled to a Program, which the chip device times. docs/chip.md has the results.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "base/json.h"
#include "chip_truth/predict.h"

namespace millpower::truth {
namespace {

struct Flags {
  std::string chip;
  std::string rows;
  std::string trace;
  std::string dump;
  int worst = 5;
  bool held_out = false;
  bool json = false;
};

struct Scored {
  Prediction prediction;
  int64_t line = 0;
  double Error() const { return std::abs(prediction.predicted_s / prediction.measured_s - 1); }
};

struct Score {
  double mean = 0, median = 0, p90 = 0;  // percent
  std::vector<const Scored*> rows;       // the worst first
};

Score ScoreOf(std::vector<const Scored*> rows) {
  Score score;
  std::ranges::sort(rows, std::greater{}, [](const Scored* row) { return row->Error(); });
  const size_t n = rows.size();
  for (const Scored* row : rows) score.mean += 100 * row->Error() / static_cast<double>(n);
  score.median = 100 * rows[n / 2]->Error();
  score.p90 = 100 * rows[n / 10]->Error();
  score.rows = std::move(rows);
  return score;
}

Json ToJson(const Score& score, int worst) {
  Json rows = Json::array();
  for (const Scored* row :
       std::span(score.rows).first(std::min(score.rows.size(), static_cast<size_t>(worst))))
    rows.push_back({{"line", row->line},
                    {"shape", row->prediction.shape},
                    {"predicted_ms", 1e3 * row->prediction.predicted_s},
                    {"measured_ms", 1e3 * row->prediction.measured_s}});
  return {{"mean_error_percent", score.mean},
          {"median_error_percent", score.median},
          {"p90_error_percent", score.p90},
          {"rows", score.rows.size()},
          {"worst", rows}};
}

void Print(const std::string& name, const Score& score, int worst) {
  fmt::print("{:<24} {:>6} rows  mean {:5.1f}%  median {:5.1f}%  p90 {:5.1f}%\n", name,
             score.rows.size(), score.mean, score.median, score.p90);
  for (const Scored* row :
       std::span(score.rows).first(std::min(score.rows.size(), static_cast<size_t>(worst))))
    fmt::print("    line {:>5}: predicted {:.4g} ms, measured {:.4g} ms: {}\n", row->line,
               1e3 * row->prediction.predicted_s, 1e3 * row->prediction.measured_s,
               row->prediction.shape);
}

Result<void> Run(const Flags& flags) {
  TRY_ASSIGN(const device::chip::Chip described, device::chip::ReadChip(flags.chip));
  TRY_ASSIGN(const Table table, ReadTable(flags.rows));
  std::unique_ptr<device::TraceFile> trace;
  if (!flags.trace.empty()) {
    TRY_ASSIGN(trace, device::TraceFile::Open(flags.trace));
  }
  Predictor predictor(described.At(device::chip::Bound::kValue), trace.get());
  std::vector<Scored> scored;
  std::map<std::string, int64_t> refused;
  for (const Row& row : table.rows) {
    if (flags.held_out && row.index % 10 == 0) continue;
    const auto predictions = predictor.Predict(table.kind, row);
    if (!predictions) {
      if (predictions.error().code != ErrorCode::kUnsupported)
        return std::unexpected(predictions.error());
      ++refused[predictions.error().message];
      continue;
    }
    for (const Prediction& prediction : *predictions) scored.push_back({prediction, row.line});
  }
  if (trace) TRY(trace->Close());
  std::map<std::string, std::vector<const Scored*>> groups;
  std::vector<const Scored*> all;
  for (const Scored& row : scored) {
    groups[row.prediction.group].push_back(&row);
    all.push_back(&row);
  }
  if (!flags.dump.empty()) {
    std::FILE* file = std::fopen(flags.dump.c_str(), "we");
    if (file == nullptr) return Fail(ErrorCode::kIo, "cannot write " + flags.dump);
    fmt::print(file, "line,group,shape,predicted_ms,measured_ms\n");
    for (const Scored& row : scored)
      fmt::print(file, "{},{},{},{:.6g},{:.6g}\n", row.line, row.prediction.group,
                 row.prediction.shape, 1e3 * row.prediction.predicted_s,
                 1e3 * row.prediction.measured_s);
    std::fclose(file);
  }
  if (flags.json) {
    Json out = all.empty() ? Json{{"rows", 0}} : ToJson(ScoreOf(all), flags.worst);
    out["chip"] = described.name;
    out["kind"] = Name(table.kind);
    out["refused"] = refused;
    for (const auto& [name, rows] : groups)
      out["groups"][name] = ToJson(ScoreOf(rows), flags.worst);
    fmt::print("{}\n", out.dump(2));
    return {};
  }
  fmt::print("{} on {}\n", Name(table.kind), described.title);
  for (const auto& [name, rows] : groups) Print(name, ScoreOf(rows), flags.worst);
  if (groups.size() > 1) Print("all", ScoreOf(all), 0);
  for (const auto& [why, count] : refused) fmt::print("refused {:>6} rows: {}\n", count, why);
  return {};
}

int Main(int argc, char** argv) {
  CLI::App app("Scores the timing device against measured rows.", "chip_truth");
  Flags flags;
  app.add_option("--chip", flags.chip, "A built-in chip's name, or a description's path")
      ->required();
  app.add_option("--rows", flags.rows, "CSV of measurements; its columns tell the kind")
      ->required();
  app.add_option("--worst", flags.worst, "How many of the worst rows to show")
      ->capture_default_str();
  app.add_flag("--held-out", flags.held_out,
               "Leave out every tenth row, which constants were fitted on");
  app.add_option("--trace", flags.trace, "Write all rows' instructions in Chrome's trace format");
  app.add_option("--dump", flags.dump, "Write every row's prediction as CSV");
  app.add_flag("--json", flags.json, "Print as JSON");
  CLI11_PARSE(app, argc, argv);
  const Result<void> done = Run(flags);
  if (done) return 0;
  fmt::print(stderr, "chip_truth: error: {}\n", done.error().message);
  return 1;
}

}  // namespace
}  // namespace millpower::truth

int main(int argc, char** argv) { return millpower::truth::Main(argc, argv); }
