#include "serve/account.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <map>
#include <mutex>
#include <set>
#include <tuple>

#include "serve/admin/outputs.h"
#include "serve/errors.h"
#include "serve/reports.h"

namespace millpower::serve {
namespace {

using ledger::FormatMoney;
using ledger::Measure;
using ledger::Period;
using Subject = ledger::Ledger::Subject;
using ExchangePtr = std::shared_ptr<Exchange>;
using CallerPtr = std::shared_ptr<const Caller>;

// Reports read the disk, one after the other; more than this many of one tenant's do not wait.
constexpr int kWaitingMax = 8;
constexpr int64_t kDayS = 24 * 3600;
constexpr const char* kPeriods[] = {"day", "month", "total"};
constexpr const char* kMeasures[] = {"money", "tokens"};

Json AmountJson(Measure measure, int64_t amount) {
  return measure == Measure::kMoney ? Json(FormatMoney(amount)) : Json(amount);
}

// Who has a key, from the narrowest on.
struct Level {
  const char* name;
  Subject subject;
  ledger::Number number;
  const ledger::Bounds& bounds;
};
std::vector<Level> LevelsOf(const Caller& caller) {
  return {{"key", Subject::kKey, caller.key->number, caller.key->bounds},
          {"project", Subject::kProject, caller.project->number, caller.project->bounds},
          {"tenant", Subject::kTenant, caller.tenant->number, caller.tenant->bounds}};
}

Json CapsJson(const ledger::Ledger& ledger, const Caller& caller) {
  Json caps = Json::array();
  for (const Level& level : LevelsOf(caller))
    for (const ledger::CapState& state : ledger.Caps(level.subject, level.number))
      caps.push_back({{"of", level.name},
                      {"period", kPeriods[static_cast<size_t>(state.cap.period)]},
                      {"measure", kMeasures[static_cast<size_t>(state.cap.measure)]},
                      {"limit", AmountJson(state.cap.measure, state.cap.limit)},
                      {"used", AmountJson(state.cap.measure, state.used)},
                      {"held", AmountJson(state.cap.measure, state.held)}});
  return caps;
}

Json LimitsJson(const Caller& caller) {
  Json json = Json::object();
  const auto limit = [](int64_t count) { return count == 0 ? Json() : Json(count); };
  for (const Level& level : LevelsOf(caller)) {
    const ledger::RateLimits& limits = level.bounds.limits;
    json[level.name] = {{"requests_per_minute", limit(limits.requests_per_minute)},
                        {"tokens_per_minute", limit(limits.tokens_per_minute)},
                        {"concurrent_requests", limit(limits.concurrent_requests)}};
  }
  return json;
}

Json SpentJson(const ledger::Ledger& ledger, ledger::Number tenant) {
  Json json = Json::object();
  for (const Period period : {Period::kDay, Period::kMonth, Period::kTotal})
    for (const Measure measure : {Measure::kMoney, Measure::kTokens})
      json[kPeriods[static_cast<size_t>(period)]][kMeasures[static_cast<size_t>(measure)]] =
          AmountJson(measure, ledger.SpentIn(Subject::kTenant, tenant, period, measure).used);
  return json;
}

// What it can still hold; null: there is no bound.
Json AvailableJson(const ledger::Ledger& ledger, const ledger::Tenant& tenant) {
  if (!tenant.credit_line) return Json();
  return FormatMoney(ledger.Balance({ledger::AccountKind::kCredit, tenant.number}) +
                     *tenant.credit_line);
}

// Those that still matter.
Json LeasesJson(const Caller& caller, int64_t now) {
  Json leases = Json::array();
  for (const ledger::Lease& lease : caller.directory->leases())
    if (lease.tenant == caller.tenant->number && lease.cancelled_at == 0 && now < lease.ends_at)
      leases.push_back(admin::LeaseJson(*caller.directory, lease, now));
  return leases;
}

// What is in effect now, of every model by name and of "*".
Json PricesJson(const ledger::Directory& directory, int64_t now) {
  std::set<std::tuple<std::string, ledger::Tier, ledger::Unit>> offers;
  for (const ledger::Price& price : directory.prices())
    if (price.effective_at <= now) offers.insert({price.model, price.tier, price.unit});
  Json prices = Json::array();
  for (const auto& [model, tier, unit] : offers) {
    const ledger::Price* price = directory.FindPrice(model, tier, unit, now);
    prices.push_back({{"model", model},
                      {"tier", Name(tier)},
                      {"unit", Name(unit)},
                      {"rate", FormatMoney(price->rate)}});
  }
  return prices;
}

Json DistributionJson(const ModelMetrics::Distribution& seconds) {
  return {{"sum", seconds.sum}, {"count", seconds.count}};
}

}  // namespace

Json StatsJson(const ServedModel& model) {
  const engine::EngineStats stats = model.engine->Stats();
  return {{"id", model.name},
          {"requests_running", stats.requests_running},
          {"requests_waiting", stats.requests_waiting},
          {"kv_pages_used", stats.kv_pages_used},
          {"kv_pages_cached", stats.kv_pages_cached},
          {"kv_pages_total", stats.kv_pages_total},
          {"prompt_tokens", stats.prompt_tokens},
          {"cached_prompt_tokens", stats.cached_prompt_tokens},
          {"generated_tokens", stats.generated_tokens},
          {"ttft", DistributionJson(model.metrics->first_token_seconds())},
          {"inter_token", DistributionJson(model.metrics->inter_token_seconds())}};
}

struct Account::Impl {
  using Answer = Result<HttpResponse>;
  using Function = Answer (Impl::*)(const Caller&, const Query&, const PathArguments&);

