#include "cli/session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/system.h"
#include "cli/background.h"
#include "cli/size.h"
#include "device/cpu/cpu_device.h"
#include "engine/llm_engine.h"
#include "kernels/kernels.h"

namespace millpower::cli {
namespace {

// Without --kv-memory: room for this many whole contexts, but at most this part of the memory that
// is left once the weights are in, divided by the models that share it.
constexpr int64_t kDefaultContexts = 8;
constexpr double kDefaultShare = 0.5;

struct KvPlan {
  int64_t pages = 0;
  int32_t max_model_len = 0;
};

Result<KvPlan> PlanKv(const isa::Program& program, const SessionOptions& options) {
  const int64_t page_bytes = device::KvPageBytes(program);
  const int64_t model_positions = program.FactOr("max_positions", 0);
  if (page_bytes == 0 || model_positions < 1 || model_positions > INT32_MAX)
    return Fail(
        ErrorCode::kUnsupported,
        "it is not a language model: it has no KV cache, or no context of 1 to 2^31 tokens");
  const int64_t wanted = options.max_model_len > 0 ? options.max_model_len : model_positions;
  if (wanted > model_positions)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("--max-model-len {} is more than the model's context, {}", wanted,
                            model_positions),
                "max-model-len");
  const int64_t context_pages = (wanted + isa::kPagePositions - 1) / isa::kPagePositions;
  const int64_t available = AvailableMemoryBytes();
  int64_t budget = options.kv_memory_bytes;
  if (budget == 0)
    budget = std::min(
        kDefaultContexts * context_pages * page_bytes,
        static_cast<int64_t>(kDefaultShare * static_cast<double>(available)) / options.sharers);
  if (budget > available)
    spdlog::warn("KV memory of {} is more than the {} that are free", FormatSize(budget),
                 FormatSize(available));
  KvPlan plan;
  plan.pages = std::min(budget / page_bytes,
                        program.registers[static_cast<size_t>(program.FindRegister("pages"))].max);
  const int64_t positions = plan.pages * isa::kPagePositions;
  plan.max_model_len = static_cast<int32_t>(std::min(wanted, positions));
  if (positions >= wanted) return plan;
  const std::string arithmetic = fmt::format(
      "a context of {} tokens takes {} pages of {} bytes = {} of KV memory; there is {}", wanted,
      context_pages, page_bytes, FormatSize(context_pages * page_bytes), FormatSize(budget));
  if (options.max_model_len > 0 || plan.pages == 0)
    return Fail(ErrorCode::kNoCapacity, arithmetic, "max-model-len");
  spdlog::warn("{}: contexts are limited to {} tokens", arithmetic, plan.max_model_len);
  return plan;
}

}  // namespace

Session& Session::operator=(Session&& other) noexcept {
  engine = nullptr;
  model = std::move(other.model);
  device = std::move(other.device);
  weights_bytes = other.weights_bytes;
  kv_bytes = other.kv_bytes;
  engine = std::move(other.engine);
  return *this;
}

Result<std::shared_ptr<device::Device>> MakeDevice(const SessionOptions& options) {
  TRY_ASSIGN(const kernels::KernelSet* kernel_set, kernels::SelectKernels(options.kernels));
  return device::cpu::MakeCpuDevice({.threads = options.load.threads,
                                     .kernels = kernel_set,
                                     .chip = options.chip,
                                     .profile = options.profile,
                                     .trace = options.trace});
}

Result<Session> StartSession(std::shared_ptr<device::Device> device, const std::string& path,
                             const SessionOptions& options) {
  Session session;
  session.device = std::move(device);
  const auto load = [&] { return LoadModel(path, options.load); };
  TRY_ASSIGN(session.model, options.in_background ? InBackground(load) : load());
  const isa::Program& program = *session.model.program;
  if (program.FindRegister("pages") < 0)
    return Fail(ErrorCode::kUnsupported, path + " is not a language model: it has no KV cache");
  TRY_ASSIGN(const KvPlan kv, PlanKv(program, options));
  TRY_ASSIGN(auto loaded, session.device->Load(session.model.program, session.model.weights,
                                               {.kv_pages = kv.pages}));
  for (const auto& weight : session.model.weights.by_buffer)
    session.weights_bytes += static_cast<int64_t>(weight.size());
  session.kv_bytes = kv.pages * device::KvPageBytes(program);
  TRY_ASSIGN(const kernels::KernelSet* kernel_set, kernels::SelectKernels(options.kernels));
  spdlog::info("{}: {} of weights, {} KV pages ({}), context {}; {} threads, {} kernels ({})",
               session.model.name, FormatSize(session.weights_bytes), kv.pages,
               FormatSize(session.kv_bytes), kv.max_model_len, options.load.threads,
               kernel_set->name, kernel_set->instructions);
  TRY_ASSIGN(
      session.engine,
      engine::StartLlmEngine(std::move(loaded), {.max_model_len = kv.max_model_len,
                                                 .max_num_seqs = options.max_num_seqs,
                                                 .max_batch_tokens = options.max_batch_tokens,
                                                 .max_queue = options.max_queue,
                                                 .eos_ids = session.model.generation.eos_token_ids,
                                                 .prefix_cache = options.prefix_cache,
                                                 .hooks = options.hooks,
                                                 .observer = options.observer}));
  return session;
}

Result<Session> StartSession(const std::string& path, const SessionOptions& options) {
  TRY_ASSIGN(auto device, MakeDevice(options));
  return StartSession(std::move(device), path, options);
}

}  // namespace millpower::cli
