#include "serve/admin/outputs.h"

#include <algorithm>

namespace millpower::serve::admin {
namespace {

using ledger::FormatMoney;
using Subject = ledger::Ledger::Subject;

constexpr const char* kPeriods[] = {"day", "month", "total"};
constexpr const char* kMeasures[] = {"money", "tokens"};
constexpr const char* kOrigins[] = {"none", "modelled", "measured"};

Json AmountJson(ledger::Measure measure, int64_t amount) {
  return measure == ledger::Measure::kMoney ? Json(FormatMoney(amount)) : Json(amount);
}

Json LimitJson(int64_t limit) { return limit == 0 ? Json() : Json(limit); }

void AddBounds(Json& json, const ledger::Ledger& ledger, Subject subject, ledger::Number number,
               const ledger::Bounds& bounds) {
  Json caps = Json::array();
  for (const ledger::CapState& state : ledger.Caps(subject, number))
    caps.push_back({{"period", kPeriods[static_cast<size_t>(state.cap.period)]},
                    {"measure", kMeasures[static_cast<size_t>(state.cap.measure)]},
                    {"limit", AmountJson(state.cap.measure, state.cap.limit)},
                    {"used", AmountJson(state.cap.measure, state.used)},
                    {"held", AmountJson(state.cap.measure, state.held)}});
  json["caps"] = std::move(caps);
  json["limits"] = {{"requests_per_minute", LimitJson(bounds.limits.requests_per_minute)},
                    {"tokens_per_minute", LimitJson(bounds.limits.tokens_per_minute)},
                    {"concurrent_requests", LimitJson(bounds.limits.concurrent_requests)}};
}

Json SpentJson(const ledger::Ledger& ledger, Subject subject, ledger::Number number) {
  Json json = Json::object();
  for (const auto period : {ledger::Period::kDay, ledger::Period::kMonth, ledger::Period::kTotal})
    for (const auto measure : {ledger::Measure::kMoney, ledger::Measure::kTokens})
      json[kPeriods[static_cast<size_t>(period)]][kMeasures[static_cast<size_t>(measure)]] =
          AmountJson(measure, ledger.SpentIn(subject, number, period, measure).used);
  return json;
}

// Who is named in a record was there when it was made, and nothing is ever taken away.
template <typename T>
Json IdJson(const T* record) {
  return record == nullptr ? Json() : Json(record->id);
}
template <typename T>
Json NameJson(const T* record) {
  return record == nullptr ? Json() : Json(record->name);
}

const char* StateOf(const ledger::Key& key, int64_t now) {
  if (key.revoked_at != 0 && key.revoked_at <= now) return "revoked";
  return key.expires_at != 0 && key.expires_at <= now ? "expired" : "active";
}

const char* StateOf(const ledger::Lease& lease, int64_t now) {
  if (lease.cancelled_at != 0) return "cancelled";
  if (now < lease.starts_at) return "upcoming";
  return now < lease.ends_at ? "running" : "ended";
}

}  // namespace

Json TenantJson(const ledger::Ledger& ledger, const ledger::Tenant& tenant) {
  Json json = {{"id", tenant.id},
               {"object", "tenant"},
               {"name", tenant.name},
               {"created_at", tenant.created_at},
               {"suspended", tenant.suspended}};
  json["credit_line"] = tenant.credit_line ? Json(FormatMoney(*tenant.credit_line)) : Json();
  json["credit"] = FormatMoney(ledger.Balance({ledger::AccountKind::kCredit, tenant.number}));
  json["held"] = FormatMoney(ledger.Balance({ledger::AccountKind::kHeld, tenant.number}));
  AddBounds(json, ledger, Subject::kTenant, tenant.number, tenant.bounds);
  json["spent"] = SpentJson(ledger, Subject::kTenant, tenant.number);
  return json;
}

Json ProjectJson(const ledger::Ledger& ledger, const ledger::Directory& directory,
                 const ledger::Project& project) {
  const ledger::Tenant* tenant = directory.FindTenant(project.tenant);
  Json json = {{"id", project.id},
               {"object", "project"},
               {"name", project.name},
               {"tenant", IdJson(tenant)},
               {"tenant_name", NameJson(tenant)},
               {"created_at", project.created_at}};
  AddBounds(json, ledger, Subject::kProject, project.number, project.bounds);
  json["spent"] = SpentJson(ledger, Subject::kProject, project.number);
  return json;
}

Json KeyJson(const ledger::Ledger& ledger, const ledger::Directory& directory,
             const ledger::Key& key, int64_t now) {
  const ledger::Tenant* tenant = directory.FindTenant(key.tenant);
  const ledger::Project* project = directory.FindProject(key.project);
  Json json = {{"id", key.id},
               {"object", "key"},
               {"name", key.name},
               {"prefix", key.prefix},
               {"state", StateOf(key, now)},
               {"tenant", IdJson(tenant)},
               {"tenant_name", NameJson(tenant)},
               {"project", IdJson(project)},
               {"project_name", NameJson(project)},
               {"created_at", key.created_at},
               {"expires_at", TimeJson(key.expires_at)},
               {"revoked_at", TimeJson(key.revoked_at)},
               {"models", key.models},
               {"endpoints", key.endpoints}};
  AddBounds(json, ledger, Subject::kKey, key.number, key.bounds);
  json["spent"] = SpentJson(ledger, Subject::kKey, key.number);
  return json;
}

Json LeaseJson(const ledger::Directory& directory, const ledger::Lease& lease, int64_t now) {
  const ledger::Tenant* tenant = directory.FindTenant(lease.tenant);
  return {{"id", lease.id},
          {"object", "lease"},
          {"tenant", IdJson(tenant)},
          {"tenant_name", NameJson(tenant)},
          {"share", static_cast<double>(lease.share_ppm) / 1e6},
          {"state", StateOf(lease, now)},
          {"starts_at", lease.starts_at},
          {"ends_at", lease.ends_at},
          {"cancelled_at", TimeJson(lease.cancelled_at)},
          {"rate", FormatMoney(lease.rate)},
          {"amount", FormatMoney(lease.amount)},
          {"created_at", lease.created_at}};
}

Json UsageRowJson(const ledger::Directory& directory, const ledger::Usage& usage) {
  Json json = {{"number", usage.number},
               {"object", "usage"},
               {"request_id", usage.request_id},
               {"api_request_id", usage.api_request_id},
               {"tenant", IdJson(directory.FindTenant(usage.tenant))},
               {"project", IdJson(directory.FindProject(usage.project))},
               {"key", IdJson(directory.FindKey(usage.key))},
               {"model", usage.model},
               {"endpoint", usage.endpoint},
               {"tier", Name(usage.tier)},
               {"admitted_at", usage.admitted_at},
               {"posted_at", usage.posted_at},
               {"reason", usage.reason},
               {"amount", FormatMoney(usage.amount)}};
  Json quantities = Json::object();
  for (int i = 0; i < ledger::kUnitCount; ++i)
    quantities[ledger::Name(static_cast<ledger::Unit>(i))] =
        usage.quantities[static_cast<size_t>(i)];
  json["quantities"] = std::move(quantities);
  Json lines = Json::array();
  for (const ledger::UsageLine& line : usage.lines) {
    const ledger::Price* price = directory.FindPrice(line.price);
    lines.push_back({{"unit", Name(line.unit)},
                     {"quantity", line.quantity},
                     {"rate", price == nullptr ? Json() : Json(FormatMoney(price->rate))},
                     {"amount", FormatMoney(line.amount)}});
  }
  json["lines"] = std::move(lines);
  json["energy_j"] = static_cast<double>(usage.energy_uj) / 1e6;
  json["gco2e"] = static_cast<double>(usage.co2e_ug) / 1e6;
  json["energy_source"] = kOrigins[static_cast<size_t>(usage.energy_origin)];
  return json;
}

Json TimeJson(int64_t time) { return time == 0 ? Json() : Json(time); }

HttpResponse JsonResponse(const Json& json, int status) {
  return {.status = status, .body = DumpJson(json)};
}

HttpResponse ListResponse(Json data) {
  return JsonResponse({{"object", "list"}, {"data", std::move(data)}});
}

}  // namespace millpower::serve::admin
