#include "serve/batch/batch_service.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mapped_file.h"
#include "ledger/ledger.h"
#include "serve/batch/multipart.h"
#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/models.h"
#include "serve/paths.h"

namespace millpower::serve {
namespace {

using ExchangePtr = std::shared_ptr<Exchange>;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr const char* kPurpose = "batch";
// What lines may ask, and the scope that a key needs for it.
struct LineEndpoint {
  const char* path;
  const char* scope;
};
constexpr std::array<LineEndpoint, 2> kEndpoints = {
    {{"/v1/chat/completions", kChatScope}, {"/v1/completions", kCompletionsScope}}};
constexpr size_t kFileNameBytesMax = 255;
constexpr int64_t kFilesListedMax = 10'000, kBatchesListedMax = 100,
                  kBatchesListed = 20;  // OpenAI's
// OpenAI's bounds of metadata.
constexpr size_t kMetadataPairsMax = 16, kMetadataKeyMax = 64, kMetadataValueMax = 512;
// A piece of a file that is sent: few enough bytes that the I/O thread is not held up.
constexpr size_t kPieceBytes = 256 << 10;

HttpResponse JsonResponse(const Json& json) { return {.body = DumpJson(json)}; }

Json FileJson(const FileRecord& file) {
  return {{"id", file.id},         {"object", "file"},
          {"bytes", file.bytes},   {"created_at", file.created_at},
          {"filename", file.name}, {"purpose", file.purpose},
          {"status", "processed"}};
}

Json TimeJson(int64_t time) { return time == 0 ? Json() : Json(time); }

Json ErrorsJson(const std::vector<BatchError>& errors) {
  if (errors.empty()) return nullptr;
  Json data = Json::array();
  for (const BatchError& error : errors)
    data.push_back({{"code", error.code},
                    {"line", TimeJson(error.line)},
                    {"message", error.message},
                    {"param", error.param.empty() ? Json() : Json(error.param)}});
  return {{"object", "list"}, {"data", std::move(data)}};
}

Json BatchJson(const BatchRecord& batch) {
  const auto at = [&](BatchStatus status) {
    return TimeJson(batch.entered_at[static_cast<size_t>(status)]);
  };
  const auto file = [&](const std::string& id, int64_t bytes) {
    return IsOver(batch.status) && bytes > 0 ? Json(id) : Json();
  };
  return {
      {"id", batch.id},
      {"object", "batch"},
      {"endpoint", batch.endpoint},
      {"errors", ErrorsJson(batch.errors)},
      {"input_file_id", batch.input_file},
      {"completion_window", "24h"},
      {"status", Name(batch.status)},
      {"output_file_id", file(batch.output_file, batch.output_bytes)},
      {"error_file_id", file(batch.error_file, batch.error_bytes)},
      {"created_at", at(BatchStatus::kValidating)},
      {"in_progress_at", at(BatchStatus::kInProgress)},
      {"expires_at", TimeJson(batch.expires_at)},
      {"finalizing_at", at(BatchStatus::kFinalizing)},
      {"completed_at", at(BatchStatus::kCompleted)},
      {"failed_at", at(BatchStatus::kFailed)},
      {"expired_at", at(BatchStatus::kExpired)},
      {"cancelling_at", at(BatchStatus::kCancelling)},
      {"cancelled_at", at(BatchStatus::kCancelled)},
      {"request_counts",
       {{"total", batch.total}, {"completed", batch.completed}, {"failed", batch.failed}}},
      {"metadata", batch.metadata.empty() ? Json() : ParseJson(batch.metadata).value_or(Json())}};
}

template <typename T>
Json PageJson(const ListPage<T>& page, Json (*json)(const T&)) {
  Json data = Json::array();
  for (const T& item : page.items) data.push_back(json(item));
  Json list = {{"object", "list"}};
  list["first_id"] = page.items.empty() ? Json() : Json(page.items.front().id);
  list["last_id"] = page.items.empty() ? Json() : Json(page.items.back().id);
  list["has_more"] = page.has_more;
  list["data"] = std::move(data);
  return list;
}

Result<ListQuery> ReadListQuery(const Query& query, int64_t limit, int64_t limit_max) {
  ListQuery list{.after = query.Get("after"), .limit = limit};
  if (const std::string* given = query.Find("limit")) {
    const char* const end = given->data() + given->size();
    const auto [rest, error] = std::from_chars(given->data(), end, list.limit);
    if (error != std::errc() || rest != end || list.limit < 1 || list.limit > limit_max)
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("`limit` must be a number from 1 to {}", limit_max), "limit");
  }
  return list;
}

// Faults of our own are told in the log, with paths that concern nobody else.
HttpResponse ResponseOf(const Error& error, const std::string& request_id) {
  if (error.code == ErrorCode::kIo || error.code == ErrorCode::kCorrupt ||
      error.code == ErrorCode::kInternal) {
    spdlog::error("id={}: {}", request_id, error.message);
    return ErrorResponse({ErrorCode::kInternal, "the server has a fault in its storage", ""});
  }
  if (error.code == ErrorCode::kNotFound)
    return ErrorResponse(HttpFault::kNoSuchPath, error.message);
  return ErrorResponse(error);
}

// What an upload says besides the file.
struct Upload {
  std::string name;
  std::string_view content;
};

Result<Upload> ReadUpload(const std::vector<Part>& parts) {
  std::optional<Upload> upload;
  std::optional<std::string_view> purpose;
  for (const Part& part : parts) {
    if (part.name == "file") {
      if (upload) return Fail(ErrorCode::kInvalidArgument, "`file` is there twice", "file");
      upload = {part.filename.value_or(""), part.content};
    } else if (part.name == "purpose") {
      if (purpose) return Fail(ErrorCode::kInvalidArgument, "`purpose` is there twice", "purpose");
      purpose = part.content;
    } else if (part.name.starts_with("expires_after")) {
      return Fail(ErrorCode::kUnsupported, "files do not expire: delete them", "expires_after");
    }
  }
  if (!upload) return Fail(ErrorCode::kInvalidArgument, "`file` is missing", "file");
  if (purpose != kPurpose)
    return Fail(ErrorCode::kInvalidArgument, "`purpose` must be \"batch\"", "purpose");
  const auto is_bad = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
  if (upload->name.size() > kFileNameBytesMax || std::ranges::any_of(upload->name, is_bad))
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the file's name must be at most {} bytes, without control characters",
                            kFileNameBytesMax),
                "file");
  if (upload->name.empty()) upload->name = "upload.jsonl";
  return *upload;
}

