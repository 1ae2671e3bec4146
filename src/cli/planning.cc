#include "cli/planning.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "cli/size.h"
#include "device/chip/tpp.h"
#include "isa/opcodes.h"
#include "plan/experts.h"

namespace millpower::cli {
namespace {

namespace chip = device::chip;

// Requests of a closed loop without --requests: enough that beginning and end weigh little.
constexpr int64_t kRoundsOfUsers = 8;
constexpr int64_t kDefaultRequests = 256;

Result<plan::Workload> WorkloadOf(const PlanFlags& flags) {
  const int given = (flags.concurrency > 0) + (flags.rate > 0) + !flags.requests_file.empty();
  if (given > 1)
    return Fail(ErrorCode::kInvalidArgument,
                "--concurrency, --rate and --requests-file exclude each other");
  if (!flags.requests_file.empty()) return plan::ReadTrace(flags.requests_file);
  if (flags.rate > 0)
    return plan::PoissonArrivals(flags.rate, flags.requests > 0 ? flags.requests : kDefaultRequests,
                                 flags.input, flags.output, flags.seed);
  const int32_t users = std::max(flags.concurrency, 1);
  return plan::ClosedLoop(users, flags.requests > 0 ? flags.requests : kRoundsOfUsers * users,
                          flags.input, flags.output);
}

// Rows of the trace: the streams of a chip, one picture a launch after the other.
class Tracer {
 public:
  // A group of rows for each stage of a pipeline.
  Tracer(device::TraceFile& file, const std::string& chip, int stages) : file_(file) {
    for (int stage = 0; stage < stages; ++stage)
      for (const auto stream : {isa::Stream::kCompute, isa::Stream::kTransfer, isa::Stream::kLink})
        file_.NameRow(stage + 1, static_cast<int>(stream),
                      stages == 1 ? chip : fmt::format("{}, stage {}", chip, stage),
                      isa::Name(stream));
  }

  void Add(const chip::LaunchReport& report) {
    const double start_us = static_cast<double>(report.start_ns) * 1e-3;
    for (const chip::Span& span : report.spans) {
      const auto& instruction =
          report.timer->program()
              .streams[static_cast<size_t>(span.stream)][static_cast<size_t>(span.index)];
      const chip::Work& work = *report.timer->WorkOf(span.stream, span.index);
      file_.Add(report.stage + 1, static_cast<int>(span.stream), isa::Info(instruction.op).name,
                start_us + span.begin_s * 1e6, (span.end_s - span.begin_s) * 1e6, Arguments(work));
    }
  }

 private:
  // What it asked of each unit, and what bound it.
  static std::string Arguments(const chip::Work& work) {
    std::array<double, chip::kUnitCount> busy{};
    double latency_s = work.issue_s;
    for (const chip::Wave& wave : work.waves) {
      latency_s += static_cast<double>(wave.count) * wave.latency_s;
      for (size_t unit = 0; unit < chip::kUnitCount; ++unit)
        busy[unit] += static_cast<double>(wave.count) * wave.busy_s[unit];
    }
    std::string text = fmt::format("\"latency_us\":{:.3f}", latency_s * 1e6);
    for (size_t unit = 0; unit < chip::kUnitCount; ++unit)
      if (busy[unit] > 0)
        text += fmt::format(",\"{}_us\":{:.3f}", chip::Name(static_cast<chip::Unit>(unit)),
                            busy[unit] * 1e6);
    return text + fmt::format(",\"memory_bytes\":{:.0f},\"matrix_ops\":{:.0f}",
                              work.traffic.memory_read + work.traffic.memory_written,
                              work.traffic.matrix_ops);
  }

