#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/reports.h"

namespace millpower::serve::admin {
namespace {

Answer ListInvoices(Context& context, const Request& request) {
  const auto directory = context.ledger->directory();
  return AnswerInvoices(*context.ledger, {*directory}, request.query, context.clock);
}

Answer GetInvoice(Context& context, const Request& request) {
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(*directory, request.path[0]));
  return AnswerInvoice(*context.ledger, *directory, *tenant, request.path[1], request.query);
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/invoices", .answer = ListInvoices},
    {.method = "GET", .pattern = "/admin/v1/invoices/{tenant}/{month}", .answer = GetInvoice},
};

}  // namespace

std::span<const Endpoint> InvoiceEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
