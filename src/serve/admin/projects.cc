#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

Answer ListProjects(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"tenant"}));
  const auto directory = context.ledger->directory();
  const ledger::Tenant* tenant = nullptr;
  if (const std::string* id = request.query.Find("tenant")) {
    TRY_ASSIGN(tenant, FindTenant(*directory, *id));
  }
  Json data = Json::array();
  for (const ledger::Project& project : directory->projects())
    if (tenant == nullptr || project.tenant == tenant->number)
      data.push_back(ProjectJson(*context.ledger, *directory, project));
  return ListResponse(std::move(data));
}

Answer CreateProject(Context& context, const Request& request) {
  Fields fields(request.body, {"tenant", "name", "caps", "limits"});
  for (const char* name : {"tenant", "name"}) fields.Require(name);
  ledger::Project project;
  std::string tenant_id;
  fields.Read("tenant", tenant_id);
  fields.ReadText("name", project.name);
  fields.ReadBounds(project.bounds);
  TRY(fields.status());
  std::lock_guard lock(context.changing);
  TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(*context.ledger->directory(), tenant_id));
  project.tenant = tenant->number;
  TRY_ASSIGN(const ledger::Project made, context.ledger->CreateProject(kActor, std::move(project)));
  return JsonResponse(ProjectJson(*context.ledger, *context.ledger->directory(), made), 201);
}

Answer GetProject(Context& context, const Request& request) {
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Project* project, FindProject(*directory, request.path[0]));
  return JsonResponse(ProjectJson(*context.ledger, *directory, *project));
}

Answer UpdateProject(Context& context, const Request& request) {
  std::lock_guard lock(context.changing);
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Project* found, FindProject(*directory, request.path[0]));
  ledger::Project project = *found;
  Fields fields(request.body, {"name", "caps", "limits"});
  fields.ReadText("name", project.name);
  fields.ReadBounds(project.bounds);
  TRY(fields.status());
  TRY_ASSIGN(const ledger::Project changed, context.ledger->UpdateProject(kActor, project));
  return JsonResponse(ProjectJson(*context.ledger, *directory, changed));
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/projects", .answer = ListProjects},
    {.method = "POST", .pattern = "/admin/v1/projects", .answer = CreateProject, .has_body = true},
    {.method = "GET", .pattern = "/admin/v1/projects/{id}", .answer = GetProject},
    {.method = "PATCH",
     .pattern = "/admin/v1/projects/{id}",
     .answer = UpdateProject,
     .has_body = true},
};

}  // namespace

std::span<const Endpoint> ProjectEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
