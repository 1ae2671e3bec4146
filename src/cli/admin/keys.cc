#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"

namespace millpower::cli::admin {
namespace {

const std::string kKeys = "/admin/v1/keys";

struct Flags {
  std::string key, tenant, project, name, expires_in, expires_at, overlap;
  std::vector<std::string> models, endpoints;
  BoundsFlags bounds;
};

// "all" stands for no list, here and in what is shown.
Json ScopeOf(const std::vector<std::string>& names) {
  return names == std::vector<std::string>{"all"} ? Json::array() : Json(names);
}
std::string FormatScope(const Json& names) {
  const auto list = names.get<std::vector<std::string>>();
  return list.empty() ? "all" : fmt::format("{}", fmt::join(list, ", "));
}

Result<Json> BodyOf(const Flags& flags) {
  Json body = Json::object();
  if (!flags.name.empty()) body["name"] = flags.name;
  if (!flags.models.empty()) body["models"] = ScopeOf(flags.models);
  if (!flags.endpoints.empty()) body["endpoints"] = ScopeOf(flags.endpoints);
  if (!flags.expires_in.empty()) {
    TRY_ASSIGN(body["expires_in_s"], ParseDuration(flags.expires_in));
  }
  if (flags.expires_at == "never")
    body["expires_at"] = nullptr;
  else if (!flags.expires_at.empty())
    body["expires_at"] = flags.expires_at;
  TRY(AddBounds(flags.bounds, body));
  return body;
}

std::string Details(const Json& key) {
  std::string text = fmt::format(
      "id           {}\nname         {}\nprefix       {}\nstate        {}\nof           {}/{}\n"
      "created      {}\nexpires      {}\nmodels       {}\nendpoints    {}\ncaps         {}\n"
      "limits       {}\n",
      Cell(key, "id"), Cell(key, "name"), Cell(key, "prefix"), Cell(key, "state"),
      Cell(key, "tenant_name"), Cell(key, "project_name"),
      FormatTime(key.value("created_at", Json())), FormatTime(key.value("expires_at", Json())),
      FormatScope(key.value("models", Json::array())),
      FormatScope(key.value("endpoints", Json::array())),
      FormatCaps(key.value("caps", Json::array())),
      FormatLimits(key.value("limits", Json::object())));
  if (key.contains("secret"))
    text += fmt::format("secret       {}\n\nThe secret is shown this once: pass it on now.\n",
                        Cell(key, "secret"));
  return text;
}

std::string List(const Json& answer) {
  Table table({{"KEY"},
               {"ID"},
               {"PREFIX"},
               {"OF"},
               {"STATE"},
               {"EXPIRES"},
               {"MODELS"},
               {"THIS MONTH", true},
               {"CAPS"}});
  for (const Json& key : answer.value("data", Json::array())) {
    const Json spent = key.value("spent", Json::object());
    table.Add({Cell(key, "name"), Cell(key, "id"), Cell(key, "prefix"),
               Cell(key, "tenant_name") + "/" + Cell(key, "project_name"), Cell(key, "state"),
               FormatTime(key.value("expires_at", Json())),
               FormatScope(key.value("models", Json::array())),
               Cell(spent.value("month", Json::object()), "money"),
               FormatCaps(key.value("caps", Json::array()))});
  }
  return table.Text();
}

Result<std::string> PathOf(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(const std::string id, call.client.ResolveKey(flags.key));
  return kKeys + "/" + PercentEncoded(id);
}

Result<void> Create(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(Json body, BodyOf(flags));
  if (!flags.tenant.empty()) body["tenant"] = flags.tenant;
  if (!flags.project.empty()) {
    TRY_ASSIGN(body["project"], call.client.ResolveProject(flags.project));
  }
  TRY_ASSIGN(const Json answer, call.client.Post(kKeys, body));
  Print(call, answer, Details);
  return {};
}

Result<void> ListKeys(const Menu::Call& call, const Flags& flags) {
  std::string project;
  if (!flags.project.empty()) {
    TRY_ASSIGN(project, call.client.ResolveProject(flags.project));
  }
  TRY_ASSIGN(const Json answer,
             call.client.Get(kKeys + QueryOf({{"tenant", flags.tenant}, {"project", project}})));
  Print(call, answer, List);
  return {};
}

Result<void> Show(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(const std::string path, PathOf(call, flags));
  TRY_ASSIGN(const Json answer, call.client.Get(path));
  Print(call, answer, Details);
  return {};
}

Result<void> Update(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(const std::string path, PathOf(call, flags));
  TRY_ASSIGN(const Json body, BodyOf(flags));
  TRY_ASSIGN(const Json answer, call.client.Patch(path, body));
  Print(call, answer, Details);
  return {};
}

Result<void> Revoke(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(const std::string path, PathOf(call, flags));
  TRY_ASSIGN(const Json answer, call.client.Delete(path));
  Print(call, answer, Details);
  return {};
}

Result<void> Rotate(const Menu::Call& call, const Flags& flags) {
  int64_t overlap_s = 0;
  if (!flags.overlap.empty()) {
    TRY_ASSIGN(overlap_s, ParseDuration(flags.overlap));
  }
  TRY_ASSIGN(const std::string path, PathOf(call, flags));
  TRY_ASSIGN(const Json answer, call.client.Post(path + "/rotate", {{"overlap_s", overlap_s}}));
  Print(call, answer, Details);
  return {};
}

}  // namespace

void AddKeys(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* group = menu.AddGroup("key", "What clients show; what they may do and use");
  const auto add = [&](const char* name, const char* help,
                       Result<void> (*run)(const Menu::Call&, const Flags&)) {
    return menu.AddCommand(group, name, help,
                           [flags, run](const Menu::Call& call) { return run(call, *flags); });
  };
  const auto add_key = [&](CLI::App* command) {
    command->add_option("key", flags->key, "Its id, visible prefix, or name")->required();
  };
  const auto add_rights = [&](CLI::App* command) {
    command
        ->add_option("--model", flags->models,
                     "Only for this model; may be repeated; 'all': for every one")
        ->allow_extra_args(false);
    command
        ->add_option(
            "--endpoint", flags->endpoints,
            "Only for this endpoint: chat, completions, tokenize, models, files, batches or "
            "usage; may be repeated; 'all': for every one")
        ->allow_extra_args(false);
    command->add_option("--expires-in", flags->expires_in, "From now on, e.g. 90d or 12h")
        ->excludes(command->add_option("--expires-at", flags->expires_at,
                                       "A date, 2026-12-01 or 2026-12-01T12:00:00Z; 'never'"));
    AddBoundsFlags(*command, flags->bounds);
  };

  CLI::App* create = add("create", "Make a key; its secret is shown once", Create);
  create->add_option("name", flags->name, "What to call it")->required();
  create->add_option("--tenant", flags->tenant, "For this tenant's first project");
  create->add_option("--project", flags->project, "For this project: id, name or TENANT/NAME");
  add_rights(create);

  CLI::App* list = add("list", "All keys, never their secrets", ListKeys);
  list->add_option("--tenant", flags->tenant, "Only of this tenant");
  list->add_option("--project", flags->project, "Only of this project");

  add_key(add("show", "One key", Show));

  CLI::App* update = add("update", "Change what is given, and nothing else", Update);
  add_key(update);
  update->add_option("--name", flags->name, "Another name");
  add_rights(update);

  add_key(add("revoke", "Refuse it from now on, for ever", Revoke));

  CLI::App* rotate = add("rotate", "Make another key with the same rights in its place", Rotate);
  add_key(rotate);
  rotate->add_option("--overlap", flags->overlap,
                     "How long the old one goes on working, e.g. 24h; default: it ends now");
}

}  // namespace millpower::cli::admin
