// Which models are loaded, loading one, unloading one.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <string_view>
#include <system_error>

#include "serve/admin.h"
#include "serve/admin/endpoints.h"
#include "serve/admin/outputs.h"
#include "serve/errors.h"
#include "serve/fields.h"

namespace millpower::serve {
namespace {

namespace fs = std::filesystem;

constexpr size_t kNameMaxBytes = 200;
constexpr const char* kWeightTypes[] = {"auto", "f32", "bf16", "int8", "int4", "fp8"};
constexpr const char* kKvTypes[] = {"", "f32", "bf16", "int8", "fp8"};

bool IsInside(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
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

namespace admin {

namespace {

Json ModelJson(const ModelStatus& status) {
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

Answer ListModels(Context& context, const Request&) {
  Json data = Json::array();
  for (const ModelStatus& status : context.host.List()) data.push_back(ModelJson(status));
  return ListResponse(std::move(data));
}

std::unexpected<Error> NoSuchModel(const std::string& name) {
  return Fail(ErrorCode::kNotFound, "the model '" + name + "' does not exist", "name");
}

Answer GetModel(Context& context, const Request& request) {
  const auto status = context.host.Find(request.path[0]);
  if (!status) return NoSuchModel(request.path[0]);
  return JsonResponse(ModelJson(*status));
}

Answer LoadModel(Context& context, const Request& request) {
  TRY_ASSIGN(ModelSpec spec, ReadModelSpec(request.body, context.model_root));
  const std::string name = spec.name, path = spec.path;
  if (!context.host.Load(std::move(spec)))
    return Fail(ErrorCode::kAlreadyExists, "there is a model '" + name + "' already");
  spdlog::info("loading '{}' from {}", name, path);
  const auto status = context.host.Find(name);
  return JsonResponse(status ? ModelJson(*status) : Json(), 202);
}

Answer UnloadModel(Context& context, const Request& request) {
  const std::string& name = request.path[0];
  if (!context.host.Unload(name)) return NoSuchModel(name);
  const auto status = context.host.Find(name);
  const Json gone = {{"id", name}, {"state", "unloaded"}};
  return JsonResponse(status ? ModelJson(*status) : gone, 202);
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/models", .answer = ListModels, .needs_ledger = false},
    {.method = "POST",
     .pattern = "/admin/v1/models",
     .answer = LoadModel,
     .needs_ledger = false,
     .has_body = true},
    {.method = "GET",
     .pattern = "/admin/v1/models/{name...}",
     .answer = GetModel,
     .needs_ledger = false},
    {.method = "DELETE",
     .pattern = "/admin/v1/models/{name...}",
     .answer = UnloadModel,
     .needs_ledger = false},
};

}  // namespace

std::span<const Endpoint> ModelEndpoints() { return kEndpoints; }

}  // namespace admin
}  // namespace millpower::serve