// "": none.
Result<std::string> ReadMetadata(const Json& body) {
  const auto found = body.find("metadata");
  if (found == body.end() || found->is_null()) return "";
  bool is_good = found->is_object() && found->size() <= kMetadataPairsMax;
  if (is_good)
    for (const auto& [key, value] : found->items())
      is_good = is_good && key.size() <= kMetadataKeyMax && value.is_string() &&
                value.get_ref<const std::string&>().size() <= kMetadataValueMax;
  if (!is_good)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("`metadata` must be an object of at most {} strings, of {} bytes and "
                            "keys of {}",
                            kMetadataPairsMax, kMetadataValueMax, kMetadataKeyMax),
                "metadata");
  return DumpJson(*found);
}

// For a header: what a file is called, without what could end the quoted string.
std::string HeaderFileName(std::string_view name) {
  std::string plain = PrintablePath(name);
  std::ranges::replace_if(plain, [](char c) { return c == '"' || c == '\\' || c == '%'; }, '_');
  return plain;
}

MetricFamily Family(const char* name, const char* help, MetricType type) {
  return {name, help, type, {}};
}

void AddValue(MetricFamily& family, int64_t value, const char* label = nullptr,
              const char* label_value = nullptr) {
  ClientMetric metric;
  if (label != nullptr) metric.label.push_back({label, label_value});
  (family.type == MetricType::Gauge ? metric.gauge.value : metric.counter.value) =
      static_cast<double>(value);
  family.metric.push_back(std::move(metric));
}

}  // namespace

