#include <fmt/format.h>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"

namespace millpower::cli::admin {
namespace {

const std::string kPrices = "/admin/v1/prices";

struct UnitFlag {
  const char* flag;
  const char* unit;
  const char* help;
};
constexpr UnitFlag kUnits[] = {
    {"--input", "input_token", "For a million prompt tokens that are computed"},
    {"--cached", "cached_token", "For a million prompt tokens found in the prefix cache"},
    {"--output", "output_token", "For a million generated tokens"},
    {"--inference", "inference", "For a million inferences"},
    {"--candidate", "candidate", "For a million ranked candidates"},
    {"--chip-second", "chip_second", "For a second of the device's time"},
    {"--joule", "joule", "For a joule"},
    {"--share-hour", "share_hour",
     "For the whole device for an hour, of model '*'; leases pay their share"},
};

struct Flags {
  std::string model, tier = "on_demand", effective;
  std::string rates[std::size(kUnits)];
  bool all = false;
};

std::string Rows(const Json& prices) {
  Table table({{"MODEL"}, {"TIER"}, {"UNIT"}, {"RATE", true}, {"PER"}, {"STATE"}, {"EFFECTIVE"}});
  for (const Json& price : prices)
    table.Add({Cell(price, "model"), Cell(price, "tier"), Cell(price, "unit"),
               Cell(price, "rate") + " " + Cell(price, "currency"), Cell(price, "per"),
               Cell(price, "state"), FormatTime(price.value("effective_at", Json()))});
  return table.Text();
}

std::string List(const Json& answer) { return Rows(answer.value("data", Json::array())); }

Result<void> Set(const Menu::Call& call, const Flags& flags) {
  Json made = Json::array();
  for (size_t i = 0; i < std::size(kUnits); ++i) {
    if (flags.rates[i].empty()) continue;
    // A share-hour is for leases only.
    const bool is_share = kUnits[i].unit == std::string_view("share_hour");
    Json body = {{"model", flags.model},
                 {"tier", is_share ? "lease" : flags.tier},
                 {"unit", kUnits[i].unit},
                 {"rate", flags.rates[i]}};
    if (!flags.effective.empty()) body["effective_at"] = flags.effective;
    auto answer = call.client.Post(kPrices, body);
    // What was set before it stays.
    if (!answer) return FailAt(kUnits[i].flag, std::move(answer).error());
    made.push_back(std::move(*answer));
  }
  if (made.empty())
    return Fail(ErrorCode::kInvalidArgument,
                "no price was given: --input, --cached and --output, for example");
  Print(call, {{"object", "list"}, {"data", std::move(made)}}, List);
  return {};
}

}  // namespace

void AddPrices(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* group = menu.AddGroup("price", "The price book; old versions are kept");

  CLI::App* set = menu.AddCommand(group, "set", "Set what is given from now on, or from a date on",
                                  [flags](const Menu::Call& call) { return Set(call, *flags); });
  set->add_option("model", flags->model,
                  "The model's name, or * for every model without prices of its own")
      ->required();
  for (size_t i = 0; i < std::size(kUnits); ++i)
    set->add_option(kUnits[i].flag, flags->rates[i], kUnits[i].help);
  set->add_option("--tier", flags->tier, "Of this tier")
      ->check(CLI::IsMember({"on_demand", "priority", "batch", "lease"}))
      ->capture_default_str();
  set->add_option("--effective", flags->effective,
                  "From this time on: 2026-12-01 or 2026-12-01T12:00:00Z; default: now");

  CLI::App* list = menu.AddCommand(
      group, "list", "Prices in effect, and those to come",
      [flags](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const Json answer,
                   call.client.Get(kPrices + QueryOf({{"all", flags->all ? "1" : ""},
                                                      {"model", flags->model}})));
        Print(call, answer, List);
        return {};
      });
  list->add_flag("--all", flags->all, "Past versions as well");
  list->add_option("--model", flags->model, "Only of this one");
}

}  // namespace millpower::cli::admin
