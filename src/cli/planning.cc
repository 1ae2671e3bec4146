#include "cli/planning.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <utility>

#include "cli/size.h"
#include "cli/tensor_loader.h"
#include "device/chip/tpp.h"
#include "import/tensor/published.h"
#include "isa/opcodes.h"
#include "plan/experts.h"

namespace millpower::cli {
namespace {

namespace chip = device::chip;

// Requests of a closed loop without --requests: enough that beginning and end weigh little.
constexpr int64_t kRoundsOfUsers = 8;
constexpr int64_t kDefaultRequests = 256;
// Queries are over much sooner than requests to language models, and so are their simulations.
constexpr int64_t kDefaultQueries = 10'000, kRoundsOfAskers = 64, kLeastQueries = 1'000;

Result<plan::Workload> WorkloadOf(const PlanFlags& flags) {
  const int given = (flags.concurrency > 0) + (flags.rate > 0) + !flags.requests_file.empty();
  if (given > 1)
    return Fail(ErrorCode::kInvalidArgument,
                "--concurrency, --rate and --requests-file exclude each other");
  const bool ranks = IsRecommender(flags.model);
  if (!flags.requests_file.empty())
    return ranks ? plan::ReadQueries(flags.requests_file) : plan::ReadTrace(flags.requests_file);
  const int32_t input = ranks ? flags.items : flags.input;
  const int32_t output = ranks ? 0 : flags.output;
  const auto count = [&](int64_t otherwise) {
    return flags.requests > 0 ? flags.requests : otherwise;
  };
  if (flags.rate > 0)
    return plan::PoissonArrivals(flags.rate, count(ranks ? kDefaultQueries : kDefaultRequests),
                                 input, output, flags.seed);
  const int32_t users = std::max(flags.concurrency, 1);
  const int64_t rounds =
      ranks ? std::max(kRoundsOfAskers * users, kLeastQueries) : kRoundsOfUsers * users;
  return plan::ClosedLoop(users, count(rounds), input, output);
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

// "12.3 (10..15) ms"
std::string Cell(const plan::Measure& value, const plan::Measure* low, const plan::Measure* high) {
  const auto number = [](double v) { return fmt::format("{:.4g}", v); };
  std::string text = number(value.value);
  if (low != nullptr && high != nullptr && number(low->value) != number(high->value))
    text += fmt::format(" ({}..{})", number(std::min(low->value, high->value)),
                        number(std::max(low->value, high->value)));
  return text + value.unit;
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
  static constexpr size_t kNarrow = 16, kWide = 40;

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

}  // namespace

void AddPlanFlags(CLI::App& command, PlanFlags& flags) {
  command
      .add_option("--model", flags.model,
                  "A published model's name (qwen3-0.6b ... qwen3-235b-a22b, dlrm-kaggle, "
                  "dcnv2-mlperf), a config.json, or a recommender's .onnx, .pt2 or SavedModel")
      ->required();
  AddCompileFlags(command, flags.shared);
  command
      .add_option("--concurrency", flags.concurrency,
                  "Users, each of whom sends a request when the last one is answered")
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--rate", flags.rate, "Requests a second, at random times (Poisson)")
      ->check(CLI::PositiveNumber);
  command.add_option(
      "--requests-file", flags.requests_file,
      "CSV of requests: at_s,input,output[,prefix_group,prefix_tokens]; of queries to "
      "a recommender: at_s,items");
  command
      .add_option("--requests", flags.requests,
                  "How many requests; without it 8 for each user, or 256; of queries to a "
                  "recommender 64 for each user but at least 1000, or 10000")
      ->check(CLI::Range(1, 1 << 24));
  command
      .add_option("--replicas", flags.replicas,
                  "Groups of chips that share the load, each with an engine of its own: requests "
                  "go to them in turn, users are divided among them")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
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
  command.add_option("--items", flags.items, "Candidates of a query to a recommender")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      .add_option("--ids-per-bag", flags.ids_per_bag,
                  "Ids of each candidate, for inputs whose bags are cut by offsets")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command
      .add_option("--max-queue-delay-us", flags.max_queue_delay_us,
                  "How long a query may wait for others to share its launch")
      ->check(CLI::Range(0, 60'000'000))
      ->capture_default_str();
  AddTensorFlags(command, flags.tensor);
  command.add_flag("!--no-prefix-cache", flags.prefix_cache, "Compute every prompt in full");
  command
      .add_option("--grid", flags.grid_g_per_kwh,
                  "Carbon intensity of the electricity, gCO2e per kWh")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--seed", flags.seed, "Of everything that is drawn")->capture_default_str();
}

bool IsRecommender(const std::string& model) {
  return import::FindPublishedRecommender(model) != nullptr || IsTensorModelPath(model);
}

// ---- The models

namespace {

Result<chip::RoutingModel> RoutingOf(const PlanFlags& flags) {
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

Result<plan::ServingSetup> ServingOf(const PlanFlags& flags, int chips_per_replica) {
  TRY_ASSIGN(LoadOptions load, ToLoadOptions(flags.shared));
  load.max_batch_tokens = flags.max_batch_tokens;
  load.max_num_seqs = std::min(flags.max_num_seqs, flags.max_batch_tokens);
  load.show_progress = false;
  if (chips_per_replica % flags.stages != 0)
    return Fail(ErrorCode::kUnsupported, fmt::format("{} chips cannot be split into {} stages",
                                                     chips_per_replica, flags.stages));
  load.ranks = chips_per_replica / flags.stages;
  plan::ServingSetup setup;
  TRY_ASSIGN(setup.program, ProgramOf(flags.model, load));
  load.stages = flags.stages;
  for (; flags.stages > 1 && load.stage < load.stages; ++load.stage) {
    TRY_ASSIGN(auto stage, ProgramOf(flags.model, load));
    setup.stages.push_back(std::move(stage));
  }
  setup.ranks = load.ranks;
  setup.prefix_cache = flags.prefix_cache;
  return setup;
}

Result<plan::RankingSetup> RankingOf(const PlanFlags& flags, int chips_per_replica) {
  if (flags.stages > 1)
    return Fail(ErrorCode::kInvalidArgument, "recommenders are not cut into stages");
  TRY_ASSIGN(TensorLoadOptions load, ToTensorLoadOptions(flags.tensor, flags.shared));
  load.show_progress = false;
  TRY_ASSIGN(TensorShape shape, LoadTensorShape(flags.model, load));
  plan::RankingSetup setup;
  setup.program = std::move(shape.program);
  setup.signature = std::move(shape.signature);
  setup.ranks = chips_per_replica;
  setup.ids_per_bag = flags.ids_per_bag;
  setup.max_queue_delay_us = flags.max_queue_delay_us;
  return setup;
}

// That the recorded shares are of a model with as many experts.
Result<void> CheckShares(const PlanFlags& flags, const plan::Deployment& deployment,
                         const chip::RoutingModel& routing) {
  const int64_t experts = deployment.program->FactOr("experts", 0);
  const int64_t recorded = std::ssize(routing.expert_shares);
  if (recorded > 0 && experts > 0 && recorded != experts)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} is of {} experts a layer, the model has {}", flags.experts,
                            recorded, experts));
  return {};
}

Result<void> CheckGroup(const chip::Chip& described, int chips) {
  if (chips > 1 && chips > static_cast<int>(described.links.max_chips.value))
    return Fail(ErrorCode::kUnsupported,
                fmt::format("{} joins at most {:.0f} chips in a group", described.title,
                            described.links.max_chips.value));
  return {};
}

Result<Simulated> Simulate(const plan::ServingSetup& setup, const plan::Workload& workload,
                           double grid_g_per_kwh) {
  TRY_ASSIGN(const plan::ServingResult result, plan::SimulateServing(setup, workload));
  return Simulated{plan::OutcomeOf(plan::Report(result, setup, grid_g_per_kwh)), result,
                   result.footprint, result.kv_pages};
}

Result<Simulated> Simulate(const plan::RankingSetup& setup, const plan::Workload& workload,
                           double grid_g_per_kwh) {
  TRY_ASSIGN(const plan::RankingResult result, plan::SimulateRanking(setup, workload));
  return Simulated{plan::OutcomeOf(plan::Report(result, setup, grid_g_per_kwh)), result,
                   result.footprint, 0};
}

}  // namespace

Result<Planner> Planner::Make(const PlanFlags& flags, int chips_per_replica) {
  Planner planner;
  planner.grid_g_per_kwh_ = flags.grid_g_per_kwh;
  TRY_ASSIGN(planner.workload_, WorkloadOf(flags));
  if (IsRecommender(flags.model)) {
    TRY_ASSIGN(planner.setup_, RankingOf(flags, chips_per_replica));
  } else {
    TRY_ASSIGN(planner.setup_, ServingOf(flags, chips_per_replica));
  }
  TRY_ASSIGN(const chip::RoutingModel routing, RoutingOf(flags));
  TRY(std::visit(
      [&](const plan::Deployment& deployment) { return CheckShares(flags, deployment, routing); },
      planner.setup_));
  std::visit(
      [&](plan::Deployment& deployment) {
        deployment.routing = routing;
        deployment.seed = flags.seed;
      },
      planner.setup_);
  return planner;
}

Result<Simulated> Planner::Run(const chip::Chip& settled, int replicas,
                               std::function<void(const chip::LaunchReport&)> on_launch) const {
  return std::visit(
      [&](auto setup) -> Result<Simulated> {
        TRY(CheckGroup(settled, setup.chips_per_replica()));
        setup.chip = settled;
        setup.replicas = replicas;
        setup.on_launch = std::move(on_launch);
        return Simulate(setup, workload_, grid_g_per_kwh_);
      },
      setup_);
}

// ---- What is asked of them

Result<Planned> Plan(const PlanFlags& flags, const chip::Chip& described, int chips_per_replica,
                     device::TraceFile* trace) {
  Planned planned;
  planned.chip = described;
  planned.model = flags.model;
  planned.layout = {flags.replicas, chips_per_replica};
  TRY(CheckGroup(described, chips_per_replica));
  TRY_ASSIGN(const Planner planner, Planner::Make(flags, chips_per_replica));
  std::optional<Tracer> tracer;
  std::function<void(const chip::LaunchReport&)> on_launch;
  if (trace != nullptr) {
    tracer.emplace(*trace, described.title, flags.stages);
    on_launch = [&](const chip::LaunchReport& report) { tracer->Add(report); };
  }
  TRY_ASSIGN(planned.value,
             planner.Run(described.At(chip::Bound::kValue), flags.replicas, on_launch));
  if (described.HasAssumed()) {
    TRY_ASSIGN(Simulated low, planner.Run(described.At(chip::Bound::kLow), flags.replicas));
    TRY_ASSIGN(Simulated high, planner.Run(described.At(chip::Bound::kHigh), flags.replicas));
    planned.low = std::move(low.outcome);
    planned.high = std::move(high.outcome);
  }
  return planned;
}

Result<Sizing> SizeFor(const PlanFlags& flags, const chip::Chip& described,
                       const std::string& objectives, int max_chips) {
  const bool ranks = IsRecommender(flags.model);
  TRY_ASSIGN(const auto bounds,
             plan::ParseObjectives(objectives,
                                   ranks ? plan::RankingLatencies() : plan::ServingLatencies()));
  TRY_ASSIGN(const plan::Workload workload, WorkloadOf(flags));
  plan::SearchSpace space;
  space.max_chips = max_chips;
  space.max_replicas = static_cast<int>(
      std::min<size_t>(workload.concurrency > 0 ? static_cast<size_t>(workload.concurrency)
                                                : workload.requests.size(),
                       static_cast<size_t>(max_chips)));
  // Programs are split into powers of two; those of recommenders not at all.
  space.group_sizes = {1};
  for (int size = 2; !ranks && size <= max_chips && CheckGroup(described, size); size *= 2)
    space.group_sizes.push_back(size);
  std::map<int, Result<Planner>> planners;  // by size of groups
  const auto find = [&](chip::Bound bound) {
    const chip::Chip settled = described.At(bound);
    return plan::FindFewestChips(
        space, bounds, [&](const plan::Layout& layout) -> Result<plan::Outcome> {
          const int size = layout.chips_per_replica;
          auto planner = planners.find(size);
          if (planner == planners.end())
            planner = planners.emplace(size, Planner::Make(flags, size)).first;
          if (!planner->second) return std::unexpected(planner->second.error());
          TRY_ASSIGN(Simulated simulated, planner->second->Run(settled, layout.replicas));
          return std::move(simulated.outcome);
        });
  };
  Sizing sizing;
  TRY_ASSIGN(sizing.value, find(chip::Bound::kValue));
  if (described.HasAssumed()) {
    TRY_ASSIGN(sizing.low, find(chip::Bound::kLow));
    TRY_ASSIGN(sizing.high, find(chip::Bound::kHigh));
  }
  return sizing;
}

Json ToJson(const plan::Layout& layout) {
  return {{"chips", layout.chips()},
          {"replicas", layout.replicas},
          {"chips_per_replica", layout.chips_per_replica}};
}

std::string ToString(const plan::Layout& layout) {
  const auto chips = [](int n) { return fmt::format("{} chip{}", n, n == 1 ? "" : "s"); };
  if (layout.replicas == 1) return chips(layout.chips());
  return fmt::format("{} replicas of {}", layout.replicas, chips(layout.chips_per_replica));
}

Json ToJson(const Planned& planned) {
  const Simulated& value = planned.value;
  Json by_opcode = Json::object();
  for (size_t op = 0; op < isa::kOpcodeCount; ++op) {
    const chip::OpcodeTime& time = value.totals.by_opcode[op];
    if (time.instructions == 0) continue;
    by_opcode[isa::Info(static_cast<isa::Opcode>(op)).name] = {
        {"instructions", time.instructions}, {"seconds", time.seconds}, {"joules", time.joules}};
  }
  Json fits{{"memory_bytes", value.footprint.memory},
            {"weight_bytes", value.footprint.weights},
            {"scratch_bytes", value.footprint.scratch}};
  if (value.kv_pages > 0) {
    fits["kv_page_bytes"] = value.footprint.kv_page;
    fits["kv_pages"] = value.kv_pages;
  }
  Json out{{"model", planned.model},
           {"chip", planned.chip.name},
           {"title", planned.chip.title},
           {"report", value.outcome.json},
           {"fits", fits},
           {"by_opcode", by_opcode},
           {"assumed", planned.chip.assumed}};
  out.update(ToJson(planned.layout));
  if (planned.low) out["low"] = planned.low->json;
  if (planned.high) out["high"] = planned.high->json;
  return out;
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
  fact("chip", [](const Column& c) {
    const std::string chip = fmt::format("{} x {}", c.layout.chips_per_replica, c.chip.name);
    return c.layout.replicas == 1 ? chip : fmt::format("{} x ({})", c.layout.replicas, chip);
  });
  fact("model", [&](const Column&) { return model; });
  row("requests", [](const Planned& p) { return fmt::format("{}", p.value.outcome.requests); });
  const auto first = std::ranges::find_if(
      columns, [](const Column& column) { return column.planned.has_value(); });
  const size_t lines = first == columns.end() ? 0 : first->planned->value.outcome.measures.size();
  for (size_t i = 0; i < lines; ++i) {
    const auto of = [&](const plan::Outcome& outcome) { return outcome.measures[i]; };
    const bool shown = std::ranges::any_of(columns, [&](const Column& column) {
      return column.planned && of(column.planned->value.outcome).value > 0;
    });
    if (!shown) continue;
    row(of(first->planned->value.outcome).name, [&](const Planned& p) {
      return Cell(of(p.value.outcome), p.low ? &p.low->measures[i] : nullptr,
                  p.high ? &p.high->measures[i] : nullptr);
    });
  }
  row("bottleneck", [](const Planned& p) { return p.value.outcome.bottleneck; });
  row("weights", [](const Planned& p) { return FormatSize(p.value.footprint.weights); });
  if (first != columns.end() && first->planned->value.kv_pages > 0)
    row("KV memory",
        [](const Planned& p) { return FormatSize(p.value.footprint.kv_page * p.value.kv_pages); });
  fact("price", [](const Column& c) {
    const double price = c.layout.chips() * c.chip.price_usd_per_hour.value;
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
    const chip::OpcodeTime& time = planned.value.totals.by_opcode[op];
    if (time.instructions > 0)
      fmt::print("{:<16}{:>14}{:>14.4f}{:>14.2f}\n", isa::Info(static_cast<isa::Opcode>(op)).name,
                 time.instructions, time.seconds, time.joules);
  }
}

}  // namespace millpower::cli