  Impl(Api& api, const ledger::Ledger& ledger, const ModelRegistry& models, const Clock& clock);

  void Handle(const ExchangePtr& exchange, const PathArguments& arguments, Function function);

  Answer Show(const Caller& caller, const Query& query, const PathArguments&);
  Answer Usage(const Caller& caller, const Query& query, const PathArguments&);
  Answer UsageRows(const Caller& caller, const Query& query, const PathArguments&);
  Answer Invoices(const Caller& caller, const Query& query, const PathArguments&);
  Answer Invoice(const Caller& caller, const Query& query, const PathArguments& arguments);
  Answer Stats(const Caller& caller, const Query& query, const PathArguments&);

  // One of a tenant's places in the lane, while there is one.
  bool TakePlace(ledger::Number tenant);
  void GiveBackPlace(ledger::Number tenant);

  const Access& access;
  const ledger::Ledger& ledger;
  const ModelRegistry& models;
  const Clock& clock;
  std::mutex mutex;
  std::map<ledger::Number, int> waiting;  // by tenant
  boost::asio::thread_pool lane{1};
};

Account::Impl::Impl(Api& api, const ledger::Ledger& ledger_in, const ModelRegistry& models_in,
                    const Clock& clock_in)
    : access(api.access()), ledger(ledger_in), models(models_in), clock(clock_in) {
  const auto add = [&](const char* pattern, const char* name, Function function) {
    api.router().Add(
        {"GET", pattern, name,
         [this, function](const ExchangePtr& exchange, const PathArguments& arguments) {
           Handle(exchange, arguments, function);
         }});
  };
  add("/v1/account", "account", &Impl::Show);
  add("/v1/usage", "usage", &Impl::Usage);
  add("/v1/usage/requests", "usage", &Impl::UsageRows);
  add("/v1/invoices", "invoices", &Impl::Invoices);
  add("/v1/invoices/{month}", "invoices", &Impl::Invoice);
  add("/v1/stats", "stats", &Impl::Stats);
}

bool Account::Impl::TakePlace(ledger::Number tenant) {
  std::lock_guard lock(mutex);
  int& count = waiting[tenant];
  if (count >= kWaitingMax) return false;
  ++count;
  return true;
}

void Account::Impl::GiveBackPlace(ledger::Number tenant) {
  std::lock_guard lock(mutex);
  const auto found = waiting.find(tenant);
  if (--found->second == 0) waiting.erase(found);
}

void Account::Impl::Handle(const ExchangePtr& exchange, const PathArguments& arguments,
                           Function function) {
  Result<CallerPtr> caller = access.Authenticate(exchange->request(), kUsageScope);
  if (!caller) return exchange->Reply(ErrorResponse(caller.error()));
  const ledger::Number tenant = (*caller)->tenant->number;
  if (!TakePlace(tenant))
    return exchange->Reply(ErrorResponse(
        Error{ErrorCode::kRateLimited, "too many reports are being made for this tenant", ""}));
  boost::asio::post(lane, [this, exchange, arguments, function, tenant,
                           caller = std::move(*caller)] {
    Answer answer;
    try {
      if (!exchange->gone())
        answer = (this->*function)(*caller, Query(exchange->request().query), arguments);
    } catch (const std::exception& error) {  // out of memory
      spdlog::error("id={} {}: {}", exchange->request().id, exchange->request().path, error.what());
      answer = Fail(ErrorCode::kInternal, "internal error");
    }
    GiveBackPlace(tenant);
    exchange->Reply(answer ? std::move(*answer) : ErrorResponse(answer.error()));
  });
}

Account::Impl::Answer Account::Impl::Show(const Caller& caller, const Query&,
                                          const PathArguments&) {
  const auto [directory, tenant, project, key, is_batch] = caller;
  const int64_t now = clock.UnixSeconds();
  Json json = {{"object", "account"}, {"currency", directory->currency()}};
  json["tenant"] = {{"id", tenant->id}, {"name", tenant->name}};
  json["project"] = {{"id", project->id}, {"name", project->name}};
  json["key"] = {{"id", key->id},         {"name", key->name},
                 {"prefix", key->prefix}, {"expires_at", admin::TimeJson(key->expires_at)},
                 {"models", key->models}, {"endpoints", key->endpoints}};
  json["credit"] = FormatMoney(ledger.Balance({ledger::AccountKind::kCredit, tenant->number}));
  json["available"] = AvailableJson(ledger, *tenant);
  json["spent"] = SpentJson(ledger, tenant->number);
  json["caps"] = CapsJson(ledger, caller);
  json["limits"] = LimitsJson(caller);
  json["leases"] = LeasesJson(caller, now);
  json["prices"] = PricesJson(*directory, now);
  return admin::JsonResponse(json);
}

Account::Impl::Answer Account::Impl::Usage(const Caller& caller, const Query& query,
                                           const PathArguments&) {
  return AnswerUsage(ledger, {*caller.directory, caller.tenant}, query);
}

Account::Impl::Answer Account::Impl::UsageRows(const Caller& caller, const Query& query,
                                               const PathArguments&) {
  return AnswerUsageRows(ledger, {*caller.directory, caller.tenant}, query);
}

Account::Impl::Answer Account::Impl::Invoices(const Caller& caller, const Query& query,
                                              const PathArguments&) {
  return AnswerInvoices(ledger, {*caller.directory, caller.tenant}, query, clock);
}

Account::Impl::Answer Account::Impl::Invoice(const Caller& caller, const Query& query,
                                             const PathArguments& arguments) {
  return AnswerInvoice(ledger, *caller.directory, *caller.tenant, arguments[0], query);
}

Account::Impl::Answer Account::Impl::Stats(const Caller& caller, const Query&,
                                           const PathArguments&) {
  const int64_t now = clock.UnixSeconds();
  const auto spent = [&](Measure measure) {
    return ledger.SpentIn(Subject::kTenant, caller.tenant->number, Period::kDay, measure).used;
  };
  ledger::UsageQuery query_today;
  query_today.from = now - now % kDayS;
  query_today.tenant = caller.tenant->number;
  TRY_ASSIGN(const ledger::UsageReport today, ledger.store().ReadUsage(query_today));
  int64_t requests = 0;
  for (const ledger::UsageGroup& group : today.groups) requests += group.requests;
  Json all = Json::array();
  for (const auto& model : models.All())
    if (MayUseModel(&caller, model->name)) all.push_back(StatsJson(*model));
  Json json = {{"object", "stats"}, {"at", now}, {"currency", caller.directory->currency()}};
  json["models"] = std::move(all);
  json["spent"] = FormatMoney(spent(Measure::kMoney));
  json["tokens"] = spent(Measure::kTokens);
  json["requests"] = requests;
  json["available"] = AvailableJson(ledger, *caller.tenant);
  return admin::JsonResponse(json);
}

Account::Account(Api& api, const ledger::Ledger& ledger, const ModelRegistry& models,
                 const Clock& clock)
    : impl_(std::make_unique<Impl>(api, ledger, models, clock)) {}

Account::~Account() { impl_->lane.join(); }

}  // namespace millpower::serve
