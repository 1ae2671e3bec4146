#include "serve/inference/inference_api.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <span>
#include <thread>
#include <utility>

#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/ids.h"
#include "serve/inference/compression.h"
#include "serve/inference/kserve.h"
#include "serve/inference/protocol.h"
#include "serve/inference/ranking_metrics.h"
#include "serve/inference/table_rows.h"
#include "serve/inference/tfserving.h"
#include "serve/rate_limiter.h"

namespace millpower::serve {
namespace {

using ExchangePtr = std::shared_ptr<Exchange>;
using CallerPtr = std::shared_ptr<const Caller>;
using ranking::ModelPtr;

constexpr int kRetryAfterSeconds = 1;
// Smaller answers are sent as they are.
constexpr size_t kCompressedMinBytes = 1024;
constexpr size_t kCompressedMaxBytes = size_t{1} << 30;  // longer ones go as they are
constexpr size_t kSmallBodyBytes = 64 << 10;
// Classes of the device's, as the language models' engine has them.
constexpr device::LaunchClass kAboveOthers = 0, kAsOthers = 1, kBelowOthers = 2;

// From a body to a call, by one of the protocols.
using ReadCall = std::function<Result<InferenceCall>(const ModelPtr&, std::shared_ptr<TensorStore>,
                                                     std::string_view header_length)>;

HttpResponse JsonResponse(const Json& json) { return {.body = DumpJson(json)}; }

std::unexpected<Error> NoSuchVersion() {
  return Fail(ErrorCode::kInvalidArgument, "a version is a positive number");
}

ledger::Tier TierOf(const Caller& caller) {
  return caller.is_batch ? ledger::Tier::kBatch : ledger::Tier::kOnDemand;
}

}  // namespace

struct InferenceApi::Impl {
  // One request for inference, until it is answered.
  struct Work {
    explicit Work(Impl& impl_in) : impl(impl_in) { ++impl.live_count; }
    ~Work() {
      admission.Release();
      --impl.live_count;
    }
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

    Impl& impl;
    ExchangePtr exchange;
    CallerPtr caller;
    ModelPtr model;
    RateLimiter::Admission admission = {};
    InferenceCall call = {};
    std::string id;  // of the ledger's
    std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
  };
  using WorkPtr = std::shared_ptr<Work>;
  using Answer = Result<HttpResponse>;

  Impl(Api& api_in, ranking::Engine& engine_in, Metrics& metrics_in, const Clock& clock_in,
       Meter* meter_in, InferenceConfig config_in)
      : api(api_in),
        engine(engine_in),
        metrics(metrics_in),
        clock(clock_in),
        meter(meter_in),
        config(std::move(config_in)),
        lane(static_cast<size_t>(config.lanes)) {
    AddServerRoutes();
    AddModelRoutes();
    AddRepositoryRoutes(api.router(), false);
    AddTfServing();
    AddNowhere();
  }

  // ---- Routes
  void AddServerRoutes();
  void AddModelRoutes();
  void AddRepositoryRoutes(Router& router, bool is_operator);
  void AddTfServing();
  void AddNowhere();
  // A GET of what a key of that scope may see.
  void AddGet(const char* pattern, const char* scope,
              std::function<Answer(const Caller*, const PathArguments&)> answer);
  void GetModel(const ExchangePtr& exchange, const std::string& path);
  Answer ModelAnswer(const Caller* caller, const ModelPath& path) const;
  bool AnswerTfModel(const ExchangePtr& exchange, const Caller* caller, const std::string& path);
  Answer TfModelAnswer(const ModelPath& path) const;
  void AddTableRoutes(Router& router);
  void PostRows(const ExchangePtr& exchange, const std::string& path);
  Answer ChangeRows(const TablePath& path, const ExchangePtr& exchange);
  void PostRepository(const ExchangePtr& exchange, bool is_operator,
                      std::function<Answer(const Caller*, const Json&)> answer);
  Answer Index(const Caller* caller, const Json& body) const;
  Answer ChangeModel(const std::string& path, const Json& body);

  // ---- Models
  Result<ModelPtr> FindModel(const Caller* caller, const std::string& name, int64_t version) const;
  std::vector<ModelPtr> VersionsOf(const std::string& name) const;
  bool IsReady() const { return !draining && !engine.All().empty(); }

