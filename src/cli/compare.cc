// millpower compare: several chips side by side on one workload, as a table, JSON and a plot.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <sstream>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/planning.h"
#include "cli/text_file.h"
#include "device/chip/tpp.h"
#include "plan/plot.h"

namespace millpower::cli {
namespace {

namespace chip = device::chip;

constexpr size_t kMaxColumns = 16;
constexpr int kMaxChips = 64;
// Of a point of the sweep: enough that beginning and end weigh little, few enough to be drawn soon.
constexpr int64_t kRoundsOfSweep = 4;

struct Flags {
  PlanFlags plan;
  std::string chips = "h100,a100,h20,mi300x,millpower-1";
  std::vector<int32_t> sweep = {1, 2, 4, 8, 16, 32, 64, 128};
  std::string slo;
  int max_chips = 64;
  std::string svg;
  bool json = false;
};

struct Group {
  std::string text;  // as it was given
  chip::Chip chip;
  int chips = 1;
};

// "h100x4" is four of h100; "mlu370-x8" is a chip's name.
Result<Group> ParseGroup(const std::string& text) {
  Group group{text, {}, 1};
  std::string name = text;
  const auto is_chip = [](const std::string& word) {
    const auto known = chip::BuiltInChips();
    return std::ranges::find(known, word) != known.end() || std::filesystem::exists(word);
  };
  const size_t times = text.rfind('x');
  if (times != std::string::npos && times > 0 && !is_chip(text)) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + times + 1, end, group.chips);
    if (error == std::errc() && stop == end && group.chips >= 1 && group.chips <= kMaxChips &&
        is_chip(text.substr(0, times)))
      name = text.substr(0, times);
    else
      group.chips = 1;
  }
  TRY_ASSIGN(group.chip, chip::ReadChip(name));
  return group;
}

Result<std::vector<Group>> ParseGroups(const std::string& text) {
  std::vector<Group> groups;
  std::stringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    if (groups.size() == kMaxColumns)
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("--chips names more than {} chips", kMaxColumns), "chips");
    TRY_ASSIGN(Group group, ParseGroup(word));
    groups.push_back(std::move(group));
  }
  if (groups.empty()) return Fail(ErrorCode::kInvalidArgument, "--chips names no chip", "chips");
  return groups;
}

// The group as it was given; or as many as meet the objectives.
Result<plan::Layout> LayoutOf(const Flags& flags, const Group& group) {
  if (flags.slo.empty()) return plan::Layout{flags.plan.replicas, group.chips};
  TRY_ASSIGN(const Sizing sizing, SizeFor(flags.plan, group.chip, flags.slo, flags.max_chips));
  if (sizing.value.best) return *sizing.value.best;
  for (const plan::Trial& trial : sizing.value.tried)
    if (trial.outcome)
      return Fail(ErrorCode::kNoCapacity,
                  fmt::format("no layout of up to {} chips meets {}", flags.max_chips, flags.slo));
  return Fail(ErrorCode::kNoCapacity, sizing.value.tried.back().error);
}

Result<Column> ColumnOf(const Flags& flags, const Group& group) {
  Column column{group.chip, {flags.plan.replicas, group.chips}, {}, ""};
  const auto plan = [&]() -> Result<Planned> {
    TRY_ASSIGN(column.layout, LayoutOf(flags, group));
    PlanFlags on = flags.plan;
    on.replicas = column.layout.replicas;
    return Plan(on, group.chip, column.layout.chips_per_replica, nullptr);
  };
  auto planned = plan();
  if (planned) {
    column.planned = *std::move(planned);
  } else {
    if (!plan::IsVerdict(planned.error())) return std::unexpected(planned.error());
    column.error = planned.error().message;
  }
  return column;
}

plan::PlotPoint PointOf(const Group& group, int32_t users, bool ranks, const Planned& planned) {
  const plan::Outcome& value = planned.value.outcome;
  const plan::Outcome& low = planned.low ? *planned.low : value;
  const plan::Outcome& high = planned.high ? *planned.high : value;
  return {value.plot_ms,
          value.plot_per_s,
          low.plot_ms,
          low.plot_per_s,
          high.plot_ms,
          high.plot_per_s,
          fmt::format("{}, {} users: {:.4g} {}", group.text, users, value.plot_per_s,
                      ranks ? fmt::format("queries/s, p99 {:.4g} ms", value.plot_ms)
                            : fmt::format("tok/s at {:.4g} ms a token", value.plot_ms))};
}

