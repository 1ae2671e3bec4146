#include "ranking/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "ranking/runner.h"

namespace millpower::ranking {
namespace {

std::unexpected<Error> NoSuchModel(const std::string& name, int64_t version) {
  return Fail(ErrorCode::kNotFound,
              version == 0 ? fmt::format("the model '{}' does not exist", name)
                           : fmt::format("the model '{}' has no version {}", name, version),
              "model");
}

std::map<std::string, int64_t> BoundsOf(const isa::Program& program) {
  std::map<std::string, int64_t> bounds;
  for (const isa::Register& reg : program.registers)
    if (IsFree(reg)) bounds[reg.name] = reg.max;
  return bounds;
}

int64_t BytesOf(const isa::BoundWeights& weights) {
  int64_t bytes = 0;
  for (const auto& each : weights.by_buffer) bytes += std::ssize(each);
  return bytes;
}

std::vector<Table> TablesOf(const isa::Program& program) {
  std::vector<Table> tables;
  for (const isa::Buffer& buffer : program.buffers)
    if (buffer.kind == isa::BufferKind::kWeight && buffer.form == isa::Form::kTable)
      tables.push_back({buffer.name, buffer.rows.size, buffer.cols, buffer.dtype});
  return tables;
}

Result<void> CheckConfig(const Loading& model, int64_t batch_most) {
  const auto bad = [](const char* what, const char* field) {
    return Fail(ErrorCode::kInvalidArgument, std::string(field) + " " + what, field);
  };
  const ModelConfig& config = model.config;
  if (model.name.empty()) return bad("is missing", "name");
  if (model.version <= 0) return bad("must be positive", "version");
  if (config.max_batch < 0 || config.max_batch > batch_most)
    return bad("is beyond what the Program takes", "max_batch");
  constexpr int64_t kDelayMaxUs = 60'000'000;
  if (config.max_queue_delay_us < 0 || config.max_queue_delay_us > kDelayMaxUs)
    return bad("must be at most a minute", "max_queue_delay_us");
  if (config.max_queue < 1) return bad("must be positive", "max_queue");
  if (config.max_queue_bytes < 1) return bad("must be positive", "max_queue_bytes");
  return {};
}

}  // namespace

namespace {

// A size as coefficient * symbol + constant; absent for others.
struct Line {
  int64_t coefficient = 0, constant = 0;
};
std::optional<Line> LineIn(const Size& size, const std::string& symbol) {
  Line line;
  for (const auto& [monomial, coefficient] : size.terms()) {
    if (monomial.empty()) {
      line.constant = coefficient;
    } else if (monomial.size() == 1 && monomial[0] == symbol) {
      line.coefficient = coefficient;
    } else {
      return std::nullopt;
    }
  }
  return line.coefficient > 0 ? std::optional(line) : std::nullopt;
}

}  // namespace

Result<int64_t> RowsOf(const Model& model, std::span<const InputTensor> inputs) {
  const auto& ports = model.signature.inputs;
  if (model.signature.batch.empty()) return 1;
  for (size_t i = 0; i < std::min(ports.size(), inputs.size()); ++i) {
    const auto& shape = ports[i].shape;
    for (size_t j = 0; j < std::min(shape.size(), inputs[i].shape.size()); ++j) {
      const auto line = LineIn(shape[j], model.signature.batch);
      if (!line) continue;
      int64_t rest = 0;
      if (__builtin_sub_overflow(inputs[i].shape[j], line->constant, &rest) || rest < 0 ||
          rest % line->coefficient != 0)
        return Fail(ErrorCode::kInvalidArgument,
                    "input '" + ports[i].name + "' has a size of " +
                        std::to_string(inputs[i].shape[j]) + ", which is no " + shape[j].ToString(),
                    ports[i].name);
      const int64_t rows = rest / line->coefficient;
      if (rows > model.config.max_batch)
        return Fail(ErrorCode::kOutOfRange,
                    "input '" + ports[i].name + "' has " + std::to_string(rows) +
                        " rows; a request takes at most " + std::to_string(model.config.max_batch),
                    ports[i].name);
      return std::max<int64_t>(rows, 1);
    }
  }
  return 1;
}

struct Engine::Impl {
  using RunnerPtr = std::shared_ptr<Runner>;
  using Versions = std::map<int64_t, RunnerPtr>;

  // Null when it is not there. `version` 0: the highest.
  RunnerPtr FindLocked(const std::string& name, int64_t version) const {
    const auto found = models.find(name);
    if (found == models.end()) return nullptr;
    const Versions& versions = found->second;
    if (version == 0) return versions.rbegin()->second;
    const auto one = versions.find(version);
    return one == versions.end() ? nullptr : one->second;
  }
  // Of the very model, rather than another of its name that came later.
  RunnerPtr Find(const ModelPtr& model) const {
    std::lock_guard lock(mutex);
    RunnerPtr runner = FindLocked(model->name, model->version);
    return runner != nullptr && runner->model() == model ? runner : nullptr;
  }

