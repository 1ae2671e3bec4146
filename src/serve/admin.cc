#include "serve/admin.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <string_view>
#include <system_error>

#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/paths.h"
#include "serve/server.h"

namespace millpower::serve {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kModelsPath = "/admin/v1/models";
constexpr size_t kNameMaxBytes = 200;
constexpr const char* kWeightTypes[] = {"auto", "f32", "bf16", "int8", "int4"};
constexpr const char* kKvTypes[] = {"", "f32", "bf16", "int8"};

// Takes as long for a key that is wrong at its first byte as at its last.
bool IsSameKey(std::string_view shown, std::string_view key) {
  unsigned difference = shown.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < key.size(); ++i)
    difference |= static_cast<unsigned char>(key[i]) ^
                  static_cast<unsigned char>(i < shown.size() ? shown[i] : 0);
  return difference == 0;
}

bool IsInside(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

Json StatusJson(const ModelStatus& status) {
  Json json = {{"id", status.spec.name}, {"path", status.spec.path}, {"state", Name(status.state)}};
  json["error"] = status.error.empty() ? Json() : Json(status.error);
  json["progress"] = {{"done_bytes", status.done_bytes}, {"total_bytes", status.total_bytes}};
  if (status.model == nullptr) return json;
  const ServedModel& model = *status.model;
  const engine::EngineStats stats = model.engine->Stats();
  json["max_model_len"] = model.max_model_len;
  json["memory"] = {{"weights_bytes", model.weights_bytes}, {"kv_bytes", model.kv_bytes}};
  json["stats"] = {{"requests_running", stats.requests_running},
                   {"requests_waiting", stats.requests_waiting},
                   {"requests_finished", stats.requests_finished},
                   {"requests_cancelled", stats.requests_cancelled},
                   {"prompt_tokens", stats.prompt_tokens},
                   {"cached_prompt_tokens", stats.cached_prompt_tokens},
                   {"generated_tokens", stats.generated_tokens},
                   {"preemptions", stats.preemptions},
                   {"kv_pages_total", stats.kv_pages_total},
                   {"kv_pages_used", stats.kv_pages_used},
                   {"kv_pages_cached", stats.kv_pages_cached},
                   {"steps", stats.steps},
                   {"device_busy_ns", stats.device_busy_ns}};
  return json;
}

void ReadOneOf(FieldReader& fields, const char* name, std::span<const char* const> choices,
               std::string& value) {
  fields.Read(name, value);
  if (std::ranges::find(choices, std::string_view(value)) != choices.end()) return;
  std::vector<const char*> named(choices.begin(), choices.end());
  std::erase_if(named, [](const char* choice) { return *choice == 0; });  // absent
  fields.Refuse(name, fmt::format("must be one of {}", fmt::join(named, ", ")));
}

}  // namespace

Result<ModelSpec> ReadModelSpec(const Json& body, const fs::path& root) {
  FieldReader fields(body);
  ModelSpec spec;
  for (const auto& [name, value] : body.items())
    if (name != "name" && name != "path" && name != "weights" && name != "kv" &&
        name != "kv_memory")
      fields.Refuse(name, "is unknown");
  if (!fields.Find("name")) fields.Refuse("name", "is required");
  if (!fields.Find("path")) fields.Refuse("path", "is required");
  fields.Read("name", spec.name);
  fields.Read("path", spec.path);
  if (spec.name.empty() || spec.name.size() > kNameMaxBytes ||
      std::ranges::any_of(spec.name, [](char c) { return c <= ' ' || c > '~'; }))
    fields.Refuse("name", fmt::format("must be 1 to {} printable ASCII characters without spaces",
                                      kNameMaxBytes));
  ReadOneOf(fields, "weights", kWeightTypes, spec.weights);
  ReadOneOf(fields, "kv", kKvTypes, spec.kv);
  fields.Read("kv_memory", spec.kv_memory_bytes, int64_t{1}, INT64_MAX);
  TRY(fields.status());
  TRY_ASSIGN(const fs::path path, ResolveModelPath(spec.path, root));
  spec.path = path;
  return spec;
}

std::string NewAdminKey() {
  std::random_device device;  // the kernel's
  std::string key;
  for (int i = 0; i < 8; ++i) key += fmt::format("{:08x}", device());
  return key;
}

Result<fs::path> ResolveModelPath(const std::string& given, const fs::path& root) {
  const auto fail = [&](const std::string& why) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("path '{}' {}", given, why), "path");
  };
  if (given.empty() || given.find('\0') != std::string::npos) return fail("is not a path");
  std::error_code error;
  if (root.empty()) {
    const fs::path path = fs::canonical(given, error);
    if (error) return fail("does not exist");
    return path;
  }
  const fs::path inside = fs::canonical(root, error);
  if (error) return fail("cannot be looked for: the model root is gone");
  const fs::path path = fs::canonical(inside / given, error);
  // Whether something exists elsewhere is nobody's business.
  if (error || !IsInside(path, inside)) return fail("does not exist in the model root");
  // What is opened besides: the files of a folder, the other parts of a split GGUF file.
  const bool folder = fs::is_directory(path, error);
  if (folder || path.extension() == ".gguf") {
    for (fs::directory_iterator entry(folder ? path : path.parent_path(), error), end;
         !error && entry != end; entry.increment(error)) {
      if (!folder && entry->path().extension() != ".gguf") continue;
      const fs::path target = fs::canonical(entry->path(), error);
      if (error || !IsInside(target, inside))
        return fail("holds '" + entry->path().filename().string() +
                    "', which leads out of the model root");
    }
  }
  if (error) return fail("cannot be read");
  return path;
}