  // ---- Inference, in this order
  void Infer(const ExchangePtr& exchange, const ModelPath& path, ReadCall read);
  Result<void> Read(const WorkPtr& work, const ReadCall& read);
  void Hold(const WorkPtr& work);
  void Submit(const WorkPtr& work);
  void OnAnswer(const WorkPtr& work, Result<ranking::Answer> answer);
  void Reply(const WorkPtr& work, HttpResponse response);
  void Refuse(const WorkPtr& work, const Error& error);
  void Refuse(const ExchangePtr& exchange, const Error& error);
  // In a lane; what runs out of memory is told to the client.
  void Post(const WorkPtr& work, std::function<void()> step);

  Api& api;
  ranking::Engine& engine;
  Metrics& metrics;
  const Clock& clock;
  Meter* const meter;
  const InferenceConfig config;
  std::atomic<bool> draining{false};
  std::atomic<int64_t> live_count{0};
  boost::asio::thread_pool lane;
  boost::asio::thread_pool loading_lane{1};
  boost::asio::thread_pool update_lane{1};  // waits for launches to end
};

// ---- Routes

void InferenceApi::Impl::Refuse(const ExchangePtr& exchange, const Error& error) {
  metrics.CountRefusal("", error.code);
  exchange->Reply(InferenceError(error, kRetryAfterSeconds));
}

void InferenceApi::Impl::AddGet(const char* pattern, const char* scope,
                                std::function<Answer(const Caller*, const PathArguments&)> answer) {
  api.router().Add({"GET", pattern, "models",
                    [this, scope, answer = std::move(answer)](const ExchangePtr& exchange,
                                                              const PathArguments& arguments) {
                      const auto caller = api.access().Authenticate(exchange->request(), scope);
                      if (!caller) return Refuse(exchange, caller.error());
                      Answer made = answer(caller->get(), arguments);
                      exchange->Reply(made ? std::move(*made) : InferenceError(made.error()));
                    }});
}

void InferenceApi::Impl::AddServerRoutes() {
  const auto open = [this](const char* pattern, const char* name,
                           std::function<HttpResponse()> answer) {
    api.router().Add(
        {"GET", pattern, name,
         [answer = std::move(answer)](const ExchangePtr& exchange, const PathArguments&) {
           exchange->Reply(answer());
         }});
  };
  open("/v2", "models", [] { return JsonResponse(kserve::ServerMetadata()); });
  open("/v2/health/live", "health", [] { return JsonResponse({{"live", true}}); });
  open("/v2/health/ready", "health", [this] {
    HttpResponse response = JsonResponse({{"ready", IsReady()}});
    if (!IsReady()) response.status = 503;
    return response;
  });
}

void InferenceApi::Impl::AddModelRoutes() {
  AddGet("/v2/models/stats", kUsageScope, [this](const Caller* caller, const auto&) {
    Json all = Json::array();
    for (const ModelPtr& model : engine.All())
      if (MayUseModel(caller, model->name))
        all.push_back(kserve::ModelStatistics(*model, engine.Stats(model)));
    return Answer(JsonResponse({{"model_stats", std::move(all)}}));
  });
  api.router().Add({"GET", "/v2/models/{path...}", "models",
                    [this](const ExchangePtr& exchange, const PathArguments& arguments) {
                      GetModel(exchange, arguments[0]);
                    }});
  api.router().Add({"POST", "/v2/models/{path...}", "inference",
                    [this](const ExchangePtr& exchange, const PathArguments& arguments) {
                      if (ReadTablePath(arguments[0]))
                        return Refuse(exchange, {ErrorCode::kForbidden,
                                                 "rows of tables are changed by the operator, on "
                                                 "the operator's port",
                                                 ""});
                      constexpr std::string_view kVerbs[] = {"infer"};
                      const auto path = ReadModelPath(arguments[0], kVerbs);
                      if (!path || path->verb.empty())
                        return exchange->Reply(InferenceError(404, "no such path"));
                      Infer(exchange, *path, kserve::ReadInfer);
                    }});
}

void InferenceApi::Impl::GetModel(const ExchangePtr& exchange, const std::string& path) {
  constexpr std::string_view kVerbs[] = {"ready", "config", "stats", "tables"};
  const auto read = ReadModelPath(path, kVerbs);
  const bool is_stats = read && read->verb == "stats";
  const auto caller =
      api.access().Authenticate(exchange->request(), is_stats ? kUsageScope : kModelsScope);
  if (!caller) return Refuse(exchange, caller.error());
  Answer made = read ? ModelAnswer(caller->get(), *read) : NoSuchVersion();
  exchange->Reply(made ? std::move(*made) : InferenceError(made.error()));
}

InferenceApi::Impl::Answer InferenceApi::Impl::ModelAnswer(const Caller* caller,
                                                           const ModelPath& path) const {
  TRY_ASSIGN(const ModelPtr model, FindModel(caller, path.name, path.version));
  const std::vector<ModelPtr> versions =
      path.version == 0 ? VersionsOf(path.name) : std::vector{model};
  if (path.verb == "ready") {
    if (draining) return Fail(ErrorCode::kUnavailable, "the server is shutting down");
    return JsonResponse({{"name", model->name}, {"ready", true}});
  }
  if (path.verb == "config") return JsonResponse(kserve::ModelConfig(*model));
  if (path.verb == "tables") return JsonResponse(TablesJson(*model));
  if (path.verb == "stats") {
    Json all = Json::array();
    for (const ModelPtr& each : versions)
      all.push_back(kserve::ModelStatistics(*each, engine.Stats(each)));
    return JsonResponse({{"model_stats", std::move(all)}});
  }
  std::vector<int64_t> numbers;
  for (const ModelPtr& each : versions) numbers.push_back(each->version);
  return JsonResponse(kserve::ModelMetadata(*model, numbers));
}

void InferenceApi::Impl::AddNowhere() {
  for (const char* method : {"GET", "POST"})
    api.router().Add(
        {method, "/v2/{path...}", "other", [](const ExchangePtr& exchange, const PathArguments&) {
           exchange->Reply(InferenceError(404, "no such path: " + exchange->request().path));
         }});
}

// ---- TensorFlow Serving

void InferenceApi::Impl::AddTfServing() {
  api.SetOtherModels(
      {.answer = [this](const ExchangePtr& exchange, const Caller* caller,
                        const std::string& path) { return AnswerTfModel(exchange, caller, path); },
       .is_ready = [this] { return IsReady(); }});
  api.router().Add({"POST", "/v1/models/{path...}", "inference",
                    [this](const ExchangePtr& exchange, const PathArguments& arguments) {
                      const auto path = ReadColonPath(arguments[0]);
                      const auto through = [](auto read) -> ReadCall {
                        return [read](const ModelPtr& model, std::shared_ptr<TensorStore> store,
                                      std::string_view) { return read(model, std::move(store)); };
                      };
                      if (path && !path->label.empty())
                        return exchange->Reply(InferenceError(404, "no version has a label"));
                      if (path && path->verb == "predict")
                        return Infer(exchange, *path, through(tfserving::ReadPredict));
                      if (path && path->verb == "classify")
                        return Infer(exchange, *path, through(tfserving::ReadClassify));
                      if (path && path->verb == "regress")
                        return Infer(exchange, *path, through(tfserving::ReadRegress));
                      exchange->Reply(
                          InferenceError(404, "no such method: " + exchange->request().path));
                    }});
}

bool InferenceApi::Impl::AnswerTfModel(const ExchangePtr& exchange, const Caller* caller,
                                       const std::string& path) {
  const auto read = ReadColonPath(path);
  const bool is_ours = read && !VersionsOf(read->name).empty() && MayUseModel(caller, read->name);
  if (!is_ours) return false;
  const Answer made = TfModelAnswer(*read);
  exchange->Reply(made ? *made : InferenceError(made.error()));
  return true;
}

InferenceApi::Impl::Answer InferenceApi::Impl::TfModelAnswer(const ModelPath& path) const {
  if (!path.label.empty()) return Fail(ErrorCode::kNotFound, "no version has a label", "model");
  if (!path.verb.empty() && path.verb != "metadata")
    return Fail(ErrorCode::kNotFound, "no such method for GET", "model");
  TRY_ASSIGN(const ModelPtr model, engine.Find(path.name, path.version));
  if (path.verb == "metadata") return JsonResponse(tfserving::Metadata(*model));
  return JsonResponse(
      tfserving::Status(path.version == 0 ? VersionsOf(path.name) : std::vector{model}));
}

// ---- The repository

void InferenceApi::Impl::AddRepositoryRoutes(Router& router, bool is_operator) {
  router.Add({"POST", "/v2/repository/index", "models",
              [this, is_operator](const ExchangePtr& exchange, const PathArguments&) {
                PostRepository(
                    exchange, is_operator,
                    [this](const Caller* caller, const Json& body) { return Index(caller, body); });
              }});
  router.Add({"POST", "/v2/repository/models/{path...}", "models",
              [this, is_operator](const ExchangePtr& exchange, const PathArguments& arguments) {
                if (!is_operator)
                  return Refuse(exchange, {ErrorCode::kForbidden,
                                           "models are loaded and unloaded by the operator, on the "
                                           "operator's port",
                                           ""});
                PostRepository(exchange, is_operator,
                               [this, path = arguments[0]](const Caller*, const Json& body) {
                                 return ChangeModel(path, body);
                               });
              }});
}

void InferenceApi::Impl::PostRepository(const ExchangePtr& exchange, bool is_operator,
                                        std::function<Answer(const Caller*, const Json&)> answer) {
  CallerPtr caller;
  if (!is_operator) {
    auto found = api.access().Authenticate(exchange->request(), kModelsScope);
    if (!found) return Refuse(exchange, found.error());
    caller = std::move(*found);
  }
  if (exchange->request().body.size() > kSmallBodyBytes)
    return exchange->Reply(InferenceError(413, "the body is too large"));
  boost::asio::post(loading_lane, [exchange, caller, answer = std::move(answer)] {
    const std::string text = exchange->TakeBody();
    const Result<Json> body = text.empty() ? Result<Json>(Json::object()) : ParseBody(text);
    Answer made = body ? Answer() : Answer(std::unexpected(body.error()));
    try {
      if (body) made = answer(caller.get(), *body);
    } catch (const std::exception& error) {  // out of memory
      made = Fail(ErrorCode::kInternal, error.what());
    }
    exchange->Reply(made ? std::move(*made) : InferenceError(made.error()));
  });
}

InferenceApi::Impl::Answer InferenceApi::Impl::Index(const Caller* caller, const Json& body) const {
  bool only_ready = false;
  FieldReader fields(body);
  fields.Read("ready", only_ready);
  TRY(fields.status());
  std::vector<InferenceRepository::Entry> entries;
  if (config.repository.list)
    entries = config.repository.list();
  else
    for (const ModelPtr& model : engine.All())
      entries.push_back({model->name, std::to_string(model->version), "READY", ""});
  Json list = Json::array();
  for (const auto& entry : entries) {
    if ((only_ready && entry.state != "READY") || !MayUseModel(caller, entry.name)) continue;
    Json json = {{"name", entry.name}};
    if (!entry.version.empty()) json["version"] = entry.version;
    json["state"] = entry.state;
    json["reason"] = entry.reason;
    list.push_back(std::move(json));
  }
  return JsonResponse(list);
}

InferenceApi::Impl::Answer InferenceApi::Impl::ChangeModel(const std::string& path,
                                                           const Json& body) {
  constexpr std::string_view kVerbs[] = {"load", "unload"};
  const auto read = ReadModelPath(path, kVerbs);
  if (!read || read->verb.empty() || read->version != 0)
    return Fail(ErrorCode::kNotFound, "no such path: name/load or name/unload");
  Json parameters = Json::object();
  if (const auto found = body.find("parameters"); found != body.end()) parameters = *found;
  if (!parameters.is_object())
    return Fail(ErrorCode::kInvalidArgument, "parameters must be an object", "parameters");
  if (read->verb == "load") {
    if (!config.repository.load)
      return Fail(ErrorCode::kUnsupported, "this server cannot load models while it runs");
    TRY(config.repository.load(read->name, parameters));
  } else if (config.repository.unload) {
    TRY(config.repository.unload(read->name));
  } else {
    TRY(engine.Unload(read->name, 0, config.unload_timeout_ns));
  }
  spdlog::info("{}ed '{}'", read->verb, read->name);
  return JsonResponse(Json::object());
}

// ---- Rows of tables, for the operator

void InferenceApi::Impl::AddTableRoutes(Router& router) {
  router.Add({"GET", "/v2/models/{path...}", "models",
              [this](const ExchangePtr& exchange, const PathArguments& arguments) {
                constexpr std::string_view kVerbs[] = {"tables"};
                const auto path = ReadModelPath(arguments[0], kVerbs);
                const Answer made = path ? ModelAnswer(nullptr, *path) : NoSuchVersion();
                exchange->Reply(made ? *made : InferenceError(made.error()));
              }});
  router.Add({"POST", "/v2/models/{path...}", "models",
              [this](const ExchangePtr& exchange, const PathArguments& arguments) {
                PostRows(exchange, arguments[0]);
              }});
}

// One at a time, in a lane of their own: each waits for a launch to end.
void InferenceApi::Impl::PostRows(const ExchangePtr& exchange, const std::string& path) {
  auto read = ReadTablePath(path);
  if (!read) return exchange->Reply(InferenceError(404, "no such path"));
  boost::asio::post(update_lane, [this, exchange, read = *std::move(read)] {
    Answer made;
    try {
      made = ChangeRows(read, exchange);
    } catch (const std::exception& error) {  // out of memory
      made = Fail(ErrorCode::kInternal, error.what());
    }
    exchange->Reply(made ? std::move(*made) : InferenceError(made.error()));
  });
}

InferenceApi::Impl::Answer InferenceApi::Impl::ChangeRows(const TablePath& path,
                                                          const ExchangePtr& exchange) {
  TRY_ASSIGN(const ModelPtr model, engine.Find(path.model, path.version));
  TRY_ASSIGN(const ranking::Table* const table, FindTable(*model, path.table));
  TRY_ASSIGN(const Coding coding, ReadCoding(exchange->request().content_encoding));
  std::string body = exchange->TakeBody();
  if (coding != Coding::kIdentity) {
    TRY_ASSIGN(body, Decompress(body, coding, config.body_bytes_max));
  }
  TRY_ASSIGN(TableRows read, ReadTableRows(body, exchange->request().content_type, *table));
  body = {};
  const auto rows = std::ssize(read.rows);
  TRY(engine.UpdateRows(
      model, {.table = table->name, .rows = std::move(read.rows), .values = read.values}));
  return JsonResponse({{"model_name", model->name},
                       {"model_version", std::to_string(model->version)},
                       {"table", table->name},
                       {"rows", rows}});
}

bool IsRowUpdatePath(std::string_view path) {
  return path.starts_with("/v2/models/") && ReadTablePath(path).has_value();
}

bool IsOperatorPath(std::string_view path) {
  return path.starts_with("/v2/repository/") || IsRowUpdatePath(path) ||
         (path.starts_with("/v2/models/") && path.ends_with("/tables"));
}

// ---- Models

Result<ModelPtr> InferenceApi::Impl::FindModel(const Caller* caller, const std::string& name,
                                               int64_t version) const {
  if (!MayUseModel(caller, name)) return ModelRegistry::NoSuchModel(name);
  return engine.Find(name, version);
}

std::vector<ModelPtr> InferenceApi::Impl::VersionsOf(const std::string& name) const {
  std::vector<ModelPtr> versions = engine.All();
  std::erase_if(versions, [&](const ModelPtr& model) { return model->name != name; });
  return versions;
}

// ---- Inference

// What costs next to nothing comes first, so that who may not come in takes no place in a lane.
void InferenceApi::Impl::Infer(const ExchangePtr& exchange, const ModelPath& path, ReadCall read) {
  auto caller = api.access().Authenticate(exchange->request(), kInferenceScope);
  if (!caller) return Refuse(exchange, caller.error());
  if (draining)
    return Refuse(exchange, {ErrorCode::kUnavailable, "the server is shutting down", ""});
  auto model = FindModel(caller->get(), path.name, path.version);
  if (!model) return Refuse(exchange, model.error());
  int retry_after_s = kRetryAfterSeconds;
  Headers headers;
  auto admission = api.limiter().Admit(*caller, retry_after_s, headers);
  if (!admission) {
    for (auto& [name, value] : headers) exchange->AddHeader(std::move(name), std::move(value));
    metrics.CountRefusal((*model)->name, admission.error().code);
    return exchange->Reply(InferenceError(admission.error(), retry_after_s));
  }
  const auto work = std::make_shared<Work>(*this);
  work->exchange = exchange;
  work->caller = std::move(*caller);
  work->model = std::move(*model);
  work->admission = std::move(*admission);
  exchange->OnGone([cancelled = work->cancelled] { *cancelled = true; });
  Post(work, [this, work, read = std::move(read)] {
    if (const auto done = Read(work, read); !done) return Refuse(work, done.error());
    Hold(work);
  });
}

void InferenceApi::Impl::Post(const WorkPtr& work, std::function<void()> step) {
  boost::asio::post(lane, [this, work, step = std::move(step)] {
    try {
      step();
    } catch (const std::exception& error) {  // out of memory
      spdlog::error("id={} {}: {}", work->exchange->request().id, work->model->name, error.what());
      Refuse(work, {ErrorCode::kInternal, "internal error", ""});
    }
  });
}

Result<void> InferenceApi::Impl::Read(const WorkPtr& work, const ReadCall& read) {
  const HttpRequest& request = work->exchange->request();
  TRY_ASSIGN(const Coding coding, ReadCoding(request.content_encoding));
  const auto store = std::make_shared<TensorStore>();
  store->body = work->exchange->TakeBody();
  if (coding != Coding::kIdentity) {
    TRY_ASSIGN(store->body, Decompress(store->body, coding, config.body_bytes_max));
  }
  TRY_ASSIGN(work->call, read(work->model, store, request.inference_header_length));
  ranking::Request& made = work->call.request;
  made.cancelled = work->cancelled;
  made.launch_class = kAsOthers;
  if (work->call.timeout_us > 0)
    made.deadline_ns = engine.clock().NowNs() + work->call.timeout_us * 1000;
  const Caller* const caller = work->caller.get();
  if (caller != nullptr) {
    // What a request is sold as is not the client's to say here.
    made.caller = caller->tenant->id;
    if (caller->is_batch) made.launch_class = kBelowOthers;
  } else if (work->call.priority > 0) {
    made.launch_class = work->call.priority == 1 ? kAboveOthers : kBelowOthers;
  }
  return {};
}

void InferenceApi::Impl::Hold(const WorkPtr& work) {
  if (meter == nullptr) return Submit(work);
  const Result<int64_t> rows = ranking::RowsOf(*work->model, work->call.request.inputs);
  if (!rows) return Refuse(work, rows.error());
  work->id = NewId("infer-");
  meter->HoldInference({.caller = work->caller,
                        .id = work->id,
                        .model = work->model->name,
                        .endpoint = kInferenceScope,
                        .tier = TierOf(*work->caller),
                        .candidates = *rows},
                       [this, work](const Result<void>& held) {
                         Post(work, [this, work, held] {
                           if (held) return Submit(work);
                           work->id.clear();  // nothing is held
                           Refuse(work, held.error());
                         });
                       });
}

void InferenceApi::Impl::Submit(const WorkPtr& work) {
  const auto submitted = engine.Submit(
      work->model, std::move(work->call.request), [this, work](Result<ranking::Answer> answer) {
        // std::function wants to be copied; an answer is views and a pointer.
        Post(work, [this, work, answer = std::move(answer)] { OnAnswer(work, answer); });
      });
  if (!submitted) Refuse(work, submitted.error());
}

void InferenceApi::Impl::OnAnswer(const WorkPtr& work, Result<ranking::Answer> answer) {
  if (!answer) return Refuse(work, answer.error());
  HttpResponse response = work->call.reply(*answer);
  const Coding coding = ChooseCoding(work->exchange->request().accept_encoding);
  if (coding != Coding::kIdentity && response.body.size() >= kCompressedMinBytes &&
      response.body.size() <= kCompressedMaxBytes) {
    response.body = Compress(response.body, coding);
    response.headers.emplace_back("content-encoding", Name(coding));
  }
  if (meter == nullptr) return Reply(work, std::move(response));
  const std::string id = std::exchange(work->id, {});
  meter->PostInference(id, answer->device_ns, answer->energy_uj,
                       [this, work, response = std::make_shared<HttpResponse>(std::move(response))](
                           const Result<void>& posted) {
                         if (!posted) return Refuse(work, posted.error());
                         Reply(work, std::move(*response));
                       });
}

void InferenceApi::Impl::Reply(const WorkPtr& work, HttpResponse response) {
  for (auto& [name, value] : work->admission.headers())
    work->exchange->AddHeader(std::move(name), std::move(value));
  work->admission.Release();
  work->exchange->Reply(std::move(response));
}

void InferenceApi::Impl::Refuse(const WorkPtr& work, const Error& error) {
  if (!work->id.empty()) meter->Abandon(std::exchange(work->id, {}));
  metrics.CountRefusal(work->model->name, error.code);
  Reply(work, InferenceError(error, kRetryAfterSeconds));
}

// ---- The shell

InferenceApi::InferenceApi(Api& api, ranking::Engine& engine, Metrics& metrics, const Clock& clock,
                           Meter* meter, InferenceConfig config)
    : impl_(std::make_unique<Impl>(api, engine, metrics, clock, meter, std::move(config))) {}

InferenceApi::~InferenceApi() {
  StartDraining();
  while (impl_->live_count > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  impl_->lane.join();
  impl_->loading_lane.join();
  impl_->update_lane.join();
}

void InferenceApi::AddOperatorRoutes(Router& router) {
  impl_->AddRepositoryRoutes(router, true);
  impl_->AddTableRoutes(router);
}

void InferenceApi::StartDraining() { impl_->draining = true; }

std::string InferenceApi::MetricsText() const { return RankingMetricsText(impl_->engine); }

}  // namespace millpower::serve