  device::TraceFile& file_;
};

std::string Range(double value, const std::optional<double>& low, const std::optional<double>& high,
                  double scale, const char* unit) {
  const auto number = [&](double v) { return fmt::format("{:.4g}", v * scale); };
  std::string text = number(value);
  if (low && high && number(*low) != number(*high))
    text += fmt::format(" ({}..{})", number(std::min(*low, *high)), number(std::max(*low, *high)));
  return text + unit;
}

// What the export rule that 3A090 is says of it (tpp.h).
std::string ExportRule(const chip::Chip& described) {
  switch (chip::ExportTierOf(described)) {
    case chip::ExportTier::kA:
      return "meets 3A090.a";
    case chip::ExportTier::kB:
      return "meets 3A090.b";
    case chip::ExportTier::kUnknown:
      return "depends on die area";
    case chip::ExportTier::kNone:
      break;
  }
  return "below 3A090";
}

// A name and a cell for each column, columns as wide as their widest cell but for long texts, which
// are wrapped at words.
class Table {
 public:
  explicit Table(size_t columns) : widths_(columns, kNarrow) {}

  void Add(std::string name, std::vector<std::string> cells) {
    for (size_t i = 0; i < cells.size(); ++i)
      widths_[i] = std::max(widths_[i], std::min(cells[i].size(), kWide));
    rows_.emplace_back(std::move(name), std::move(cells));
  }

  void Print() const {
    for (const auto& [name, cells] : rows_) {
      std::vector<std::vector<std::string>> lines;
      size_t height = 1;
      for (size_t i = 0; i < cells.size(); ++i) {
        lines.push_back(Wrapped(cells[i], widths_[i]));
        height = std::max(height, lines.back().size());
      }
      for (size_t y = 0; y < height; ++y) {
        std::string text = fmt::format("{:<16}", y == 0 ? name : "");
        for (size_t i = 0; i < lines.size(); ++i)
          text += fmt::format("  {:>{}}", y < lines[i].size() ? lines[i][y] : "", widths_[i]);
        text.erase(text.find_last_not_of(' ') + 1);
        fmt::print("{}\n", text);
      }
    }
  }

 private:
  static constexpr size_t kNarrow = 16, kWide = 34;

  static std::vector<std::string> Wrapped(const std::string& text, size_t width) {
    std::vector<std::string> lines;
    std::stringstream words(text);
    for (std::string word; words >> word;) {
      if (lines.empty() || lines.back().size() + 1 + word.size() > width)
        lines.push_back(word);
      else
        lines.back() += " " + word;
    }
    return lines;
  }