struct BatchService::Impl {
  using Answer = Result<HttpResponse>;
  // `owner`: who asks.
  using Handler = Answer (Impl::*)(const Owner& owner, const ExchangePtr&, const PathArguments&);
  struct Entry {
    const char* method;
    const char* pattern;
    const char* scope;  // and the route's name in logs and metrics
    Handler answer;
  };
  static const Entry kEntries[];

  Impl(const BatchConfig& config, Authenticate authenticate_in, BatchPorts ports,
       const Clock& clock, std::unique_ptr<BatchStore> store_in)
      : limits(config.limits),
        authenticate(std::move(authenticate_in)),
        store(std::move(store_in)),
        runner(*store, std::move(ports), clock, config.runner) {}

  void Handle(const Entry& entry, const ExchangePtr& exchange, const PathArguments& arguments);

  Answer AddFile(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer ListFiles(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer GetFile(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer DeleteFile(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer GetContent(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer AddBatch(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer ListBatches(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer GetBatch(const Owner&, const ExchangePtr&, const PathArguments&);
  Answer CancelBatch(const Owner&, const ExchangePtr&, const PathArguments&);

  const BatchLimits limits;
  const Authenticate authenticate;
  const std::unique_ptr<BatchStore> store;
  BatchRunner runner;
  boost::asio::thread_pool lane{1};  // what waits for the disk; joined first
};

const BatchService::Impl::Entry BatchService::Impl::kEntries[] = {
    {"POST", "/v1/files", kFilesScope, &Impl::AddFile},
    {"GET", "/v1/files", kFilesScope, &Impl::ListFiles},
    {"GET", "/v1/files/{id}", kFilesScope, &Impl::GetFile},
    {"DELETE", "/v1/files/{id}", kFilesScope, &Impl::DeleteFile},
    {"GET", "/v1/files/{id}/content", kFilesScope, &Impl::GetContent},
    {"POST", "/v1/batches", kBatchesScope, &Impl::AddBatch},
    {"GET", "/v1/batches", kBatchesScope, &Impl::ListBatches},
    {"GET", "/v1/batches/{id}", kBatchesScope, &Impl::GetBatch},
    {"POST", "/v1/batches/{id}/cancel", kBatchesScope, &Impl::CancelBatch},
};

void BatchService::Impl::Handle(const Entry& entry, const ExchangePtr& exchange,
                                const PathArguments& arguments) {
  const auto caller = authenticate(exchange->request(), entry.scope);
  if (!caller) return exchange->Reply(ErrorResponse(caller.error()));
  CHECK(*caller != nullptr) << "batches need callers";
  const Owner owner{(*caller)->tenant->id, (*caller)->project->id, (*caller)->key->id};
  boost::asio::post(lane, [this, &entry, exchange, arguments, owner] {
    if (exchange->gone()) return;
    Answer answer;
    try {
      answer = (this->*entry.answer)(owner, exchange, arguments);
    } catch (const std::exception& error) {  // out of memory
      spdlog::error("id={} {}: {}", exchange->request().id, entry.scope, error.what());
      answer = Fail(ErrorCode::kInternal, "internal error");
    }
    exchange->Reply(answer ? std::move(*answer)
                           : ResponseOf(answer.error(), exchange->request().id));
  });
}

// ---- Files

BatchService::Impl::Answer BatchService::Impl::AddFile(const Owner& owner,
                                                       const ExchangePtr& exchange,
                                                       const PathArguments&) {
  const auto boundary = BoundaryOf(exchange->request().content_type);
  if (!boundary && boundary.error().code == ErrorCode::kUnsupported)
    return ErrorResponse(HttpFault::kUnsupportedMedia, boundary.error().message);
  TRY(boundary);
  // The body keeps its room until it is on the disk.
  const std::string& body = exchange->request().body;
  TRY_ASSIGN(const std::vector<Part> parts, ReadMultipart(body, *boundary));
  TRY_ASSIGN(const Upload upload, ReadUpload(parts));
  if (std::ssize(upload.content) > limits.storage_bytes_max)
    return ErrorResponse(HttpFault::kBodyTooLarge,
                         fmt::format("the file exceeds the {} bytes that a tenant may keep",
                                     limits.storage_bytes_max));
  TRY_ASSIGN(const FileRecord file, store->AddFile(owner, upload.name, kPurpose, upload.content));
  (void)exchange->TakeBody();
  spdlog::info("{}: {} bytes", file.id, file.bytes);
  return JsonResponse(FileJson(file));
}

BatchService::Impl::Answer BatchService::Impl::ListFiles(const Owner& owner,
                                                         const ExchangePtr& exchange,
                                                         const PathArguments&) {
  const Query query(exchange->request().query);
  TRY_ASSIGN(ListQuery list, ReadListQuery(query, kFilesListedMax, kFilesListedMax));
  const std::string order = query.Get("order", "desc");
  if (order != "asc" && order != "desc")
    return Fail(ErrorCode::kInvalidArgument, "`order` must be \"asc\" or \"desc\"", "order");
  list.ascending = order == "asc";
  list.purpose = query.Get("purpose");
  TRY_ASSIGN(const ListPage<FileRecord> page, store->ListFiles(owner.tenant, list));
  return JsonResponse(PageJson(page, FileJson));
}

BatchService::Impl::Answer BatchService::Impl::GetFile(const Owner& owner, const ExchangePtr&,
                                                       const PathArguments& arguments) {
  TRY_ASSIGN(const FileRecord file, store->FindFile(owner.tenant, arguments[0]));
  return JsonResponse(FileJson(file));
}

BatchService::Impl::Answer BatchService::Impl::DeleteFile(const Owner& owner, const ExchangePtr&,
                                                          const PathArguments& arguments) {
  TRY(store->DeleteFile(owner.tenant, arguments[0]));
  spdlog::info("{}: deleted", arguments[0]);
  return JsonResponse({{"id", arguments[0]}, {"object", "file"}, {"deleted", true}});
}

BatchService::Impl::Answer BatchService::Impl::GetContent(const Owner& owner, const ExchangePtr&,
                                                          const PathArguments& arguments) {
  TRY_ASSIGN(const FileRecord file, store->FindFile(owner.tenant, arguments[0]));
  auto opened = MappedFile::Open(store->PathOf(file.id));
  // There is a record of it: what is missing is ours.
  if (!opened) return Fail(ErrorCode::kIo, opened.error().message);
  const auto mapped = std::make_shared<MappedFile>(std::move(*opened));
  const std::string_view bytes(reinterpret_cast<const char*>(mapped->bytes().data()),
                               mapped->bytes().size());
  if (std::ssize(bytes) != file.bytes)
    return Fail(ErrorCode::kCorrupt, "the file is not what was written");
  HttpResponse response{
      .content_type = "application/octet-stream",
      .body = {},
      .headers = {{"content-disposition",
                   fmt::format("attachment; filename=\"{}\"", HeaderFileName(file.name))},
                  {"x-content-type-options", "nosniff"}},
      .rest_bytes = file.bytes};
  response.rest = [mapped, left = std::string_view(bytes)]() mutable {
    std::string piece(left.substr(0, kPieceBytes));
    left.remove_prefix(piece.size());
    return piece;
  };
  return response;
}

// ---- Batches

BatchService::Impl::Answer BatchService::Impl::AddBatch(const Owner& owner,
                                                        const ExchangePtr& exchange,
                                                        const PathArguments&) {
  if (!IsJson(exchange->request().content_type))
    return ErrorResponse(HttpFault::kUnsupportedMedia, "Content-Type must be application/json");
  TRY_ASSIGN(const Json body, ParseBody(exchange->TakeBody()));
  FieldReader reader(body);
  std::string input_file, endpoint, window;
  reader.Read("input_file_id", input_file);
  reader.Read("endpoint", endpoint);
  reader.Read("completion_window", window);
  if (reader.Find("output_expires_after") != nullptr)
    reader.Refuse("output_expires_after", "is not supported: delete files when you have them",
                  ErrorCode::kUnsupported);
  if (input_file.empty()) reader.Refuse("input_file_id", "must name an uploaded file");
  const auto asked = std::ranges::find(kEndpoints, endpoint, &LineEndpoint::path);
  if (asked == kEndpoints.end())
    reader.Refuse("endpoint", "must be \"/v1/chat/completions\" or \"/v1/completions\"");
  if (window != "24h") reader.Refuse("completion_window", "must be \"24h\"");
  TRY(reader.status());
  TRY(authenticate(exchange->request(), asked->scope));
  TRY_ASSIGN(const std::string metadata, ReadMetadata(body));
  TRY_ASSIGN(const BatchRecord batch,
             store->AddBatch(owner, endpoint, input_file, metadata, kBatchWindowSeconds));
  spdlog::info("{}: of {}", batch.id, batch.input_file);
  runner.Wake();
  return JsonResponse(BatchJson(batch));
}

BatchService::Impl::Answer BatchService::Impl::ListBatches(const Owner& owner,
                                                           const ExchangePtr& exchange,
                                                           const PathArguments&) {
  TRY_ASSIGN(const ListQuery list,
             ReadListQuery(Query(exchange->request().query), kBatchesListed, kBatchesListedMax));
  TRY_ASSIGN(const ListPage<BatchRecord> page, store->ListBatches(owner.tenant, list));
  return JsonResponse(PageJson(page, BatchJson));
}

BatchService::Impl::Answer BatchService::Impl::GetBatch(const Owner& owner, const ExchangePtr&,
                                                        const PathArguments& arguments) {
  TRY_ASSIGN(const BatchRecord batch, store->FindBatch(owner.tenant, arguments[0]));
  return JsonResponse(BatchJson(batch));
}

BatchService::Impl::Answer BatchService::Impl::CancelBatch(const Owner& owner, const ExchangePtr&,
                                                           const PathArguments& arguments) {
  TRY_ASSIGN(const BatchRecord batch, store->CancelBatch(owner.tenant, arguments[0]));
  runner.Wake();
  return JsonResponse(BatchJson(batch));
}

// ---- The shell

BatchService::BatchService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

BatchService::~BatchService() {
  Stop(std::chrono::milliseconds(0));
  impl_->lane.join();
}

Result<std::unique_ptr<BatchService>> BatchService::Open(const BatchConfig& config,
                                                         Authenticate authenticate,
                                                         BatchPorts ports, const Clock& clock) {
  TRY_ASSIGN(std::unique_ptr<BatchStore> store,
             BatchStore::Open(config.folder, config.limits, clock));
  return std::unique_ptr<BatchService>(new BatchService(std::make_unique<Impl>(
      config, std::move(authenticate), std::move(ports), clock, std::move(store))));
}

void BatchService::AddRoutes(Router& router) {
  for (const Impl::Entry& entry : Impl::kEntries)
    router.Add(
        {entry.method, entry.pattern, entry.scope,
         [impl = impl_.get(), &entry](const ExchangePtr& exchange, const PathArguments& arguments) {
           impl->Handle(entry, exchange, arguments);
         }});
}

void BatchService::Start() { impl_->runner.Start(); }

void BatchService::Stop(std::chrono::milliseconds timeout) { impl_->runner.Stop(timeout); }

std::string BatchService::MetricsText() const {
  const RunnerStats stats = impl_->runner.stats();
  MetricFamily lines =
      Family("millpower_batch_lines_total", "Lines of batches with a result, since the start",
             MetricType::Counter);
  AddValue(lines, stats.completed, "outcome", "completed");
  AddValue(lines, stats.failed, "outcome", "failed");
  MetricFamily retries = Family("millpower_batch_retries_total",
                                "Lines that were told to come again later", MetricType::Counter);
  AddValue(retries, stats.retried);
  MetricFamily in_flight =
      Family("millpower_batch_lines_in_flight", "Lines that are being answered", MetricType::Gauge);
  AddValue(in_flight, stats.in_flight);
  MetricFamily batches = Family("millpower_batches", "Batches by state", MetricType::Gauge);
  if (const auto counts = impl_->store->CountBatches())
    for (int i = 0; i < kBatchStatusCount; ++i)
      AddValue(batches, (*counts)[static_cast<size_t>(i)], "status",
               Name(static_cast<BatchStatus>(i)));
  return prometheus::TextSerializer().Serialize({lines, retries, in_flight, batches});
}

namespace {

// The key with whose rights a batch of `key` runs: the newest that it was rotated to and that may
// be used. Itself where there is none, or where it was revoked: the ledger then says why it is not
// to be used.
const ledger::Key* InPlaceOf(const ledger::Key& key, const ledger::Directory& directory,
                             int64_t now) {
  const ledger::Key* newest = &key;
  if (key.revoked_at != 0) return newest;
  for (const ledger::Key& other : directory.keys()) {
    const bool is_usable =
        other.revoked_at == 0 && (other.expires_at == 0 || now < other.expires_at);
    if (RootOf(other) == RootOf(key) && other.project == key.project && is_usable &&
        other.number > newest->number)
      newest = &other;
  }
  return newest;
}

}  // namespace

BatchPorts MakeBatchPorts(std::function<void(std::shared_ptr<Exchange>)> answer,
                          const ledger::Ledger& ledger, const ModelRegistry& models,
                          const Clock& clock) {
  const auto caller_of = [&ledger, &clock](const Owner& owner) -> std::shared_ptr<const Caller> {
    auto caller = std::make_shared<Caller>();
    caller->directory = ledger.directory();
    const ledger::Directory& directory = *caller->directory;
    const ledger::Key* const key = directory.FindKey(owner.key);
    if (key == nullptr) return nullptr;
    caller->tenant = directory.FindTenant(key->tenant);
    caller->project = directory.FindProject(key->project);
    // What is written beside the ledger may be older or newer than the ledger.
    if (caller->tenant == nullptr || caller->project == nullptr ||
        caller->tenant->id != owner.tenant || caller->project->id != owner.project ||
        caller->project->tenant != caller->tenant->number)
      return nullptr;
    caller->key = InPlaceOf(*key, directory, clock.UnixSeconds());
    caller->is_batch = true;
    return caller;
  };
  const auto check_model = [&models, &clock](const Caller& caller,
                                             const std::string& model) -> Result<void> {
    if (!MayUseModel(&caller, model)) return ModelRegistry::NoSuchModel(model);
    const auto found = models.Find(model);
    if (!found && found.error().code == ErrorCode::kNotFound) return std::unexpected(found.error());
    for (const ledger::Unit unit : {ledger::Unit::kInputToken, ledger::Unit::kOutputToken})
      if (caller.directory->FindPrice(model, ledger::Tier::kBatch, unit, clock.UnixSeconds()) ==
          nullptr)
        return Fail(
            ErrorCode::kUnavailable,
            fmt::format("no price is set for {} of model '{}' at tier batch", Name(unit), model));
    return {};  // one that is being loaded will come
  };
  const auto holds_credit = [&ledger](const Caller& caller) {
    return ledger.Balance({ledger::AccountKind::kHeld, caller.tenant->number}) > 0;
  };
  return {.answer = std::move(answer),
          .caller_of = caller_of,
          .check_model = check_model,
          .holds_credit = holds_credit};
}

}  // namespace millpower::serve
