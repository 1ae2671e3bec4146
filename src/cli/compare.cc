// millpower compare: several chips side by side on one workload, as a table, JSON and a plot.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/planning.h"
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

Result<Column> ColumnOf(const PlanFlags& flags, const Group& group) {
  Column column{group.chip, group.chips, {}, ""};
  auto planned = Plan(flags, group.chip, group.chips, nullptr);
  if (planned) {
    column.planned = *std::move(planned);
  } else {
    if (!IsVerdict(planned.error())) return std::unexpected(planned.error());
    column.error = planned.error().message;
  }
  return column;
}

plan::PlotPoint PointOf(const Group& group, int32_t users, const Planned& planned) {
  const plan::ServingReport& value = planned.value;
  const plan::ServingReport& low = planned.low ? *planned.low : value;
  const plan::ServingReport& high = planned.high ? *planned.high : value;
  return {value.tpot_s.p50 * 1e3,
          value.output_tokens_per_s,
          low.tpot_s.p50 * 1e3,
          low.output_tokens_per_s,
          high.tpot_s.p50 * 1e3,
          high.output_tokens_per_s,
          fmt::format("{}, {} users: {:.4g} tok/s at {:.4g} ms a token", group.text, users,
                      value.output_tokens_per_s, value.tpot_s.p50 * 1e3)};
}

// One line a chip, one point a number of users. Chips on which the model does not fit have none.
Result<plan::Plot> Sweep(const Flags& flags, const std::vector<Group>& groups,
                         const std::vector<Column>& columns) {
  plan::Plot plot{
      flags.plan.model,
      fmt::format("{} tokens in, {} out; {} to {} users from left to right; shaded: "
                  "where figures are assumed",
                  flags.plan.input, flags.plan.output, flags.sweep.front(), flags.sweep.back()),
      "time per output token, median (ms)",
      "output tokens a second",
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
      TRY_ASSIGN(const Planned planned, Plan(at, groups[i].chip, groups[i].chips, nullptr));
      line.points.push_back(PointOf(groups[i], users, planned));
    }
  }
  return plot;
}

Result<void> WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) return Fail(ErrorCode::kIo, "cannot write " + path);
  return {};
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

Json ColumnJson(const std::string& text, const Column& column) {
  Json out = column.planned ? ToJson(*column.planned)
                            : Json{{"chip", column.chip.name},
                                   {"title", column.chip.title},
                                   {"chips", column.chips},
                                   {"error", column.error}};
  out["label"] = text;
  out["total_processing_performance"] = chip::TotalProcessingPerformance(column.chip);
  out["performance_density"] = chip::PerformanceDensity(column.chip);
  out["export_rule"] = TierName(chip::ExportTierOf(column.chip));
  out["export_summary"] = chip::ExportSummary(column.chip);
  out["usd_per_hour"] = column.chips * column.chip.price_usd_per_hour.value;
  if (column.planned)
    out["kwh_per_million_output_tokens"] = column.planned->value.joules_per_output_token / 3.6;
  return out;
}

Json PlotJson(const plan::Plot& plot) {
  Json lines = Json::array();
  for (const plan::PlotLine& line : plot.lines) {
    Json points = Json::array();
    for (const plan::PlotPoint& point : line.points)
      points.push_back({{"tpot_p50_ms", point.x}, {"output_tokens_per_s", point.y}});
    lines.push_back({{"label", line.name}, {"points", points}});
  }
  return lines;
}

Result<void> Compare(Flags flags) {
  std::ranges::sort(flags.sweep);
  TRY_ASSIGN(const std::vector<Group> groups, ParseGroups(flags.chips));
  std::vector<Column> columns;
  for (const Group& group : groups) {
    TRY_ASSIGN(Column column, ColumnOf(flags.plan, group));
    columns.push_back(std::move(column));
  }
  Json out{{"model", flags.plan.model}, {"chips", Json::array()}};
  for (size_t i = 0; i < groups.size(); ++i)
    out["chips"].push_back(ColumnJson(groups[i].text, columns[i]));
  if (!flags.svg.empty()) {
    TRY_ASSIGN(const plan::Plot plot, Sweep(flags, groups, columns));
    TRY(WriteText(flags.svg, plan::ToSvg(plot)));
    out["sweep"] = PlotJson(plot);
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
  command->add_option("--svg", flags->svg,
                      "Plot output tokens a second against time per token into this file");
  command->add_option("--sweep", flags->sweep, "Numbers of users of the plot's points")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 14))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print everything as JSON");
  return [flags] { return Compare(*flags); };
}

}  // namespace millpower::cli