  std::vector<size_t> widths_;
  std::vector<std::pair<std::string, std::vector<std::string>>> rows_;
};

struct Line {
  const char* name;
  double (*value)(const plan::ServingReport&);
  double scale = 1;
  const char* unit = "";
};

template <size_t kUnit>
double Utilisation(const plan::ServingReport& r) {
  return r.utilisation[kUnit];
}

constexpr Line kLines[] = {
    {"TTFT p50", [](const plan::ServingReport& r) { return r.ttft_s.p50; }, 1e3, " ms"},
    {"TTFT p90", [](const plan::ServingReport& r) { return r.ttft_s.p90; }, 1e3, " ms"},
    {"TTFT p99", [](const plan::ServingReport& r) { return r.ttft_s.p99; }, 1e3, " ms"},
    {"TPOT p50", [](const plan::ServingReport& r) { return r.tpot_s.p50; }, 1e3, " ms"},
    {"TPOT p90", [](const plan::ServingReport& r) { return r.tpot_s.p90; }, 1e3, " ms"},
    {"TPOT p99", [](const plan::ServingReport& r) { return r.tpot_s.p99; }, 1e3, " ms"},
    {"end to end p50", [](const plan::ServingReport& r) { return r.end_to_end_s.p50; }, 1, " s"},
    {"end to end p99", [](const plan::ServingReport& r) { return r.end_to_end_s.p99; }, 1, " s"},
    {"output tok/s", [](const plan::ServingReport& r) { return r.output_tokens_per_s; }},
    {"all tok/s", [](const plan::ServingReport& r) { return r.total_tokens_per_s; }},
    {"in launches", [](const plan::ServingReport& r) { return r.launched; }, 100, " %"},
    {"memory busy", Utilisation<0>, 100, " %"},
    {"cache busy", Utilisation<1>, 100, " %"},
    {"scratchpad busy", Utilisation<2>, 100, " %"},
    {"matrix busy", Utilisation<3>, 100, " %"},
    {"vector busy", Utilisation<4>, 100, " %"},
    {"link busy", Utilisation<5>, 100, " %"},
    {"power of a chip", [](const plan::ServingReport& r) { return r.average_w; }, 1, " W"},
    {"energy", [](const plan::ServingReport& r) { return r.joules_per_output_token; }, 1,
     " J/token"},
    {"carbon", [](const plan::ServingReport& r) { return r.grams_co2e_per_output_token; }, 1e3,
     " mgCO2e/token"},
    {"energy", [](const plan::ServingReport& r) { return r.joules_per_output_token; }, 1 / 3.6,
     " kWh/M tokens"},
    {"money", [](const plan::ServingReport& r) { return r.usd_per_million_output_tokens; }, 1,
     " $/M tokens"},
};

}  // namespace

void AddPlanFlags(CLI::App& command, PlanFlags& flags) {
  command
      .add_option("--model", flags.model,
                  "A published model's name (qwen3-0.6b ... qwen3-235b-a22b) or a config.json")
      ->required();
  AddCompileFlags(command, flags.shared);
  command
      .add_option("--concurrency", flags.concurrency,
                  "Users, each of whom sends a request when the last one is answered")
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--rate", flags.rate, "Requests a second, at random times (Poisson)")
      ->check(CLI::PositiveNumber);
  command.add_option("--requests-file", flags.requests_file,
                     "CSV of requests: at_s,input,output[,prefix_group,prefix_tokens]");
  command
      .add_option("--requests", flags.requests,
                  "How many requests; without it 8 for each user, or 256")
      ->check(CLI::Range(1, 1 << 24));
  command.add_option("--input", flags.input, "Tokens of a prompt")
      ->check(CLI::Range(1, 1 << 22))
      ->capture_default_str();
  command.add_option("--output", flags.output, "Tokens of an answer")
      ->check(CLI::Range(1, 1 << 22))
      ->capture_default_str();
  command
      .add_option("--max-batch-tokens", flags.max_batch_tokens,
                  "Tokens of one step at most, all sequences together")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--max-num-seqs", flags.max_num_seqs, "Sequences of one step at most")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command
      .add_option("--stages", flags.stages,
                  "Stages of a pipeline that the layers are cut into; the chips of each run its "
                  "layers together")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command
      .add_option(
          "--experts", flags.experts,
          "Who chooses which experts: balanced, uniform (drawn), a power law's exponent, or "
          "a file of `perplexity --record-experts`")
      ->capture_default_str();
  command.add_option("--zipf", flags.zipf, "Exponent of the skew of ids in embedding tables")
      ->check(CLI::Range(0.0, 4.0))
      ->capture_default_str();
  command.add_flag("!--no-prefix-cache", flags.prefix_cache, "Compute every prompt in full");
  command
      .add_option("--grid", flags.grid_g_per_kwh,
                  "Carbon intensity of the electricity, gCO2e per kWh")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--seed", flags.seed, "Of everything that is drawn")->capture_default_str();
}

Result<device::chip::RoutingModel> RoutingOf(const PlanFlags& flags) {
  chip::RoutingModel routing;
  routing.seed = flags.seed;
  routing.id_exponent = flags.zipf;
  if (flags.experts == "balanced") {
    routing.experts = chip::Popularity::kBalanced;
  } else if (std::filesystem::is_regular_file(flags.experts)) {
    routing.experts = chip::Popularity::kRecorded;
    TRY_ASSIGN(routing.expert_shares, plan::ReadExpertShares(flags.experts));
  } else if (flags.experts != "uniform") {
    routing.experts = chip::Popularity::kPowerLaw;
    char* end = nullptr;
    routing.expert_exponent = std::strtod(flags.experts.c_str(), &end);
    if (flags.experts.empty() || *end != 0 || !(routing.expert_exponent >= 0) ||
        routing.expert_exponent > 10)
      return Fail(ErrorCode::kInvalidArgument,
                  "--experts '" + flags.experts +
                      "' is neither balanced nor uniform nor an exponent from 0 to 10 nor a file");
  }
  return routing;
}

Result<std::shared_ptr<const isa::Program>> ProgramOf(const std::string& model,
                                                      const LoadOptions& options) {
  TRY_ASSIGN(ImportedModel imported, ImportShape(model, options));
  return std::make_shared<const isa::Program>(std::move(imported.compiled.program));
}

Result<Planned> Plan(const PlanFlags& flags, const chip::Chip& described, int chips,
                     device::TraceFile* trace) {
  Planned planned;
  planned.chip = described;
  planned.model = flags.model;
  planned.chips = chips;
  if (chips > 1 && chips > static_cast<int>(described.links.max_chips.value))
    return Fail(ErrorCode::kUnsupported,
                fmt::format("{} joins at most {:.0f} chips in a group", described.title,
                            described.links.max_chips.value));
  if (chips % flags.stages != 0)
    return Fail(ErrorCode::kUnsupported,
                fmt::format("{} chips cannot be split into {} stages", chips, flags.stages));
  TRY_ASSIGN(LoadOptions load, ToLoadOptions(flags.shared));
  TRY_ASSIGN(const plan::Workload workload, WorkloadOf(flags));
  load.max_batch_tokens = flags.max_batch_tokens;
  load.max_num_seqs = std::min(flags.max_num_seqs, flags.max_batch_tokens);
  load.show_progress = false;
  load.ranks = chips / flags.stages;
  plan::ServingSetup setup;
  TRY_ASSIGN(setup.program, ProgramOf(flags.model, load));
  load.stages = flags.stages;
  for (; flags.stages > 1 && load.stage < load.stages; ++load.stage) {
    TRY_ASSIGN(auto stage, ProgramOf(flags.model, load));
    setup.stages.push_back(std::move(stage));
  }
  setup.ranks = load.ranks;
  setup.prefix_cache = flags.prefix_cache;
  setup.seed = flags.seed;
  TRY_ASSIGN(setup.routing, RoutingOf(flags));
  const int64_t experts = setup.program->FactOr("experts", 0);
  const int64_t recorded = std::ssize(setup.routing.expert_shares);
  if (recorded > 0 && experts > 0 && recorded != experts)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} is of {} experts a layer, the model has {}", flags.experts,
                            recorded, experts));
  const auto run = [&](chip::Bound bound) -> Result<plan::ServingReport> {
    setup.chip = described.At(bound);
    TRY_ASSIGN(plan::ServingResult result, plan::SimulateServing(setup, workload));
    plan::ServingReport report = plan::Report(result, setup, flags.grid_g_per_kwh);
    if (bound == chip::Bound::kValue) planned.result = std::move(result);
    return report;
  };
  std::optional<Tracer> tracer;
  if (trace != nullptr) {
    tracer.emplace(*trace, described.title, flags.stages);
    setup.on_launch = [&](const chip::LaunchReport& report) { tracer->Add(report); };
  }
  TRY_ASSIGN(planned.value, run(chip::Bound::kValue));
  setup.on_launch = nullptr;
  if (!described.assumed.empty()) {
    TRY_ASSIGN(planned.low, run(chip::Bound::kLow));
    TRY_ASSIGN(planned.high, run(chip::Bound::kHigh));
  }
  return planned;
}

