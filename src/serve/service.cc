#include "serve/service.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <future>
#include <optional>

#include "base/check.h"
#include "serve/account.h"
#include "serve/api.h"
#include "serve/build_info.h"
#include "serve/console.h"
#include "serve/lease_keeper.h"
#include "serve/metrics.h"
#include "serve/paths.h"

namespace millpower::serve {
namespace {

constexpr int kClientClosedRequest = 499;

}  // namespace

struct Service::Impl {
  Impl(HttpConfig config, const ModelRegistry& models, const Clock& clock, Meter* meter);

  void Observe(const Exchange& exchange, std::chrono::nanoseconds elapsed);
  // What is leased to whom.
  void TellRanking(const std::vector<engine::CallerShare>& shares);

  std::atomic<ranking::Engine*> ranking{nullptr};
  Metrics metrics;
  Api api;
  std::optional<Account> account;
  std::optional<LeaseKeeper> lease_keeper;
  const ModelRegistry& models;
  const Clock& clock;
  Meter* const meter;
  std::unique_ptr<BatchService> batches;
  std::unique_ptr<InferenceApi> inference;
  HttpServer server;  // last, so that it stops first
};

Service::Impl::Impl(HttpConfig config, const ModelRegistry& models_in, const Clock& clock_in,
                    Meter* meter_in)
    : metrics(
          models_in, kVersion, [this] { return server.connection_count(); },
          meter_in == nullptr ? nullptr : &meter_in->ledger()),
      api(models_in, metrics, clock_in, meter_in),
      models(models_in),
      clock(clock_in),
      meter(meter_in),
      server(
          std::move(config), [this](auto exchange) { api.Handle(std::move(exchange)); },
          [this](const Exchange& exchange, auto elapsed) { Observe(exchange, elapsed); }) {
  AddConsoleRoutes(api.router());
  if (meter == nullptr) return;
  account.emplace(api, meter->ledger(), models, clock);
  lease_keeper.emplace(meter->ledger(), models, clock, std::chrono::seconds(1),
                       [this](const auto& shares) { TellRanking(shares); });
}

void Service::Impl::TellRanking(const std::vector<engine::CallerShare>& shares) {
  ranking::Engine* const engine = ranking;
  if (engine == nullptr) return;
  std::vector<ranking::Share> told;
  for (const engine::CallerShare& each : shares)
    told.push_back({.caller = each.caller, .share = each.share});
  engine->SetShares(std::move(told));
}

void Service::Impl::Observe(const Exchange& exchange, std::chrono::nanoseconds elapsed) {
  const Exchange::Summary summary = exchange.summary();
  const int status = summary.gone ? kClientClosedRequest : summary.status;
  const double seconds = static_cast<double>(elapsed.count()) * 1e-9;
  metrics.CountRequest(summary.route, status, seconds);
  const HttpRequest& request = exchange.request();
  const std::string_view route = summary.route;
  const bool is_probe = route == "health" || route == "metrics";
  spdlog::log(is_probe ? spdlog::level::debug : spdlog::level::info,
              "{} {} {} {:.1f}ms in={} out={} id={}", PrintablePath(request.method),
              PrintablePath(request.path), status, seconds * 1e3, summary.prompt_tokens,
              summary.completion_tokens, request.id);
}

Service::Service(HttpConfig config, const ModelRegistry& models, const Clock& clock, Meter* meter)
    : impl_(std::make_unique<Impl>(std::move(config), models, clock, meter)) {}

Service::~Service() { Drain(std::chrono::milliseconds(0)); }

Result<void> Service::OpenBatches(const BatchConfig& config) {
  CHECK(impl_->meter != nullptr) << "batches are billed";
  Api& api = impl_->api;
  TRY_ASSIGN(impl_->batches,
             BatchService::Open(
                 config,
                 [&api](const HttpRequest& request, const char* scope) {
                   return api.access().Authenticate(request, scope);
                 },
                 MakeBatchPorts([&api](auto exchange) { api.Handle(std::move(exchange)); },
                                impl_->meter->ledger(), impl_->models, impl_->clock),
                 impl_->clock));
  impl_->batches->AddRoutes(api.router());
  impl_->metrics.AddText([batches = impl_->batches.get()] { return batches->MetricsText(); });
  return {};
}

void Service::StartBatches() { impl_->batches->Start(); }

InferenceApi& Service::OpenInference(ranking::Engine& engine, InferenceConfig config) {
  impl_->inference = std::make_unique<InferenceApi>(impl_->api, engine, impl_->metrics,
                                                    impl_->clock, impl_->meter, std::move(config));
  impl_->ranking = &engine;
  impl_->metrics.AddText([inference = impl_->inference.get()] { return inference->MetricsText(); });
  return *impl_->inference;
}

Result<void> Service::Start() { return impl_->server.Start(); }

void Service::AddMetrics(std::function<std::string()> text) {
  impl_->metrics.AddText(std::move(text));
}

Api& Service::api() { return impl_->api; }

const Metrics& Service::metrics() const { return impl_->metrics; }

uint16_t Service::port() const { return impl_->server.port(); }

void Service::Drain(std::chrono::milliseconds timeout) {
  impl_->api.StartDraining();
  if (impl_->inference) impl_->inference->StartDraining();
  const auto batches = std::async(std::launch::async, [&] {
    if (impl_->batches) impl_->batches->Stop(timeout);
  });
  impl_->server.Drain(timeout);
}

}  // namespace millpower::serve
