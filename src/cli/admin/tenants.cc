#include <fmt/format.h>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"

namespace millpower::cli::admin {
namespace {

const std::string kTenants = "/admin/v1/tenants";

struct Flags {
  std::string tenant, name, credit_line, amount, reference;
  bool pay_back = false;
  BoundsFlags bounds;
};

std::string PathOf(const Flags& flags) { return kTenants + "/" + PercentEncoded(flags.tenant); }

Result<Json> BodyOf(const Flags& flags) {
  Json body = Json::object();
  if (!flags.name.empty()) body["name"] = flags.name;
  if (flags.credit_line == "unlimited")
    body["credit_line"] = nullptr;
  else if (!flags.credit_line.empty())
    body["credit_line"] = flags.credit_line;
  TRY(AddBounds(flags.bounds, body));
  return body;
}

std::string LineOf(const Json& tenant) {
  const std::string line = Cell(tenant, "credit_line");
  return line == "-" ? "unlimited" : line;
}

std::string Details(const Json& tenant) {
  const Json spent = tenant.value("spent", Json::object());
  const auto used = [&](const char* period) {
    const Json of = spent.value(period, Json::object());
    return fmt::format("{} ({} tokens)", Cell(of, "money"), Cell(of, "tokens"));
  };
  return fmt::format(
      "id           {}\nname         {}\ncreated      {}\nstate        {}\ncredit       {}\n"
      "credit line  {}\nheld         {}\nspent        {} today, {} this month, {} in all\n"
      "caps         {}\nlimits       {}\n",
      Cell(tenant, "id"), Cell(tenant, "name"), FormatTime(tenant.value("created_at", Json())),
      tenant.value("suspended", false) ? "suspended" : "active", Cell(tenant, "credit"),
      LineOf(tenant), Cell(tenant, "held"), used("day"), used("month"), used("total"),
      FormatCaps(tenant.value("caps", Json::array())),
      FormatLimits(tenant.value("limits", Json::object())));
}

std::string List(const Json& answer) {
  Table table({{"TENANT"},
               {"ID"},
               {"STATE"},
               {"CREDIT", true},
               {"LINE", true},
               {"HELD", true},
               {"THIS MONTH", true},
               {"CAPS"}});
  for (const Json& tenant : answer.value("data", Json::array())) {
    const Json spent = tenant.value("spent", Json::object());
    table.Add({Cell(tenant, "name"), Cell(tenant, "id"),
               tenant.value("suspended", false) ? "suspended" : "active", Cell(tenant, "credit"),
               LineOf(tenant), Cell(tenant, "held"),
               Cell(spent.value("month", Json::object()), "money"),
               FormatCaps(tenant.value("caps", Json::array()))});
  }
  return table.Text();
}

Result<void> SetSuspended(const Menu::Call& call, const Flags& flags, bool suspended) {
  TRY_ASSIGN(const Json answer, call.client.Patch(PathOf(flags), {{"suspended", suspended}}));
  Print(call, answer, Details);
  return {};
}

Result<void> AddCredit(const Menu::Call& call, const Flags& flags) {
  const std::string amount = flags.pay_back ? "-" + flags.amount : flags.amount;
  TRY_ASSIGN(const Json answer,
             call.client.Post(PathOf(flags) + "/credit",
                              {{"amount", amount}, {"reference", flags.reference}}));
  Print(call, answer, [](const Json& credit) {
    return fmt::format(
        "{}; credit is now {}\n",
        credit.value("applied", false)
            ? Cell(credit, "amount") + " booked as '" + Cell(credit, "reference") + "'"
            : "'" + Cell(credit, "reference") + "' was booked before: nothing done",
        Cell(credit, "credit"));
  });
  return {};
}

}  // namespace

void AddTenants(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* group = menu.AddGroup("tenant", "Who rents: a business, with credit and bills");
  const auto add_line = [&](CLI::App* command) {
    command->add_option("--credit-line", flags->credit_line,
                        "How far its credit may go below zero; 'unlimited': it pays later. A new "
                        "tenant has 0: it pays in advance");
    AddBoundsFlags(*command, flags->bounds);
  };
  const auto add_tenant = [&](CLI::App* command) {
    command->add_option("tenant", flags->tenant, "Its name or id")->required();
  };

  CLI::App* create = menu.AddCommand(
      group, "create", "Take on a tenant", [flags](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const Json body, BodyOf(*flags));
        TRY_ASSIGN(const Json answer, call.client.Post(kTenants, body));
        Print(call, answer, Details);
        return {};
      });
  create->add_option("name", flags->name, "What to call it; no other may have the name")
      ->required();
  add_line(create);

  menu.AddCommand(group, "list", "All tenants", [](const Menu::Call& call) -> Result<void> {
    TRY_ASSIGN(const Json answer, call.client.Get(kTenants));
    Print(call, answer, List);
    return {};
  });

  add_tenant(
      menu.AddCommand(group, "show", "One tenant", [flags](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const Json answer, call.client.Get(PathOf(*flags)));
        Print(call, answer, Details);
        return {};
      }));

  CLI::App* update =
      menu.AddCommand(group, "update", "Change what is given, and nothing else",
                      [flags](const Menu::Call& call) -> Result<void> {
                        TRY_ASSIGN(const Json body, BodyOf(*flags));
                        TRY_ASSIGN(const Json answer, call.client.Patch(PathOf(*flags), body));
                        Print(call, answer, Details);
                        return {};
                      });
  add_tenant(update);
  update->add_option("--name", flags->name, "Another name");
  add_line(update);

  add_tenant(menu.AddCommand(
      group, "suspend", "Refuse its requests from now on; those under way may end",
      [flags](const Menu::Call& call) { return SetSuspended(call, *flags, true); }));
  add_tenant(menu.AddCommand(
      group, "resume", "Take its requests again",
      [flags](const Menu::Call& call) { return SetSuspended(call, *flags, false); }));

  CLI::App* credit =
      menu.AddCommand(group, "credit", "Book a payment of the tenant's",
                      [flags](const Menu::Call& call) { return AddCredit(call, *flags); });
  add_tenant(credit);
  credit->add_option("amount", flags->amount, "For example 100.00")->required();
  credit
      ->add_option("--reference", flags->reference,
                   "What your books call the payment; told twice, it counts once")
      ->required();
  credit->add_flag("--pay-back", flags->pay_back, "It goes back to the tenant");
}

}  // namespace millpower::cli::admin
