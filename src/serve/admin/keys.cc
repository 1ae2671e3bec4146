// Keys. Their secrets are in the answers that make them, once, and nowhere else.
#include <fmt/format.h>

#include <algorithm>

#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

constexpr int64_t kTenYearsS = int64_t{3653} * 24 * 3600;

// The fields that creating and changing share.
void ReadKey(Fields& fields, int64_t now, ledger::Key& key) {
  fields.ReadText("name", key.name);
  fields.ReadList("models", key.models);
  fields.ReadList("endpoints", key.endpoints);
  if (fields.Find("expires_at") != nullptr && fields.Find("expires_in_s") != nullptr)
    fields.Refuse("expires_in_s", "cannot be given together with expires_at");
  fields.ReadTime("expires_at", key.expires_at);
  if (fields.Find("expires_at") != nullptr && key.expires_at <= now)
    fields.Refuse("expires_at", "is in the past: DELETE revokes a key");
  if (fields.Find("expires_in_s") != nullptr) {
    int64_t seconds = 0;
    fields.Read("expires_in_s", seconds, int64_t{1}, kTenYearsS);
    key.expires_at = now + seconds;
  }
  fields.ReadBounds(key.bounds);
}

Answer MadeResponse(Context& context, const ledger::Ledger::MadeKey& made, Json more) {
  Json json =
      KeyJson(*context.ledger, *context.ledger->directory(), made.key, context.clock.UnixSeconds());
  json["secret"] = made.secret;
  json.update(more);
  return JsonResponse(json, 201);
}

// `project`, or the first of `tenant`.
Result<ledger::Number> ReadOwner(Fields& fields, const ledger::Directory& directory) {
  std::string tenant_id, project_id;
  fields.Read("tenant", tenant_id);
  fields.Read("project", project_id);
  if (fields.Find("project") == nullptr && fields.Find("tenant") == nullptr)
    fields.Refuse("project", "is required, or tenant for its first project");
  TRY(fields.status());
  const ledger::Tenant* tenant = nullptr;
  const ledger::Project* project = nullptr;
  if (fields.Find("tenant") != nullptr) {
    TRY_ASSIGN(tenant, FindTenant(directory, tenant_id));
  }
  if (fields.Find("project") != nullptr) {
    TRY_ASSIGN(project, FindProject(directory, project_id));
    if (tenant != nullptr && project->tenant != tenant->number)
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("project '{}' is not of tenant '{}'", project_id, tenant_id),
                  "project");
    return project->number;
  }
  const auto first =
      std::ranges::find(directory.projects(), tenant->number, &ledger::Project::tenant);
  if (first == directory.projects().end())
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("tenant '{}' has no project yet: create one first", tenant->name),
                "tenant");
  return first->number;
}

Answer ListKeys(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"tenant", "project"}));
  const auto directory = context.ledger->directory();
  const ledger::Tenant* tenant = nullptr;
  const ledger::Project* project = nullptr;
  if (const std::string* id = request.query.Find("tenant")) {
    TRY_ASSIGN(tenant, FindTenant(*directory, *id));
  }
  if (const std::string* id = request.query.Find("project")) {
    TRY_ASSIGN(project, FindProject(*directory, *id));
  }
  const int64_t now = context.clock.UnixSeconds();
  Json data = Json::array();
  for (const ledger::Key& key : directory->keys())
    if ((tenant == nullptr || key.tenant == tenant->number) &&
        (project == nullptr || key.project == project->number))
      data.push_back(KeyJson(*context.ledger, *directory, key, now));
  return ListResponse(std::move(data));
}

Answer CreateKey(Context& context, const Request& request) {
  Fields fields(request.body, {"tenant", "project", "name", "models", "endpoints", "expires_at",
                               "expires_in_s", "caps", "limits"});
  fields.Require("name");
  ledger::Key key;
  ReadKey(fields, context.clock.UnixSeconds(), key);
  std::lock_guard lock(context.changing);
  TRY_ASSIGN(key.project, ReadOwner(fields, *context.ledger->directory()));
  TRY_ASSIGN(const ledger::Ledger::MadeKey made, context.ledger->CreateKey(kActor, std::move(key)));
  return MadeResponse(context, made, Json::object());
}

Answer GetKey(Context& context, const Request& request) {
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Key* key, FindKey(*directory, request.path[0]));
  return JsonResponse(KeyJson(*context.ledger, *directory, *key, context.clock.UnixSeconds()));
}

Answer UpdateKey(Context& context, const Request& request) {
  std::lock_guard lock(context.changing);
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Key* found, FindKey(*directory, request.path[0]));
  ledger::Key key = *found;
  const int64_t now = context.clock.UnixSeconds();
  Fields fields(request.body,
                {"name", "models", "endpoints", "expires_at", "expires_in_s", "caps", "limits"});
  ReadKey(fields, now, key);
  TRY(fields.status());
  TRY_ASSIGN(const ledger::Key changed, context.ledger->UpdateKey(kActor, key));
  return JsonResponse(KeyJson(*context.ledger, *directory, changed, now));
}

Answer RevokeKey(Context& context, const Request& request) {
  std::lock_guard lock(context.changing);
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Key* found, FindKey(*directory, request.path[0]));
  TRY_ASSIGN(const ledger::Key revoked, context.ledger->RevokeKey(kActor, found->number));
  return JsonResponse(KeyJson(*context.ledger, *directory, revoked, context.clock.UnixSeconds()));
}

Answer RotateKey(Context& context, const Request& request) {
  Fields fields(request.body, {"overlap_s"});
  int64_t overlap_s = 0;
  fields.Read("overlap_s", overlap_s, int64_t{0}, kTenYearsS);
  TRY(fields.status());
  std::lock_guard lock(context.changing);
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Key* found, FindKey(*directory, request.path[0]));
  TRY_ASSIGN(const ledger::Ledger::MadeKey made,
             context.ledger->RotateKey(kActor, found->number, overlap_s));
  return MadeResponse(context, made, {{"replaces", found->id}});
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/keys", .answer = ListKeys},
    {.method = "POST", .pattern = "/admin/v1/keys", .answer = CreateKey, .has_body = true},
    {.method = "GET", .pattern = "/admin/v1/keys/{id}", .answer = GetKey},
    {.method = "PATCH", .pattern = "/admin/v1/keys/{id}", .answer = UpdateKey, .has_body = true},
    {.method = "DELETE", .pattern = "/admin/v1/keys/{id}", .answer = RevokeKey},
    {.method = "POST",
     .pattern = "/admin/v1/keys/{id}/rotate",
     .answer = RotateKey,
     .has_body = true},
};

}  // namespace

std::span<const Endpoint> KeyEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
