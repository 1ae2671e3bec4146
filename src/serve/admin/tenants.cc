// Tenants, and the money they pay in.
#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

void ReadTenant(Fields& fields, ledger::Tenant& tenant) {
  fields.ReadText("name", tenant.name);
  if (fields.IsNull("credit_line")) {
    tenant.credit_line.reset();
  } else if (fields.Has("credit_line")) {
    ledger::Micros line = 0;
    fields.ReadMoney("credit_line", line, 0, ledger::kMaxMicros);
    tenant.credit_line = line;
  }
  fields.ReadBounds(tenant.bounds);
}

Answer ListTenants(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {}));
  Json data = Json::array();
  for (const ledger::Tenant& tenant : context.ledger->directory()->tenants())
    data.push_back(TenantJson(*context.ledger, tenant));
  return ListResponse(std::move(data));
}

Answer CreateTenant(Context& context, const Request& request) {
  Fields fields(request.body, {"name", "credit_line", "caps", "limits"});
  fields.Require("name");
  ledger::Tenant tenant;
  ReadTenant(fields, tenant);
  TRY(fields.status());
  std::lock_guard lock(context.changing);
  TRY_ASSIGN(const ledger::Tenant made, context.ledger->CreateTenant(kActor, std::move(tenant)));
  return JsonResponse(TenantJson(*context.ledger, made), 201);
}

Answer GetTenant(Context& context, const Request& request) {
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(*directory, request.path[0]));
  return JsonResponse(TenantJson(*context.ledger, *tenant));
}

Answer UpdateTenant(Context& context, const Request& request) {
  std::lock_guard lock(context.changing);
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Tenant* found, FindTenant(*directory, request.path[0]));
  ledger::Tenant tenant = *found;
  Fields fields(request.body, {"name", "suspended", "credit_line", "caps", "limits"});
  ReadTenant(fields, tenant);
  fields.Read("suspended", tenant.suspended);
  TRY(fields.status());
  TRY_ASSIGN(const ledger::Tenant changed, context.ledger->UpdateTenant(kActor, tenant));
  return JsonResponse(TenantJson(*context.ledger, changed));
}

Answer AddCredit(Context& context, const Request& request) {
  Fields fields(request.body, {"amount", "reference"});
  ledger::Micros amount = 0;
  std::string reference;
  for (const char* name : {"amount", "reference"}) fields.Require(name);
  fields.ReadMoney("amount", amount, -ledger::kMaxMicros, ledger::kMaxMicros);
  fields.ReadText("reference", reference);
  TRY(fields.status());
  std::lock_guard lock(context.changing);
  const auto directory = context.ledger->directory();
  TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(*directory, request.path[0]));
  // Payments come from here only, one at a time, so that this account tells whether it was new.
  const ledger::Account payments = {.kind = ledger::AccountKind::kPayments};
  const ledger::Micros before = context.ledger->Balance(payments);
  TRY_ASSIGN(const ledger::Micros credit,
             context.ledger->AddCredit(kActor, tenant->number, amount, reference));
  return JsonResponse({{"object", "credit"},
                       {"tenant", tenant->id},
                       {"amount", ledger::FormatMoney(amount)},
                       {"reference", reference},
                       {"applied", context.ledger->Balance(payments) != before},
                       {"credit", ledger::FormatMoney(credit)}});
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/tenants", .answer = ListTenants},
    {.method = "POST", .pattern = "/admin/v1/tenants", .answer = CreateTenant, .has_body = true},
    {.method = "GET", .pattern = "/admin/v1/tenants/{id}", .answer = GetTenant},
    {.method = "PATCH",
     .pattern = "/admin/v1/tenants/{id}",
     .answer = UpdateTenant,
     .has_body = true},
    {.method = "POST",
     .pattern = "/admin/v1/tenants/{id}/credit",
     .answer = AddCredit,
     .has_body = true},
};

}  // namespace

std::span<const Endpoint> TenantEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