Json ToJson(const Planned& planned) {
  const plan::ServingResult& result = planned.result;
  Json by_opcode = Json::object();
  for (size_t op = 0; op < isa::kOpcodeCount; ++op) {
    const chip::OpcodeTime& time = result.by_opcode[op];
    if (time.instructions == 0) continue;
    by_opcode[isa::Info(static_cast<isa::Opcode>(op)).name] = {
        {"instructions", time.instructions}, {"seconds", time.seconds}, {"joules", time.joules}};
  }
  Json out{{"model", planned.model},
           {"chip", planned.chip.name},
           {"title", planned.chip.title},
           {"chips", planned.chips},
           {"report", plan::ToJson(planned.value)},
           {"fits",
            {{"memory_bytes", result.footprint.memory},
             {"weight_bytes", result.footprint.weights},
             {"scratch_bytes", result.footprint.scratch},
             {"kv_page_bytes", result.footprint.kv_page},
             {"kv_pages", result.kv_pages}}},
           {"by_opcode", by_opcode},
           {"assumed", planned.chip.assumed}};
  if (planned.low) out["low"] = plan::ToJson(*planned.low);
  if (planned.high) out["high"] = plan::ToJson(*planned.high);
  return out;
}

bool IsVerdict(const Error& error) {
  return error.code == ErrorCode::kNoCapacity || error.code == ErrorCode::kUnsupported;
}

