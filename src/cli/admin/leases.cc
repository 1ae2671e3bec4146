#include <fmt/format.h>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"

namespace millpower::cli::admin {
namespace {

const std::string kLeases = "/admin/v1/leases";

struct Flags {
  std::string tenant, share, duration, from, until, lease;
};

std::string Rows(const Json& leases) {
  Table table({{"LEASE"},
               {"TENANT"},
               {"SHARE", true},
               {"STATE"},
               {"FROM"},
               {"UNTIL"},
               {"PER SHARE-HOUR", true},
               {"CHARGED", true}});
  for (const Json& lease : leases)
    table.Add({Cell(lease, "id"), Cell(lease, "tenant_name"),
               fmt::format("{:g}%", lease.value("share", 0.0) * 100), Cell(lease, "state"),
               FormatTime(lease.value("starts_at", Json())),
               FormatTime(lease.value("ends_at", Json())), Cell(lease, "rate"),
               Cell(lease, "amount")});
  return table.Text();
}

std::string One(const Json& lease) { return Rows(Json::array({lease})); }
std::string List(const Json& answer) { return Rows(answer.value("data", Json::array())); }

Result<void> Create(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(const double share, ParseShare(flags.share));
  Json body = {{"tenant", flags.tenant}, {"share", share}};
  if (!flags.from.empty()) body["starts_at"] = flags.from;
  if (flags.duration.empty() == flags.until.empty())
    return Fail(ErrorCode::kInvalidArgument, "give either --for or --until", "for");
  if (!flags.duration.empty()) {
    TRY_ASSIGN(body["duration_s"], ParseDuration(flags.duration));
  } else {
    body["ends_at"] = flags.until;
  }
  TRY_ASSIGN(const Json answer, call.client.Post(kLeases, body));
  Print(call, answer, One);
  return {};
}

}  // namespace

void AddLeases(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* group = menu.AddGroup("lease", "Shares of the device's time, paid in advance");

  CLI::App* create = menu.AddCommand(
      group, "create", "Lease a share, at the price of a share-hour (price set '*')",
      [flags](const Menu::Call& call) { return Create(call, *flags); });
  create->add_option("tenant", flags->tenant, "The tenant's name or id")->required();
  create->add_option("share", flags->share, "Of the device's time, 25% or 0.25")->required();
  create->add_option("--for", flags->duration, "How long, e.g. 30d");
  create->add_option("--from", flags->from, "When it starts; default: now");
  create->add_option("--until", flags->until, "When it ends: 2026-12-01 or 2026-12-01T12:00:00Z");

  CLI::App* list =
      menu.AddCommand(group, "list", "All leases", [flags](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const Json answer,
                   call.client.Get(kLeases + QueryOf({{"tenant", flags->tenant}})));
        Print(call, answer, List);
        return {};
      });
  list->add_option("--tenant", flags->tenant, "Only of this one");

  CLI::App* cancel = menu.AddCommand(
      group, "cancel", "End a lease now; what is not used is given back",
      [flags](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const Json answer,
                   call.client.Delete(kLeases + "/" + PercentEncoded(flags->lease)));
        Print(call, answer, One);
        return {};
      });
  cancel->add_option("lease", flags->lease, "Its id")->required();
}

}  // namespace millpower::cli::admin
