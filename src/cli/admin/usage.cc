#include <fmt/format.h>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"

namespace millpower::cli::admin {
namespace {

const std::string kUsage = "/admin/v1/usage";

struct Flags {
  std::string tenant, project, key, model, from, to, group_by, request;
  bool csv = false, requests = false;
  int64_t limit = 50;
};

// What a row is grouped by: the name where there is one, else the id or the value itself.
std::string GroupCell(const Json& row, const std::string& group) {
  const std::string name = Cell(row, (group + "_name").c_str());
  return name == "-" ? Cell(row, group.c_str()) : name;
}

std::string Report(const Json& answer) {
  const Json groups = answer.value("group_by", Json::array());
  std::vector<Table::Column> columns;
  for (const Json& group : groups) {
    std::string head = group.get<std::string>();
    for (char& c : head) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    columns.push_back({head});
  }
  for (const char* head : {"REQUESTS", "INPUT", "CACHED", "OUTPUT"})
    columns.push_back({head, true});
  columns.push_back({answer.value("currency", "AMOUNT"), true});
  Table table(columns);
  for (const Json& row : answer.value("data", Json::array())) {
    std::vector<std::string> cells;
    for (const Json& group : groups) cells.push_back(GroupCell(row, group.get<std::string>()));
    for (const char* name :
         {"requests", "input_tokens", "cached_tokens", "output_tokens", "amount"})
      cells.push_back(Cell(row, name));
    table.Add(std::move(cells));
  }
  return table.Text();
}

std::string Requests(const Json& answer) {
  Table table({{"POSTED"},
               {"REQUEST"},
               {"MODEL"},
               {"TIER"},
               {"INPUT", true},
               {"CACHED", true},
               {"OUTPUT", true},
               {"AMOUNT", true},
               {"ENDED"}});
  for (const Json& row : answer.value("data", Json::array())) {
    const Json quantities = row.value("quantities", Json::object());
    table.Add({FormatTime(row.value("posted_at", Json())), Cell(row, "api_request_id"),
               Cell(row, "model"), Cell(row, "tier"), Cell(quantities, "input_token"),
               Cell(quantities, "cached_token"), Cell(quantities, "output_token"),
               Cell(row, "amount"), Cell(row, "reason")});
  }
  return table.Text();
}

Result<void> Show(const Menu::Call& call, const Flags& flags) {
  std::string project, key;
  if (!flags.project.empty()) {
    TRY_ASSIGN(project, call.client.ResolveProject(flags.project));
  }
  if (!flags.key.empty()) {
    TRY_ASSIGN(key, call.client.ResolveKey(flags.key));
  }
  const std::string query = QueryOf({{"tenant", flags.tenant},
                                     {"project", project},
                                     {"key", key},
                                     {"model", flags.model},
                                     {"request_id", flags.request},
                                     {"from", flags.from},
                                     {"to", flags.to},
                                     {"group_by", flags.requests ? "" : flags.group_by},
                                     {"format", flags.csv ? "csv" : ""},
                                     {"limit", flags.requests ? std::to_string(flags.limit) : ""}});
  if (flags.csv) {
    TRY_ASSIGN(const std::string text, call.client.GetText(kUsage + query));
    fmt::print("{}", text);
    return {};
  }
  TRY_ASSIGN(const Json answer,
             call.client.Get(kUsage + (flags.requests ? "/requests" : "") + query));
  Print(call, answer, flags.requests ? Requests : Report);
  return {};
}

}  // namespace

void AddUsage(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* usage = menu.AddCommand(menu.app, "usage", "What was used, and what it cost",
                                    [flags](const Menu::Call& call) { return Show(call, *flags); });
  usage->add_option("--group-by", flags->group_by,
                    "Some of tenant, project, key, model, day and tier, divided by commas");
  usage->add_option("--from", flags->from, "Posted at this time or later, e.g. 2026-12-01");
  usage->add_option("--to", flags->to, "Posted before this time");
  usage->add_option("--tenant", flags->tenant, "Only of this tenant");
  usage->add_option("--project", flags->project, "Only of this project");
  usage->add_option("--key", flags->key, "Only of this key");
  usage->add_option("--model", flags->model, "Only of this model");
  usage->add_option("--request", flags->request,
                    "Only of this request: the id in its answer, or the one an invoice names");
  CLI::Option* csv = usage->add_flag("--csv", flags->csv, "As CSV, for a spreadsheet");
  CLI::Option* requests =
      usage->add_flag("--requests", flags->requests, "The newest requests, one by one");
  csv->excludes(requests);
  usage->add_option("--limit", flags->limit, "How many, with --requests")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
}

}  // namespace millpower::cli::admin
