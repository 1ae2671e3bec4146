#include "serve/admin.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <random>
#include <string_view>
#include <system_error>

#include "ledger/key_secret.h"
#include "serve/admin/endpoints.h"
#include "serve/api.h"
#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/inference/inference_api.h"
#include "serve/metrics.h"
#include "serve/paths.h"
#include "serve/router.h"
#include "serve/server.h"

namespace millpower::serve {
namespace {

constexpr std::string_view kAdminPrefix = "/admin/";
constexpr std::string_view kMetricsPath = "/metrics";
constexpr size_t kBodyMaxBytes = 64 << 10;
// Two, so that proving the books of years does not hold up a revocation.
constexpr size_t kLaneThreads = 2;
const SystemClock kSystemClock;

}  // namespace

std::string NewAdminKey() {
  std::random_device device;  // the kernel's
  std::string key;
  for (int i = 0; i < 8; ++i) key += fmt::format("{:08x}", device());
  return key;
}

struct AdminServer::Impl {
  Impl(AdminConfig config, ModelHost& host, const AdminParts& parts);

  void AddEndpoints(std::span<const admin::Endpoint> endpoints);
  void Handle(const std::shared_ptr<Exchange>& exchange);
  bool HasKey(const HttpRequest& request) const;
  Result<HttpResponse> Answer(const std::shared_ptr<Exchange>& exchange,
                              const admin::Endpoint& endpoint, const PathArguments& path);

  const AdminConfig config;
  const AdminParts parts;
  admin::Context context;
  Router router;
  boost::asio::thread_pool lane{kLaneThreads};
  HttpServer server;  // last, so that it stops first
};

AdminServer::Impl::Impl(AdminConfig config_in, ModelHost& host, const AdminParts& parts_in)
    : config(std::move(config_in)),
      parts(parts_in),
      context{.host = host,
              .model_root = config.model_root,
              .ledger = parts.ledger,
              .clock = parts.clock == nullptr ? kSystemClock : *parts.clock},
      server(
          {.host = "127.0.0.1",
           .port = config.port,
           .io_threads = 1,
           .limits = {.body_bytes_max =
                          parts.api == nullptr ? kBodyMaxBytes : config.body_bytes_max,
                      .connection_count_max = 128}},
          [this](const auto& exchange) { Handle(exchange); },
          [](const Exchange& exchange, auto) {
            const Exchange::Summary summary = exchange.summary();
            spdlog::info("admin {} {} {} id={}", PrintablePath(exchange.request().method),
                         PrintablePath(exchange.request().path), summary.status,
                         exchange.request().id);
          }) {
  AddEndpoints(admin::AuditEndpoints());
  AddEndpoints(admin::BookEndpoints());
  AddEndpoints(admin::InvoiceEndpoints());
  AddEndpoints(admin::KeyEndpoints());
  AddEndpoints(admin::LeaseEndpoints());
  AddEndpoints(admin::ModelEndpoints());
  AddEndpoints(admin::OverviewEndpoints());
  AddEndpoints(admin::PriceEndpoints());
  AddEndpoints(admin::ProjectEndpoints());
  AddEndpoints(admin::TenantEndpoints());
  AddEndpoints(admin::UsageEndpoints());
  if (parts.inference != nullptr) parts.inference->AddOperatorRoutes(router);
  if (parts.metrics != nullptr)
    router.Add({.method = "GET",
                .pattern = kMetricsPath.data(),
                .name = "metrics",
                .handle = [this](const auto& exchange, const auto&) {
                  boost::asio::post(
                      lane, [this, exchange] { exchange->Reply(parts.metrics->Response()); });
                }});
}

void AdminServer::Impl::AddEndpoints(std::span<const admin::Endpoint> endpoints) {
  for (const admin::Endpoint& endpoint : endpoints)
    router.Add({.method = endpoint.method,
                .pattern = endpoint.pattern,
                .name = "admin",
                .handle = [this, &endpoint](const auto& exchange, const PathArguments& path) {
                  boost::asio::post(lane, [this, &endpoint, exchange, path] {
                    Result<HttpResponse> answer;
                    try {
                      answer = Answer(exchange, endpoint, path);
                    } catch (const std::exception& error) {  // out of memory
                      answer = Fail(ErrorCode::kInternal, error.what());
                    }
                    exchange->Reply(answer ? std::move(*answer) : ErrorResponse(answer.error()));
                  });
                }});
}

void AdminServer::Impl::Handle(const std::shared_ptr<Exchange>& exchange) {
  const HttpRequest& request = exchange->request();
  const std::string_view path = request.path;
  const bool is_ours = path.starts_with(kAdminPrefix) || path == kMetricsPath ||
                       (parts.inference != nullptr && IsOperatorPath(path));
  if (!is_ours && parts.api != nullptr) return parts.api->Handle(exchange);
  exchange->SetRoute("admin");
  if (!HasKey(request))
    return exchange->Reply(ErrorResponse(
        Error{ErrorCode::kUnauthenticated, "this needs the admin key, as a bearer token", {}}));
  if (request.body.size() > kBodyMaxBytes && !IsRowUpdatePath(path))
    return exchange->Reply(ErrorResponse(
        HttpFault::kBodyTooLarge, fmt::format("the body is larger than {} bytes", kBodyMaxBytes)));
  router.Handle(exchange);
}

bool AdminServer::Impl::HasKey(const HttpRequest& request) const {
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view shown = request.authorization;
  if (!shown.starts_with(kBearer)) shown = {};
  if (!shown.empty()) shown.remove_prefix(kBearer.size());
  return ledger::IsSame(shown, config.key);
}

Result<HttpResponse> AdminServer::Impl::Answer(const std::shared_ptr<Exchange>& exchange,
                                               const admin::Endpoint& endpoint,
                                               const PathArguments& path) {
  const HttpRequest& request = exchange->request();
  if (endpoint.needs_ledger && parts.ledger == nullptr)
    return Fail(ErrorCode::kUnavailable,
                "this server keeps no ledger: start it with --ledger DIR to rent it out");
  admin::Request read{.path = path, .query = Query(request.query), .body = Json::object()};
  const std::string body = exchange->TakeBody();
  if (endpoint.has_body && !body.empty()) {
    if (!IsJson(request.content_type))
      return ErrorResponse(HttpFault::kUnsupportedMedia, "Content-Type must be application/json");
    TRY_ASSIGN(read.body, ParseBody(body));
  }
  return endpoint.answer(context, read);
}

AdminServer::AdminServer(AdminConfig config, ModelHost& host, const AdminParts& parts)
    : impl_(std::make_unique<Impl>(std::move(config), host, parts)) {}

AdminServer::~AdminServer() = default;

void AdminServer::Drain(std::chrono::milliseconds timeout) { impl_->server.Drain(timeout); }

Result<void> AdminServer::Start() {
  const AdminConfig& config = impl_->config;
  if (config.key.size() < kAdminKeyMinBytes)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the admin key is shorter than {} characters", kAdminKeyMinBytes),
                "admin-key-file");
  std::error_code error;
  if (!config.model_root.empty() && !std::filesystem::is_directory(config.model_root, error))
    return Fail(ErrorCode::kNotFound,
                "the model root " + config.model_root.string() + " is not a folder", "model-root");
  return impl_->server.Start();
}

uint16_t AdminServer::port() const { return impl_->server.port(); }

}  // namespace millpower::serve
