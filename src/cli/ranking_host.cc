#include "cli/ranking_host.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>

#include "cli/background.h"
#include "cli/size.h"
#include "cli/table_memory.h"
#include "cli/tensor_flags.h"

namespace millpower::cli {
namespace {

constexpr int64_t kUnloadTimeoutNs = 30'000'000'000;

std::optional<int64_t> NumberOf(const std::string& name) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || number < 1) return std::nullopt;
  return number;
}

// The model in a version's folder.
std::optional<std::filesystem::path> ModelIn(const std::filesystem::path& folder) {
  if (IsTensorModelPath(folder)) return folder;
  for (const char* name : {"model.onnx", "model.pt2", "model.mill", "model.savedmodel"})
    if (IsTensorModelPath(folder / name)) return folder / name;
  return std::nullopt;
}

}  // namespace

std::vector<ModelVersion> VersionsAt(const std::filesystem::path& path) {
  if (IsTensorModelPath(path)) return {{1, path}};
  std::vector<ModelVersion> versions;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    const auto number = NumberOf(entry.path().filename());
    const auto model = number ? ModelIn(entry.path()) : std::nullopt;
    if (model) versions.emplace_back(*number, *model);
  }
  std::ranges::sort(versions);
  return versions;
}

RankingHost::RankingHost(std::shared_ptr<device::Device> device, const Clock& clock,
                         RankingOptions options, std::vector<Spec> specs)
    : device_(std::move(device)),
      options_(std::move(options)),
      engine_(std::make_unique<ranking::Engine>(*device_, clock)) {
  for (Spec& spec : specs) specs_.push_back({.spec = std::move(spec)});
}

Result<void> RankingHost::LoadAtStart() {
  for (const Entry& entry : specs_) TRY(Load(entry.spec, false));
  return {};
}

Result<void> RankingHost::LoadVersion(const std::string& name, const ModelVersion& version,
                                      bool in_background) {
  TensorLoadOptions load = options_.load;
  load.show_progress = !in_background;
  // The others' processors stay free for requests.
  if (in_background) load.threads = std::max(1, load.threads / 2);
  std::vector<std::string> names;
  for (const Entry& entry : specs_) names.push_back(entry.spec.name);
  load.import.id_policies = PoliciesFor(name, names, load.import.id_policies);
  const auto prepare = [&]() -> Result<ranking::Prepared> {
    TRY_ASSIGN(LoadedTensorModel loaded, LoadTensorModel(version.second, load));
    KeepTables(options_.table_keeper, loaded.weights);
    for (const std::string& note : loaded.notes)
      spdlog::info("{}: {}", version.second.string(), note);
    return engine_->Prepare({.name = name,
                             .version = version.first,
                             .program = loaded.program,
                             .weights = std::move(loaded.weights),
                             .signature = std::move(loaded.signature),
                             .config = options_.config});
  };
  TRY_ASSIGN(const ranking::Prepared prepared, in_background ? InBackground(prepare) : prepare());
  TRY_ASSIGN(const ranking::ModelPtr model, engine_->Start(prepared));
  spdlog::info("model '{}' version {} is ready: {} of weights", name, version.first,
               FormatSize(model->weights_bytes));
  return {};
}

Result<void> RankingHost::Load(const Spec& spec, bool in_background) {
  SetState(spec.name, "LOADING", "");
  const std::vector<ModelVersion> versions = VersionsAt(spec.path);
  std::vector<int64_t> numbers;
  const auto load = [&]() -> Result<void> {
    if (versions.empty())
      return Fail(ErrorCode::kNotFound, "there is no model at " + spec.path.string());
    for (const ModelVersion& version : versions) {
      TRY(LoadVersion(spec.name, version, in_background));
      numbers.push_back(version.first);
    }
    return {};
  };
  Result<void> loaded = load();
  SetState(spec.name, loaded ? "READY" : "UNAVAILABLE", loaded ? "" : loaded.error().message,
           numbers);
  return loaded;
}

Result<void> RankingHost::Unload(const std::string& name) {
  TRY(engine_->Unload(name, 0, kUnloadTimeoutNs));
  SetState(name, "UNAVAILABLE", "unloaded");
  return {};
}

void RankingHost::SetState(const std::string& name, std::string state, std::string reason,
                           std::vector<int64_t> versions) {
  const std::lock_guard lock(mutex_);
  for (Entry& entry : specs_) {
    if (entry.spec.name != name) continue;
    entry.state = std::move(state);
    entry.reason = std::move(reason);
    entry.versions = std::move(versions);
    return;
  }
}

std::vector<serve::InferenceRepository::Entry> RankingHost::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<serve::InferenceRepository::Entry> list;
  for (const Entry& entry : specs_) {
    if (entry.versions.empty()) list.push_back({entry.spec.name, "", entry.state, entry.reason});
    for (const int64_t version : entry.versions)
      list.push_back({entry.spec.name, std::to_string(version), entry.state, entry.reason});
  }
  return list;
}

serve::InferenceRepository RankingHost::Repository() {
  return {.list = [this] { return List(); },
          .load = [this](const std::string& name, const Json&) -> Result<void> {
            Spec spec;
            {
              const std::lock_guard lock(mutex_);
              for (const Entry& entry : specs_)
                if (entry.spec.name == name) spec = entry.spec;
            }
            if (spec.name.empty())
              return Fail(ErrorCode::kNotFound, "there is no model '" + name + "' to load",
                          "model");
            return Load(spec, true);
          },
          .unload = [this](const std::string& name) { return Unload(name); }};
}

}  // namespace millpower::cli
