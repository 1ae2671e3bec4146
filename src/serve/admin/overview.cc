// All at a glance: the models, the money, the ledger.
#include <algorithm>

#include "serve/account.h"
#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

using ledger::FormatMoney;

Json TotalsJson(const ledger::Ledger& ledger, const ledger::Directory& directory, int64_t now) {
  using Subject = ledger::Ledger::Subject;
  ledger::Micros credit = 0, held = 0, money_day = 0, money_month = 0;
  int64_t tokens_day = 0, tokens_month = 0;
  for (const ledger::Tenant& tenant : directory.tenants()) {
    const auto spent = [&](ledger::Period period, ledger::Measure measure) {
      return ledger.SpentIn(Subject::kTenant, tenant.number, period, measure).used;
    };
    credit += ledger.Balance({ledger::AccountKind::kCredit, tenant.number});
    held += ledger.Balance({ledger::AccountKind::kHeld, tenant.number});
    money_day += spent(ledger::Period::kDay, ledger::Measure::kMoney);
    money_month += spent(ledger::Period::kMonth, ledger::Measure::kMoney);
    tokens_day += spent(ledger::Period::kDay, ledger::Measure::kTokens);
    tokens_month += spent(ledger::Period::kMonth, ledger::Measure::kTokens);
  }
  const auto keys = std::ranges::count_if(directory.keys(), [&](const ledger::Key& key) {
    return (key.revoked_at == 0 || key.revoked_at > now) &&
           (key.expires_at == 0 || key.expires_at > now);
  });
  const auto leases = std::ranges::count_if(directory.leases(), [&](const ledger::Lease& lease) {
    return lease.cancelled_at == 0 && lease.starts_at <= now && now < lease.ends_at;
  });
  return {{"tenants", directory.tenants().size()},
          {"projects", directory.projects().size()},
          {"active_keys", keys},
          {"running_leases", leases},
          {"credit", FormatMoney(credit)},
          {"held", FormatMoney(held)},
          {"revenue", FormatMoney(ledger.Balance({ledger::AccountKind::kRevenue, 0}))},
          {"spent",
           {{"day", {{"money", FormatMoney(money_day)}, {"tokens", tokens_day}}},
            {"month", {{"money", FormatMoney(money_month)}, {"tokens", tokens_month}}}}}};
}

Answer Overview(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {}));
  Json models = Json::array();
  for (const ModelStatus& status : context.host.List()) {
    Json model =
        status.model == nullptr ? Json({{"id", status.spec.name}}) : StatsJson(*status.model);
    model["state"] = Name(status.state);
    models.push_back(std::move(model));
  }
  Json json = {{"object", "overview"}, {"at", context.clock.UnixSeconds()}};
  json["models"] = std::move(models);
  json["totals"] = nullptr;
  json["ledger"] = nullptr;
  if (context.ledger == nullptr) return JsonResponse(json);
  const auto directory = context.ledger->directory();
  const ledger::LedgerStats stats = context.ledger->stats();
  json["currency"] = directory->currency();
  json["totals"] = TotalsJson(*context.ledger, *directory, context.clock.UnixSeconds());
  json["ledger"] = {{"healthy", stats.healthy},       {"commits", stats.commits},
                    {"records", stats.records},       {"failed_commits", stats.failed_commits},
                    {"open_holds", stats.open_holds}, {"recovered_holds", stats.recovered_holds}};
  return JsonResponse(json);
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/overview", .answer = Overview, .needs_ledger = false},
};

}  // namespace

std::span<const Endpoint> OverviewEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
