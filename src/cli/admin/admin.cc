// millpower admin NOUN VERB: manages a server on this machine through its admin API.
#include <fmt/format.h>

#include "cli/admin/menu.h"
#include "cli/commands.h"

namespace millpower::cli {
namespace admin {

CLI::App* Menu::AddGroup(const char* name, const char* help) {
  return app->add_subcommand(name, help)->require_subcommand(1)->fallthrough();
}

CLI::App* Menu::AddCommand(CLI::App* group, const char* name, const char* help, Action action) {
  CLI::App* command = group->add_subcommand(name, help)->fallthrough();
  MakeCommand(command, std::move(action));
  return command;
}

void Menu::MakeCommand(CLI::App* command, Action action) {
  command->add_flag("--json", as_json, "As the API says it");
  command->callback([this, command, action = std::move(action)] {
    if (command->get_subcommands().empty()) chosen = action;
  });
}

void Print(const Menu::Call& call, const Json& answer, std::string (*format)(const Json&)) {
  fmt::print("{}", call.as_json ? DumpJson(answer) + "\n" : format(answer));
}

}  // namespace admin

Command AddAdmin(CLI::App& app) {
  const auto menu = std::make_shared<admin::Menu>();
  menu->app = app.add_subcommand("admin", "Manage a running server on this machine");
  menu->app->require_subcommand(1)->fallthrough();
  menu->app->add_option("--port", menu->port, "Its --admin-port")->capture_default_str();
  menu->app->add_option("--key-file", menu->key_file,
                        "File with its admin key; default: the variable MILLPOWER_ADMIN_KEY");
  menu->app->footer(
      "Tenants, projects and keys may be called by id or by a name that only one has. "
      "Money is in the ledger's currency. See docs/rental.md.");
  admin::AddModels(*menu);
  admin::AddRows(*menu);
  admin::AddTenants(*menu);
  admin::AddProjects(*menu);
  admin::AddKeys(*menu);
  admin::AddPrices(*menu);
  admin::AddLeases(*menu);
  admin::AddUsage(*menu);
  admin::AddInvoices(*menu);
  admin::AddBooks(*menu);
  return [menu] {
    const admin::Client client(menu->port, menu->key_file);
    return menu->chosen({.client = client, .as_json = menu->as_json});
  };
}

}  // namespace millpower::cli
