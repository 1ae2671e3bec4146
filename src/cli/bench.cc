// millpower bench MODEL: how fast the model runs here, beside what the machine can give.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "base/json.h"
#include "base/rng.h"
#include "base/system.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/size.h"
#include "cli/workload.h"
#include "device/cpu/cpu_device.h"
#include "engine/llm_engine.h"
#include "kernels/peak.h"

namespace millpower::cli {
namespace {

constexpr size_t kPoolBytes = size_t{1} << 29;  // read to measure bandwidth
constexpr int kPrefillTokens = 512;
constexpr int kDecodePrompt = 32;
constexpr int kDecodeTokens = 48;
constexpr int kIssueTokens = 200;  // such steps are short
constexpr int64_t kIssuePages = (kDecodePrompt + kIssueTokens) / isa::kPagePositions + 1;

struct Flags {
  std::string model, trace;
  ModelFlags shared;
  int runs = 5;
  int32_t context = 4096;
  bool json = false;
};

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// The machine's limits, measured on the same number of threads.
class Machine {
 public:
  explicit Machine(int threads) : team_(threads), pool_(kPoolBytes + 4096) {
    for (size_t i = 0; i < pool_.size(); i += 8) pool_[i] = static_cast<std::byte>(i);
  }
  double ReadBandwidth() {
    const size_t misaligned = reinterpret_cast<uintptr_t>(pool_.data()) % 4096;
    return kernels::ReadBandwidth(team_, std::span(pool_).subspan(4096 - misaligned, kPoolBytes));
  }
  double FmaPeak() { return kernels::FmaPeak(team_); }
  double Int8Peak() { return kernels::Int8Peak(team_); }

 private:
  ThreadTeam team_;
  std::vector<std::byte> pool_;
};

// Runs `count` equal requests together, through the engine. When the last had its first token, and
// when all were done, in seconds since they were submitted, and how many tokens all made between.
struct Timing {
  double last_first_token_s = 0;
  double done_s = 0;
  int64_t tokens_between = 0;
};

Result<Timing> RunRequests(engine::Engine& engine, int count, int prompt_tokens, int new_tokens,
                           uint64_t seed) {
  std::mutex mutex;
  std::condition_variable changed;
  int started = 0, done = 0;
  Timing timing;
  std::optional<Error> error;
  Rng rng(seed);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) {
    engine::Request request;
    request.id = fmt::format("bench-{}-{}", seed, i);
    for (int t = 0; t < prompt_tokens; ++t)
      request.prompt.push_back(
          static_cast<int32_t>(rng.Below(static_cast<uint64_t>(engine.limits().vocab_size))));
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sampling.max_tokens = new_tokens;
    TRY(engine.Submit(std::move(request), [&, first = true](const engine::Delta& delta) mutable {
      const std::lock_guard lock(mutex);
      if (started == count) timing.tokens_between += std::ssize(delta.tokens);
      if (first && !delta.tokens.empty() && ++started == count)
        timing.last_first_token_s = Seconds(start);
      first = false;
      if (delta.finish) {
        if (delta.error) error = delta.error;
        if (++done == count) timing.done_s = Seconds(start);
        changed.notify_all();
      }
      return engine::Verdict::kContinue;
    }));
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done == count; });
  if (error) return std::unexpected(*error);
  return timing;
}

// Tokens per second of all sequences together, once all have their prompts behind them.
Result<double> DecodeRate(engine::Engine& engine, int sequences, int prompt_tokens, int new_tokens,
                          uint64_t seed) {
  TRY_ASSIGN(const Timing timing, RunRequests(engine, sequences, prompt_tokens, new_tokens, seed));
  return static_cast<double>(timing.tokens_between) / (timing.done_s - timing.last_first_token_s);
}

// The model on a device that issues every instruction and computes none, and its engine: what is
// left of a step is what issuing it costs. Shares the weights.
struct IssueOnly {
  std::unique_ptr<device::Device> device;
  std::unique_ptr<engine::Engine> engine;  // uses the device; destroyed first
};

Result<IssueOnly> StartIssueOnly(const Session& session, const SessionOptions& options) {
  TRY_ASSIGN(const auto* kernel_set, kernels::SelectKernels(options.kernels));
  IssueOnly issue;
  issue.device = device::cpu::MakeCpuDevice(
      {.threads = options.load.threads, .kernels = kernel_set, .empty_kernels = true});
  TRY_ASSIGN(auto loaded, issue.device->Load(session.model.program, session.model.weights,
                                             {.kv_pages = kIssuePages}));
  TRY_ASSIGN(issue.engine, engine::StartLlmEngine(std::move(loaded), {}));
  return issue;
}