struct AdminServer::Impl {
  Impl(AdminConfig config, ModelHost& host);

  void Handle(const std::shared_ptr<Exchange>& exchange);
  Result<HttpResponse> Answer(const HttpRequest& request, std::string body);
  HttpResponse List() const;
  Result<HttpResponse> Load(const HttpRequest& request, std::string_view body);
  HttpResponse Unload(const std::string& name);

  const AdminConfig config;
  ModelHost& host;
  HttpServer server;
};

AdminServer::Impl::Impl(AdminConfig config_in, ModelHost& host_in)
    : config(std::move(config_in)),
      host(host_in),
      server(
          {.host = "127.0.0.1",
           .port = config.port,
           .io_threads = 1,
           .limits = {.body_bytes_max = 64 << 10, .connection_count_max = 32}},
          [this](const auto& exchange) { Handle(exchange); },
          [](const Exchange& exchange, auto) {
            const Exchange::Summary summary = exchange.summary();
            spdlog::info("admin {} {} {} id={}", PrintablePath(exchange.request().method),
                         PrintablePath(exchange.request().path), summary.status,
                         exchange.request().id);
          }) {}

void AdminServer::Impl::Handle(const std::shared_ptr<Exchange>& exchange) {
  const HttpRequest& request = exchange->request();
  exchange->SetRoute("admin");
  Result<HttpResponse> answer;
  try {
    answer = Answer(request, exchange->TakeBody());
  } catch (const std::exception& error) {  // out of memory
    answer = Fail(ErrorCode::kInternal, error.what());
  }
  exchange->Reply(answer ? std::move(*answer) : ErrorResponse(answer.error()));
}

Result<HttpResponse> AdminServer::Impl::Answer(const HttpRequest& request, std::string body) {
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view shown = request.authorization;
  if (!shown.starts_with(kBearer)) shown = {};
  if (!shown.empty()) shown.remove_prefix(kBearer.size());
  if (!IsSameKey(shown, config.key))
    return ErrorResponse(HttpFault::kUnauthorized, "this needs the admin key, as a bearer token");

  const std::string_view path = request.path;
  const bool all = path == kModelsPath;
  const bool one = path.starts_with(kModelsPath) && path.size() > kModelsPath.size() + 1 &&
                   path[kModelsPath.size()] == '/';
  if (!all && !one) return ErrorResponse(HttpFault::kNoSuchPath, "no such path: " + request.path);
  if (all && request.method == "GET") return List();
  if (all && request.method == "POST") return Load(request, body);
  const std::string name = one ? PercentDecoded(path.substr(kModelsPath.size() + 1)) : "";
  if (one && request.method == "GET") {
    const auto status = host.Find(name);
    if (status) return HttpResponse{.body = DumpJson(StatusJson(*status))};
    return Fail(ErrorCode::kNotFound, "the model '" + name + "' does not exist", "name");
  }
  if (one && request.method == "DELETE") return Unload(name);
  const char* allow = all ? "GET, POST" : "GET, DELETE";
  HttpResponse response =
      ErrorResponse(HttpFault::kMethodNotAllowed, request.path + " takes only " + allow);
  response.headers.emplace_back("allow", allow);
  return response;
}

HttpResponse AdminServer::Impl::List() const {
  Json data = Json::array();
  for (const ModelStatus& status : host.List()) data.push_back(StatusJson(status));
  return {.body = DumpJson({{"object", "list"}, {"data", std::move(data)}})};
}

Result<HttpResponse> AdminServer::Impl::Load(const HttpRequest& request, std::string_view text) {
  if (!IsJson(request.content_type))
    return ErrorResponse(HttpFault::kUnsupportedMedia, "Content-Type must be application/json");
  TRY_ASSIGN(const Json body, ParseBody(text));
  TRY_ASSIGN(ModelSpec spec, ReadModelSpec(body, config.model_root));
  const std::string name = spec.name, path = spec.path;
  if (!host.Load(std::move(spec)))
    return ErrorResponse(HttpFault::kConflict, "there is a model '" + name + "' already");
  spdlog::info("loading '{}' from {}", name, path);
  const auto status = host.Find(name);
  return HttpResponse{.status = 202, .body = DumpJson(status ? StatusJson(*status) : Json())};
}

HttpResponse AdminServer::Impl::Unload(const std::string& name) {
  if (!host.Unload(name))
    return ErrorResponse(
        Error{ErrorCode::kNotFound, "the model '" + name + "' does not exist", "name"});
  const auto status = host.Find(name);
  const Json gone = {{"id", name}, {"state", "unloaded"}};
  return {.status = 202, .body = DumpJson(status ? StatusJson(*status) : gone)};
}

AdminServer::AdminServer(AdminConfig config, ModelHost& host)
    : impl_(std::make_unique<Impl>(std::move(config), host)) {}

AdminServer::~AdminServer() = default;

Result<void> AdminServer::Start() {
  const AdminConfig& config = impl_->config;
  if (config.key.size() < kAdminKeyMinBytes)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the admin key is shorter than {} characters", kAdminKeyMinBytes),
                "admin-key-file");
  std::error_code error;
  if (!config.model_root.empty() && !fs::is_directory(config.model_root, error))
    return Fail(ErrorCode::kNotFound,
                "the model root " + config.model_root.string() + " is not a folder", "model-root");
  return impl_->server.Start();
}

uint16_t AdminServer::port() const { return impl_->server.port(); }

}  // namespace millpower::serve
