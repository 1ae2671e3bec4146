#include <fmt/chrono.h>
#include <fmt/format.h>

#include <map>

#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

// One for each month in which a tenant used anything.
Answer ListInvoices(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"tenant"}));
  const auto directory = context.ledger->directory();
  ledger::UsageQuery query;
  query.group_by = {ledger::GroupBy::kTenant, ledger::GroupBy::kDay};
  if (const std::string* id = request.query.Find("tenant")) {
    TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(*directory, *id));
    query.tenant = tenant->number;
  }
  TRY_ASSIGN(const ledger::UsageReport report, context.ledger->store().ReadUsage(query));
  constexpr std::time_t kDayS = 24 * 3600;
  const auto month_of = [](int64_t unix_s) {
    return fmt::format("{:%Y-%m}", fmt::gmtime(static_cast<std::time_t>(unix_s)));
  };
  std::map<std::pair<ledger::Number, std::string>, ledger::Micros> totals;
  for (const ledger::UsageGroup& group : report.groups)
    totals[{group.tenant, month_of(group.day * kDayS)}] += group.amount;
  const std::string this_month = month_of(context.clock.UnixSeconds());
  Json data = Json::array();
  for (const auto& [of, total] : totals) {
    const ledger::Tenant* tenant = directory->FindTenant(of.first);
    if (tenant == nullptr) continue;
    data.push_back({{"object", "invoice"},
                    {"number", tenant->id + "-" + of.second},
                    {"tenant", tenant->id},
                    {"tenant_name", tenant->name},
                    {"month", of.second},
                    {"currency", directory->currency()},
                    {"total", ledger::FormatMoney(total)},
                    {"open", of.second >= this_month}});
  }
  return ListResponse(std::move(data));
}

Answer GetInvoice(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"format"}));
  TRY_ASSIGN(const std::string format,
             ReadChoice(request.query, "format", {"json", "text", "html"}));
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(*directory, request.path[0]));
  TRY_ASSIGN(const ledger::Month month, ledger::ParseMonth(request.path[1]));
  TRY_ASSIGN(const ledger::Invoice invoice, context.ledger->MakeInvoice(tenant->number, month));
  if (format == "text")
    return HttpResponse{.content_type = "text/plain; charset=utf-8",
                        .body = InvoiceText(invoice, *directory)};
  if (format == "html")
    return HttpResponse{.content_type = "text/html; charset=utf-8",
                        .body = InvoiceHtml(invoice, *directory)};
  return JsonResponse(InvoiceJson(invoice, *directory));
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/invoices", .answer = ListInvoices},
    {.method = "GET", .pattern = "/admin/v1/invoices/{tenant}/{month}", .answer = GetInvoice},
};

}  // namespace

std::span<const Endpoint> InvoiceEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