// Of work that takes `limit_s` at the limit, done `rate` times a second. Nothing where no limit
// could be measured.
Json Share(double limit_s, double rate) {
  const double share = limit_s * rate;
  return std::isfinite(share) ? Json(share) : Json();
}

// `run`s by key: the median of each number, null where any run has none.
Json Medians(const Json& runs) {
  Json medians;
  for (const auto& [key, unused] : runs[0].items()) {
    std::vector<double> values;
    for (const Json& run : runs)
      if (run[key].is_number()) values.push_back(run[key].get<double>());
    medians[key] = values.size() == runs.size() ? Json(Median(std::move(values))) : Json();
  }
  return medians;
}

Result<Json> Measure(const Flags& flags) {
  SessionOptions options;
  TRY_ASSIGN(options.load, ToLoadOptions(flags.shared));
  options.kernels = flags.shared.kernels;
  TRY_ASSIGN(const std::unique_ptr<device::TraceFile> trace, OpenTrace(flags.trace));
  options.trace = trace.get();
  TRY_ASSIGN(const auto* kernel_set, kernels::SelectKernels(options.kernels));
  const auto cold = std::chrono::steady_clock::now();
  TRY_ASSIGN(Session session, StartSession(flags.model, options));
  const double cold_start_s = Seconds(cold);
  engine::Engine& engine = *session.engine;
  // The longest prompt that leaves room for the tokens to decode, up to --context.
  const int32_t context = std::min(flags.context, engine.limits().max_model_len - kDecodeTokens);
  if (std::min(context, engine.limits().max_model_len - kPrefillTokens) < 1)
    return Fail(ErrorCode::kOutOfRange,
                fmt::format("{} and its KV memory hold a context of {} tokens; measuring takes {}",
                            session.model.name, engine.limits().max_model_len, kPrefillTokens + 1));
  TRY(RunRequests(engine, 1, kDecodePrompt, 4, 1));  // touches every weight once
  const int64_t resident_bytes = ResidentBytes();

  TRY_ASSIGN(const IssueOnly issue, StartIssueOnly(session, options));
  Machine machine(options.load.threads);
  const Workload work = WorkloadOf(*session.model.program);
  // Bytes that the middle one of the decoded tokens reads.
  auto step_bytes = [&](int prompt_tokens) {
    return work.step_weight_bytes +
           work.kv_bytes_per_position * (prompt_tokens + kDecodeTokens / 2);
  };
  // Machines are shared and drift: each run measures the limit right before and after what is held
  // to it, and the better one counts.
  Json runs = Json::array();
  for (int n = 0; n < flags.runs; ++n) {
    const uint64_t seed = 10 * static_cast<uint64_t>(n + 1);
    if (!flags.json) fmt::print(stderr, "run {} of {}\n", n + 1, flags.runs);
    double bandwidth = machine.ReadBandwidth();
    TRY_ASSIGN(const double decode, DecodeRate(engine, 1, kDecodePrompt, kDecodeTokens, seed));
    double after = machine.ReadBandwidth();
    const Json decode_share = Share(step_bytes(kDecodePrompt) / std::max(bandwidth, after), decode);
    bandwidth = after;
    TRY_ASSIGN(const double empty, DecodeRate(*issue.engine, 1, kDecodePrompt, kIssueTokens, seed));
    TRY_ASSIGN(const double batch_8, DecodeRate(engine, 8, kDecodePrompt, kDecodeTokens, seed + 1));
    TRY_ASSIGN(const double batch_32,
               DecodeRate(engine, 32, kDecodePrompt, kDecodeTokens, seed + 2));

    double fma_peak = machine.FmaPeak(), int8_peak = machine.Int8Peak();
    TRY_ASSIGN(const Timing timing, RunRequests(engine, 1, kPrefillTokens, 1, seed + 3));
    fma_peak = std::max(fma_peak, machine.FmaPeak());
    int8_peak = std::max(int8_peak, machine.Int8Peak());
    const double prefill = kPrefillTokens / timing.done_s;
    const double prefill_limit_s = (work.float_ops > 0 ? work.float_ops / fma_peak : 0) +
                                   (work.int8_ops > 0 ? work.int8_ops / int8_peak : 0);

    // The same prompt every time, so that an engine with a prefix cache reads it once.
    const double before = machine.ReadBandwidth();
    TRY_ASSIGN(const double at_context, DecodeRate(engine, 1, context, kDecodeTokens, 2));
    after = machine.ReadBandwidth();
    runs.push_back({{"read_bandwidth_bytes_s", Median({bandwidth, before, after})},
                    {"fma_peak_flops_s", fma_peak > 0 ? Json(fma_peak) : Json()},
                    {"int8_peak_ops_s", int8_peak > 0 ? Json(int8_peak) : Json()},
                    {"decode_tok_s", decode},
                    {"decode_share_of_bandwidth", decode_share},
                    {"batch_8_tok_s", batch_8},
                    {"batch_32_tok_s", batch_32},
                    {"prefill_512_tok_s", prefill},
                    {"prefill_share_of_peak", Share(prefill_limit_s, prefill)},
                    {"decode_4096_tok_s", context == 4096 ? Json(at_context) : Json()},
                    {"decode_at_context_tok_s", at_context},
                    {"decode_at_context_share_of_bandwidth",
                     Share(step_bytes(context) / std::max(before, after), at_context)},
                    {"issue_cost_share", Share(1 / empty, decode)}});
  }
  if (trace) TRY(trace->Close());
  Json result = {{"model", session.model.name},
                 {"threads", options.load.threads},
                 {"kernels", kernel_set->name},
                 {"context", context},
                 {"step_weight_bytes", work.step_weight_bytes},
                 {"kv_bytes_per_position", work.kv_bytes_per_position},
                 {"prefill_float_ops", work.float_ops},
                 {"prefill_int8_ops", work.int8_ops},
                 {"cold_start_s", cold_start_s},
                 {"resident_bytes", resident_bytes}};
  result.update(Medians(runs));
  result["runs"] = std::move(runs);
  return result;
}