  device::Device& device;
  const Clock& clock;
  Leases leases{};

  mutable std::mutex mutex{};
  std::map<std::string, Versions, std::less<>> models{};  // no empty ones
};

Engine::Engine(device::Device& device, const Clock& clock) : impl_(new Impl{device, clock}) {}

Engine::~Engine() {
  for (const auto& [name, versions] : impl_->models)
    for (const auto& [version, runner] : versions) runner->Stop(0);
}

const Clock& Engine::clock() const { return impl_->clock; }

Result<ModelPtr> Engine::Load(Loading loading) {
  TRY_ASSIGN(const Prepared prepared, Prepare(std::move(loading)));
  return Start(prepared);
}

Result<Prepared> Engine::Prepare(Loading loading) {
  TRY(CheckSignature(loading.signature, *loading.program));
  Layout layout = MakeLayout(loading.signature, loading.program);
  const int64_t batch_most = layout.batch < 0 ? 1 : layout.most(layout.batch);
  TRY(CheckConfig(loading, batch_most));
  auto model = std::make_shared<Model>(Model{.name = loading.name,
                                             .version = loading.version,
                                             .loaded_unix_s = impl_->clock.UnixSeconds(),
                                             .signature = std::move(loading.signature),
                                             .config = loading.config,
                                             .joins = layout.joins,
                                             .most = BoundsOf(*loading.program),
                                             .weights_bytes = BytesOf(loading.weights),
                                             .tables = TablesOf(*loading.program)});
  if (model->config.max_batch == 0) model->config.max_batch = batch_most;
  TRY_ASSIGN(auto program, impl_->device.Load(loading.program, std::move(loading.weights),
                                              {.touch = loading.config.warm_up}));
  return std::make_shared<Runner>(std::move(model), std::move(layout), std::move(program),
                                  impl_->clock, impl_->leases);
}

Result<ModelPtr> Engine::Start(const Prepared& runner) {
  const ModelPtr model = runner->model();
  if (model->config.warm_up) TRY(runner->WarmUp());
  runner->Start();
  Impl::RunnerPtr replaced;
  {
    std::lock_guard lock(impl_->mutex);
    replaced = std::exchange(impl_->models[model->name][model->version], runner);
  }
  if (replaced != nullptr) replaced->Stop(kReplacedTimeoutNs);
  return model;
}

Result<void> Engine::Unload(const std::string& name, int64_t version, int64_t timeout_ns) {
  std::vector<Impl::RunnerPtr> going;
  {
    std::lock_guard lock(impl_->mutex);
    const auto found = impl_->models.find(name);
    if (found == impl_->models.end()) return NoSuchModel(name, 0);
    Impl::Versions& versions = found->second;
    for (auto one = versions.begin(); one != versions.end();) {
      const bool goes = version == 0 || one->first == version;
      if (goes) going.push_back(one->second);
      one = goes ? versions.erase(one) : std::next(one);
    }
    if (versions.empty()) impl_->models.erase(found);
  }
  if (going.empty()) return NoSuchModel(name, version);
  for (const auto& runner : going) runner->Stop(timeout_ns);
  return {};
}

Result<ModelPtr> Engine::Find(const std::string& name, int64_t version) const {
  std::lock_guard lock(impl_->mutex);
  const auto runner = impl_->FindLocked(name, version);
  if (runner != nullptr) return runner->model();
  return NoSuchModel(name, impl_->models.contains(name) ? version : 0);
}

std::vector<ModelPtr> Engine::All() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<ModelPtr> all;
  for (const auto& [name, versions] : impl_->models)
    for (const auto& [version, runner] : versions) all.push_back(runner->model());
  return all;
}

Result<void> Engine::Submit(const ModelPtr& model, Request request, Callback callback) {
  const auto runner = impl_->Find(model);
  if (runner == nullptr)
    return Fail(ErrorCode::kUnavailable, "the model '" + model->name + "' has been unloaded",
                "model");
  return runner->Submit(std::move(request), std::move(callback));
}

Result<void> Engine::UpdateRows(const ModelPtr& model, const RowUpdate& update) {
  const auto runner = impl_->Find(model);
  if (runner == nullptr) return NoSuchModel(model->name, model->version);
  return runner->UpdateRows(update);
}

ModelStats Engine::Stats(const ModelPtr& model) const {
  const auto runner = impl_->Find(model);
  return runner == nullptr ? ModelStats() : runner->Stats();
}

void Engine::SetShares(std::vector<Share> shares) { impl_->leases.Set(std::move(shares)); }

}  // namespace millpower::ranking
