#include <fmt/format.h>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"

namespace millpower::cli::admin {
namespace {

const std::string kProjects = "/admin/v1/projects";

struct Flags {
  std::string tenant, project, name;
  BoundsFlags bounds;
};

std::string Rows(const Json& projects) {
  Table table({{"PROJECT"}, {"ID"}, {"TENANT"}, {"THIS MONTH", true}, {"CAPS"}, {"LIMITS"}});
  for (const Json& project : projects) {
    const Json spent = project.value("spent", Json::object());
    table.Add({Cell(project, "name"), Cell(project, "id"), Cell(project, "tenant_name"),
               Cell(spent.value("month", Json::object()), "money"),
               FormatCaps(project.value("caps", Json::array())),
               FormatLimits(project.value("limits", Json::object()))});
  }
  return table.Text();
}

std::string One(const Json& project) { return Rows(Json::array({project})); }
std::string List(const Json& answer) { return Rows(answer.value("data", Json::array())); }

}  // namespace

void AddProjects(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* group = menu.AddGroup("project", "What a tenant's keys and costs are grouped by");

  CLI::App* create = menu.AddCommand(
      group, "create", "Give a tenant a project", [flags](const Menu::Call& call) -> Result<void> {
        Json body = {{"tenant", flags->tenant}, {"name", flags->name}};
        TRY(AddBounds(flags->bounds, body));
        TRY_ASSIGN(const Json answer, call.client.Post(kProjects, body));
        Print(call, answer, One);
        return {};
      });
  create->add_option("tenant", flags->tenant, "The tenant's name or id")->required();
  create->add_option("name", flags->name, "What to call it")->required();
  AddBoundsFlags(*create, flags->bounds);

  CLI::App* list = menu.AddCommand(
      group, "list", "All projects", [flags](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const Json answer,
                   call.client.Get(kProjects + QueryOf({{"tenant", flags->tenant}})));
        Print(call, answer, List);
        return {};
      });
  list->add_option("--tenant", flags->tenant, "Only of this one");

  CLI::App* update = menu.AddCommand(
      group, "update", "Change what is given, and nothing else",
      [flags](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const std::string id, call.client.ResolveProject(flags->project));
        Json body = Json::object();
        if (!flags->name.empty()) body["name"] = flags->name;
        TRY(AddBounds(flags->bounds, body));
        TRY_ASSIGN(const Json answer,
                   call.client.Patch(kProjects + "/" + PercentEncoded(id), body));
        Print(call, answer, One);
        return {};
      });
  update->add_option("project", flags->project, "Its id, name, or TENANT/NAME")->required();
  update->add_option("--name", flags->name, "Another name");
  AddBoundsFlags(*update, flags->bounds);
}

}  // namespace millpower::cli::admin
