// What was used, grouped or row by row.
#include <fmt/format.h>

#include <algorithm>

#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

constexpr int64_t kRowsMax = 1000;
// In the order of ledger::GroupBy.
constexpr std::string_view kGroups[] = {"tenant", "project", "key", "model", "day", "tier"};

Result<std::vector<ledger::GroupBy>> ReadGroups(const std::string& text) {
  std::vector<ledger::GroupBy> groups;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    const auto found = std::ranges::find(kGroups, name);
    if (found == std::end(kGroups))
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("group_by takes tenant, project, key, model, day and tier, divided "
                              "by commas, not '{}'",
                              name),
                  "group_by");
    const auto group = static_cast<ledger::GroupBy>(found - std::begin(kGroups));
    if (std::ranges::find(groups, group) == groups.end()) groups.push_back(group);
  }
  return groups;
}

Result<ledger::UsageQuery> ReadQuery(const ledger::Directory& directory, const Query& query) {
  ledger::UsageQuery usage;
  if (const std::string* id = query.Find("tenant")) {
    TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(directory, *id));
    usage.tenant = tenant->number;
  }
  if (const std::string* id = query.Find("project")) {
    TRY_ASSIGN(const ledger::Project* project, FindProject(directory, *id));
    usage.project = project->number;
  }
  if (const std::string* id = query.Find("key")) {
    TRY_ASSIGN(const ledger::Key* key, FindKey(directory, *id));
    usage.key = key->number;
  }
  usage.model = query.Get("model");
  usage.request_id = query.Get("request_id");
  if (const std::string* time = query.Find("from")) {
    TRY_ASSIGN(usage.from, ParseTime("from", *time));
  }
  if (const std::string* time = query.Find("to")) {
    TRY_ASSIGN(usage.to, ParseTime("to", *time));
  }
  TRY_ASSIGN(usage.group_by, ReadGroups(query.Get("group_by")));
  return usage;
}

Answer ReadUsage(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"tenant", "project", "key", "model", "request_id", "from", "to",
                                 "group_by", "format"}));
  TRY_ASSIGN(const std::string format, ReadChoice(request.query, "format", {"json", "csv"}));
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::UsageQuery query, ReadQuery(*directory, request.query));
  TRY_ASSIGN(const ledger::UsageReport report, context.ledger->store().ReadUsage(query));
  if (format == "csv")
    return HttpResponse{.content_type = "text/csv; charset=utf-8",
                        .body = UsageCsv(report, *directory),
                        .headers = {{"content-disposition", "attachment; filename=\"usage.csv\""}}};
  return JsonResponse(UsageJson(report, *directory));
}

Answer ListRows(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"tenant", "project", "key", "model", "request_id", "from", "to",
                                 "limit", "before"}));
  TRY_ASSIGN(const int64_t limit, ReadInteger(request.query, "limit", 100, 1, kRowsMax));
  TRY_ASSIGN(const int64_t before, ReadInteger(request.query, "before", INT64_MAX, 1, INT64_MAX));
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::UsageQuery query, ReadQuery(*directory, request.query));
  TRY_ASSIGN(const std::vector<ledger::Usage> rows,
             context.ledger->store().ListUsage(query, limit, before));
  Json data = Json::array();
  for (const ledger::Usage& row : rows) data.push_back(UsageRowJson(*directory, row));
  return ListResponse(std::move(data));
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/usage", .answer = ReadUsage},
    {.method = "GET", .pattern = "/admin/v1/usage/requests", .answer = ListRows},
};

}  // namespace

std::span<const Endpoint> UsageEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
