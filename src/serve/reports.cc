#include "serve/reports.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve {
namespace {

using admin::FindKey;
using admin::FindProject;
using admin::FindTenant;

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

Error NotFound(const char* what, const std::string& id) {
  return {ErrorCode::kNotFound, fmt::format("there is no {} '{}'", what, id), what};
}

// A tenant's report takes every parameter but `tenant`.
Result<void> CheckParameters(const ReportScope& scope, const Query& query, admin::Names with_tenant,
                             admin::Names without) {
  return admin::CheckQuery(query, scope.tenant == nullptr ? with_tenant : without);
}

Result<ledger::UsageQuery> ReadQuery(const ReportScope& scope, const Query& query) {
  ledger::UsageQuery usage;
  if (scope.tenant != nullptr) {
    usage.tenant = scope.tenant->number;
  } else if (const std::string* id = query.Find("tenant")) {
    TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(scope.directory, *id));
    usage.tenant = tenant->number;
  }
  const auto is_hidden = [&](ledger::Number owner) {
    return scope.tenant != nullptr && owner != scope.tenant->number;
  };
  if (const std::string* id = query.Find("project")) {
    TRY_ASSIGN(const ledger::Project* project, FindProject(scope.directory, *id));
    if (is_hidden(project->tenant)) return std::unexpected(NotFound("project", *id));
    usage.project = project->number;
  }
  if (const std::string* id = query.Find("key")) {
    TRY_ASSIGN(const ledger::Key* key, FindKey(scope.directory, *id));
    if (is_hidden(key->tenant)) return std::unexpected(NotFound("key", *id));
    usage.key = key->number;
  }
  usage.model = query.Get("model");
  usage.request_id = query.Get("request_id");
  if (const std::string* time = query.Find("from")) {
    TRY_ASSIGN(usage.from, admin::ParseTime("from", *time));
  }
  if (const std::string* time = query.Find("to")) {
    TRY_ASSIGN(usage.to, admin::ParseTime("to", *time));
  }
  TRY_ASSIGN(usage.group_by, ReadGroups(query.Get("group_by")));
  return usage;
}

std::string MonthOf(int64_t unix_s) {
  return fmt::format("{:%Y-%m}", fmt::gmtime(static_cast<std::time_t>(unix_s)));
}

}  // namespace

Result<HttpResponse> AnswerUsage(const ledger::Ledger& ledger, const ReportScope& scope,
                                 const Query& query) {
  TRY(CheckParameters(
      scope, query,
      {"tenant", "project", "key", "model", "request_id", "from", "to", "group_by", "format"},
      {"project", "key", "model", "request_id", "from", "to", "group_by", "format"}));
  TRY_ASSIGN(const std::string format, admin::ReadChoice(query, "format", {"json", "csv"}));
  TRY_ASSIGN(const ledger::UsageQuery asked, ReadQuery(scope, query));
  TRY_ASSIGN(const ledger::UsageReport report, ledger.store().ReadUsage(asked));
  if (format == "csv")
    return HttpResponse{.content_type = "text/csv; charset=utf-8",
                        .body = UsageCsv(report, scope.directory),
                        .headers = {{"content-disposition", "attachment; filename=\"usage.csv\""}}};
  return admin::JsonResponse(UsageJson(report, scope.directory));
}

Result<HttpResponse> AnswerUsageRows(const ledger::Ledger& ledger, const ReportScope& scope,
                                     const Query& query) {
  TRY(CheckParameters(
      scope, query,
      {"tenant", "project", "key", "model", "request_id", "from", "to", "limit", "before"},
      {"project", "key", "model", "request_id", "from", "to", "limit", "before"}));
  TRY_ASSIGN(const int64_t limit, admin::ReadInteger(query, "limit", 100, 1, kRowsMax));
  TRY_ASSIGN(const int64_t before, admin::ReadInteger(query, "before", 0, 1, INT64_MAX));
  TRY_ASSIGN(const ledger::UsageQuery asked, ReadQuery(scope, query));
  TRY_ASSIGN(const std::vector<ledger::Usage> rows, ledger.store().ListUsage(asked, limit, before));
  Json data = Json::array();
  for (const ledger::Usage& row : rows) data.push_back(admin::UsageRowJson(scope.directory, row));
  return admin::ListResponse(std::move(data));
}

Result<HttpResponse> AnswerInvoices(const ledger::Ledger& ledger, const ReportScope& scope,
                                    const Query& query, const Clock& clock) {
  TRY(CheckParameters(scope, query, {"tenant"}, {}));
  TRY_ASSIGN(ledger::UsageQuery asked, ReadQuery(scope, query));
  asked.group_by = {ledger::GroupBy::kTenant, ledger::GroupBy::kDay};
  TRY_ASSIGN(const ledger::UsageReport report, ledger.store().ReadUsage(asked));
  constexpr int64_t kDayS = 24 * 3600;
  std::map<std::pair<ledger::Number, std::string>, ledger::Micros> totals;
  for (const ledger::UsageGroup& group : report.groups)
    totals[{group.tenant, MonthOf(group.day * kDayS)}] += group.amount;
  const std::string this_month = MonthOf(clock.UnixSeconds());
  Json data = Json::array();
  for (const auto& [of, total] : totals) {
    const ledger::Tenant* tenant = scope.directory.FindTenant(of.first);
    if (tenant == nullptr) continue;
    data.push_back({{"object", "invoice"},
                    {"number", tenant->id + "-" + of.second},
                    {"tenant", tenant->id},
                    {"tenant_name", tenant->name},
                    {"month", of.second},
                    {"currency", scope.directory.currency()},
                    {"total", ledger::FormatMoney(total)},
                    {"open", of.second >= this_month}});
  }
  return admin::ListResponse(std::move(data));
}

Result<HttpResponse> AnswerInvoice(const ledger::Ledger& ledger, const ledger::Directory& directory,
                                   const ledger::Tenant& tenant, const std::string& month_text,
                                   const Query& query) {
  TRY(admin::CheckQuery(query, {"format"}));
  TRY_ASSIGN(const std::string format,
             admin::ReadChoice(query, "format", {"json", "text", "html"}));
  TRY_ASSIGN(const ledger::Month month, ledger::ParseMonth(month_text));
  TRY_ASSIGN(const ledger::Invoice invoice, ledger.MakeInvoice(tenant.number, month));
  if (format == "text")
    return HttpResponse{.content_type = "text/plain; charset=utf-8",
                        .body = InvoiceText(invoice, directory)};
  if (format == "html")
    return HttpResponse{.content_type = "text/html; charset=utf-8",
                        .body = InvoiceHtml(invoice, directory)};
  return admin::JsonResponse(InvoiceJson(invoice, directory));
}

}  // namespace millpower::serve
