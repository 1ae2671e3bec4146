#include <cmath>

#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"
#include "serve/errors.h"

namespace millpower::serve::admin {
namespace {

constexpr double kPpm = 1e6;
constexpr int64_t kDurationMaxS = int64_t{10} * 366 * 24 * 3600;

Answer ListLeases(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"tenant"}));
  const auto directory = context.ledger->directory();
  const ledger::Tenant* tenant = nullptr;
  if (const std::string* id = request.query.Find("tenant")) {
    TRY_ASSIGN(tenant, FindTenant(*directory, *id));
  }
  const int64_t now = context.clock.UnixSeconds();
  Json data = Json::array();
  for (const ledger::Lease& lease : directory->leases())
    if (tenant == nullptr || lease.tenant == tenant->number)
      data.push_back(LeaseJson(*directory, lease, now));
  return ListResponse(std::move(data));
}

Answer CreateLease(Context& context, const Request& request) {
  Fields fields(request.body, {"tenant", "share", "starts_at", "ends_at", "duration_s"});
  for (const char* name : {"tenant", "share"}) fields.Require(name);
  const int64_t now = context.clock.UnixSeconds();
  std::string tenant_id;
  double share = 0;
  ledger::Lease lease;
  lease.starts_at = now;
  fields.Read("tenant", tenant_id);
  fields.Read("share", share, 1 / kPpm, 1.0);
  if (fields.Find("starts_at") != nullptr) fields.ReadTime("starts_at", lease.starts_at);
  if ((fields.Find("ends_at") == nullptr) == (fields.Find("duration_s") == nullptr))
    fields.Refuse("ends_at", "is required, or duration_s in its place");
  fields.ReadTime("ends_at", lease.ends_at);
  int64_t duration_s = 0;
  fields.Read("duration_s", duration_s, int64_t{1}, kDurationMaxS);
  if (duration_s > 0) lease.ends_at = lease.starts_at + duration_s;
  if (lease.ends_at <= lease.starts_at) fields.Refuse("ends_at", "must be after starts_at");
  TRY(fields.status());
  lease.share_ppm = std::llround(share * kPpm);
  std::lock_guard lock(context.changing);
  TRY_ASSIGN(const ledger::Tenant* tenant, FindTenant(*context.ledger->directory(), tenant_id));
  lease.tenant = tenant->number;
  const auto made = context.ledger->CreateLease(kActor, std::move(lease));
  // Neither is a matter of waiting a second, as their statuses for clients would say.
  if (!made && (made.error().code == ErrorCode::kQuotaExceeded ||
                made.error().code == ErrorCode::kNoCapacity))
    return Fail(ErrorCode::kAlreadyExists, made.error().message);
  TRY(made);
  return JsonResponse(LeaseJson(*context.ledger->directory(), *made, now), 201);
}

Answer CancelLease(Context& context, const Request& request) {
  std::lock_guard lock(context.changing);
  const auto directory = context.ledger->directory();
  const ledger::Lease* lease = directory->FindLease(request.path[0]);
  if (lease == nullptr)
    return Fail(ErrorCode::kNotFound, "there is no lease '" + request.path[0] + "'", "lease");
  TRY_ASSIGN(const ledger::Lease cancelled, context.ledger->CancelLease(kActor, lease->number));
  return JsonResponse(LeaseJson(*directory, cancelled, context.clock.UnixSeconds()));
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/leases", .answer = ListLeases},
    {.method = "POST", .pattern = "/admin/v1/leases", .answer = CreateLease, .has_body = true},
    {.method = "DELETE", .pattern = "/admin/v1/leases/{id}", .answer = CancelLease},
};

}  // namespace

std::span<const Endpoint> LeaseEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