// One line a chip, one point a number of users. Chips on which the model does not fit have none.
Result<plan::Plot> Sweep(const Flags& flags, const std::vector<Group>& groups,
                         const std::vector<Column>& columns) {
  const bool ranks = IsRecommender(flags.plan.model);
  const std::string request =
      ranks ? fmt::format("{} items a query", flags.plan.items)
            : fmt::format("{} tokens in, {} out", flags.plan.input, flags.plan.output);
  plan::Plot plot{
      flags.plan.model,
      fmt::format("{}; {} to {} users from left to right; shaded: where figures are assumed",
                  request, flags.sweep.front(), flags.sweep.back()),
      ranks ? "latency of a query, p99 (ms)" : "time per output token, median (ms)",
      ranks ? "queries a second" : "output tokens a second",
      {}};
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!columns[i].planned) continue;
    plan::PlotLine& line = plot.lines.emplace_back();
    line.name = groups[i].text;
    for (const int32_t users : flags.sweep) {
      PlanFlags at = flags.plan;
      at.concurrency = users;
      at.rate = 0;
      at.requests_file.clear();
      at.requests = kRoundsOfSweep * users;
      at.replicas = columns[i].layout.replicas;
      TRY_ASSIGN(const Planned planned,
                 Plan(at, groups[i].chip, columns[i].layout.chips_per_replica, nullptr));
      line.points.push_back(PointOf(groups[i], users, ranks, planned));
    }
  }
  return plot;
}

const char* TierName(chip::ExportTier tier) {
  switch (tier) {
    case chip::ExportTier::kA:
      return "3A090.a";
    case chip::ExportTier::kB:
      return "3A090.b";
    case chip::ExportTier::kUnknown:
      return "unknown";
    case chip::ExportTier::kNone:
      break;
  }
  return "none";
}

Json ColumnJson(const std::string& text, bool ranks, const Column& column) {
  Json out = column.planned ? ToJson(*column.planned)
                            : Json{{"chip", column.chip.name},
                                   {"title", column.chip.title},
                                   {"chips", column.layout.chips()},
                                   {"error", column.error}};
  out["label"] = text;
  out["total_processing_performance"] = chip::TotalProcessingPerformance(column.chip);
  out["performance_density"] = chip::PerformanceDensity(column.chip);
  out["export_rule"] = TierName(chip::ExportTierOf(column.chip));
  out["export_summary"] = chip::ExportSummary(column.chip);
  out["usd_per_hour"] = column.layout.chips() * column.chip.price_usd_per_hour.value;
  if (column.planned)
    out[ranks ? "kwh_per_million_queries" : "kwh_per_million_output_tokens"] =
        column.planned->value.outcome.joules_each / 3.6;
  return out;
}

Json PlotJson(const plan::Plot& plot, bool ranks) {
  Json lines = Json::array();
  for (const plan::PlotLine& line : plot.lines) {
    Json points = Json::array();
    for (const plan::PlotPoint& point : line.points)
      points.push_back({{ranks ? "latency_p99_ms" : "tpot_p50_ms", point.x},
                        {ranks ? "queries_per_s" : "output_tokens_per_s", point.y}});
    lines.push_back({{"label", line.name}, {"points", points}});
  }
  return lines;
}

Result<void> Compare(Flags flags) {
  std::ranges::sort(flags.sweep);
  const bool ranks = IsRecommender(flags.plan.model);
  TRY_ASSIGN(const std::vector<Group> groups, ParseGroups(flags.chips));
  std::vector<Column> columns;
  for (const Group& group : groups) {
    TRY_ASSIGN(Column column, ColumnOf(flags, group));
    columns.push_back(std::move(column));
  }
  Json out{{"model", flags.plan.model}, {"chips", Json::array()}};
  for (size_t i = 0; i < groups.size(); ++i)
    out["chips"].push_back(ColumnJson(groups[i].text, ranks, columns[i]));
  if (!flags.svg.empty()) {
    TRY_ASSIGN(const plan::Plot plot, Sweep(flags, groups, columns));
    TRY(WriteText(flags.svg, plan::ToSvg(plot)));
    out["sweep"] = PlotJson(plot, ranks);
  }
  if (flags.json)
    fmt::print("{}\n", out.dump(2));
  else
    PrintTable(flags.plan.model, columns);
  return {};
}

}  // namespace

Command AddCompare(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "compare", "Put described chips side by side on one workload, in virtual time");
  auto flags = std::make_shared<Flags>();
  AddPlanFlags(*command, flags->plan);
  command
      ->add_option("--chips", flags->chips,
                   "Built-in chips or descriptions' paths, comma-separated; NAMExN is N chips that "
                   "run the model together, as h100x4")
      ->capture_default_str();
  command->add_option(
      "--slo", flags->slo,
      "Of each chip the fewest that meet this, as simulate finds them; NAMExN counts "
      "for nothing then");
  command->add_option("--max-chips", flags->max_chips, "Chips of a kind that --slo may use")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--svg", flags->svg,
                      "Plot output tokens a second against time per token, or queries a second "
                      "against p99, into this file");
  command->add_option("--sweep", flags->sweep, "Numbers of users of the plot's points")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 14))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print everything as JSON");
  return [flags] { return Compare(*flags); };
}

}  // namespace millpower::cli