void PrintTable(const Json& result) {
  auto number = [&](const char* key) {
    return result[key].is_number() ? result[key].get<double>() : 0.0;
  };
  auto size = [&](const char* key) { return FormatSize(static_cast<int64_t>(number(key))); };
  // What there is no figure for is said, not shown as 0.
  auto percent = [&](const char* key) {
    return result[key].is_number() ? fmt::format("{:.0f}%", 100 * number(key)) : "unknown share";
  };
  auto peak = [&](const char* key) {
    return result[key].is_number() ? fmt::format("{:.0f} Gop/s", number(key) / 1e9) : "unknown";
  };
  fmt::print("{}, {} threads, {} kernels, medians of {} runs\n\n",
             result["model"].get<std::string>(), result["threads"].get<int>(),
             result["kernels"].get<std::string>(), result["runs"].size());
  fmt::print("machine      read {:.1f} GB/s, f32 {}, int8 {}\n",
             number("read_bandwidth_bytes_s") / 1e9, peak("fma_peak_flops_s"),
             peak("int8_peak_ops_s"));
  fmt::print("decode       {:.1f} tok/s, {} of the bandwidth ({} of weights a step)\n",
             number("decode_tok_s"), percent("decode_share_of_bandwidth"),
             size("step_weight_bytes"));
  fmt::print("  at {:<7} {:.1f} tok/s, {} of the bandwidth ({} of KV a token of context)\n",
             result["context"].get<int>(), number("decode_at_context_tok_s"),
             percent("decode_at_context_share_of_bandwidth"), size("kv_bytes_per_position"));
  fmt::print("  batch 8    {:.1f} tok/s\n  batch 32   {:.1f} tok/s\n", number("batch_8_tok_s"),
             number("batch_32_tok_s"));
  fmt::print("prefill 512  {:.1f} tok/s, {} of the peak of its weights' type\n",
             number("prefill_512_tok_s"), percent("prefill_share_of_peak"));
  fmt::print("issue cost   {:.2f}% of a step\n", 100 * number("issue_cost_share"));
  fmt::print("cold start   {:.2f} s\nresident     {}\n", number("cold_start_s"),
             size("resident_bytes"));
}

Result<void> Bench(const Flags& flags) {
  spdlog::set_level(spdlog::level::warn);
  TRY_ASSIGN(const Json result, Measure(flags));
  if (flags.json)
    fmt::print("{}\n", DumpJson(result));
  else
    PrintTable(result);
  return {};
}

}  // namespace

Command AddBench(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "bench", "Measure a model on this machine, beside the machine's own limits");
  command->add_option("model", flags->model, "Model folder, GGUF file or compiled file")
      ->required();
  command->add_option("--runs", flags->runs, "Runs, of which medians are told")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option("--context", flags->context,
                   "Tokens before those decoded, where decoding with a long context is measured")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object instead of a table");
  AddTraceFlag(*command, flags->trace);
  AddCompileFlags(*command, flags->shared);
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Bench(*flags); };
}

}  // namespace millpower::cli
