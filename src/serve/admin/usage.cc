// What was used, grouped or row by row.
#include "serve/admin/endpoints.h"
#include "serve/reports.h"

namespace millpower::serve::admin {
namespace {

Answer ReadUsage(Context& context, const Request& request) {
  const auto directory = context.ledger->directory();
  return AnswerUsage(*context.ledger, {*directory}, request.query);
}

Answer ListRows(Context& context, const Request& request) {
  const auto directory = context.ledger->directory();
  return AnswerUsageRows(*context.ledger, {*directory}, request.query);
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/usage", .answer = ReadUsage},
    {.method = "GET", .pattern = "/admin/v1/usage/requests", .answer = ListRows},
};

}  // namespace

std::span<const Endpoint> UsageEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