void PrintTable(const std::string& model, const std::vector<Column>& columns) {
  Table table(columns.size());
  const auto row = [&](const char* name, const auto& cell) {
    std::vector<std::string> cells;
    for (const Column& column : columns)
      cells.push_back(column.planned ? cell(*column.planned) : "");
    table.Add(name, std::move(cells));
  };
  const auto fact = [&](const char* name, const auto& cell) {
    std::vector<std::string> cells;
    for (const Column& column : columns) cells.push_back(cell(column));
    table.Add(name, std::move(cells));
  };
  fact("chip", [](const Column& c) { return fmt::format("{} x {}", c.chips, c.chip.name); });
  fact("model", [&](const Column&) { return model; });
  row("requests", [](const Planned& p) { return fmt::format("{}", p.value.requests); });
  for (const Line& line : kLines) {
    const bool shown = std::ranges::any_of(columns, [&](const Column& column) {
      return column.planned && line.value(column.planned->value) > 0;
    });
    if (!shown) continue;
    row(line.name, [&](const Planned& p) -> std::string {
      std::optional<double> low, high;
      if (p.low && p.high) low = line.value(*p.low), high = line.value(*p.high);
      return Range(line.value(p.value), low, high, line.scale, line.unit);
    });
  }
  row("bottleneck", [](const Planned& p) { return p.value.bottleneck; });
  row("weights", [](const Planned& p) { return FormatSize(p.result.footprint.weights); });
  row("KV memory",
      [](const Planned& p) { return FormatSize(p.result.footprint.kv_page * p.result.kv_pages); });
  fact("price", [](const Column& c) {
    const double price = c.chips * c.chip.price_usd_per_hour.value;
    return price > 0 ? fmt::format("{:.4g} $/h", price) : std::string("not published");
  });
  fact("TPP of a chip", [](const Column& c) {
    return fmt::format("{:.0f}", chip::TotalProcessingPerformance(c.chip));
  });
  fact("export rule", [](const Column& c) { return ExportRule(c.chip); });
  if (std::ranges::any_of(columns, [](const Column& c) { return !c.planned; }))
    fact("why not", [](const Column& c) { return c.error; });
  table.Print();
}

void PrintOpcodes(const Planned& planned) {
  fmt::print("{:<16}{:>14}{:>14}{:>14}\n", "opcode", "instructions", "seconds", "joules");
  for (size_t op = 0; op < isa::kOpcodeCount; ++op) {
    const chip::OpcodeTime& time = planned.result.by_opcode[op];
    if (time.instructions > 0)
      fmt::print("{:<16}{:>14}{:>14.4f}{:>14.2f}\n", isa::Info(static_cast<isa::Opcode>(op)).name,
                 time.instructions, time.seconds, time.joules);
  }
}

}  // namespace millpower::cli
