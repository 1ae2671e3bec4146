// millpower bench MODEL: how fast the model runs here, beside what the machine can give.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>

#include "base/json.h"
#include "base/rng.h"
#include "base/system.h"
#include "base/threads.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/size.h"
#include "kernels/peak.h"

namespace millpower::cli {
namespace {

constexpr size_t kPoolBytes = size_t{1} << 29;  // read to measure bandwidth
constexpr int kPrefillTokens = 512;
constexpr int kDecodePrompt = 32;
constexpr int kDecodeTokens = 48;

struct Flags {
  std::string model;
  ModelFlags shared;
  int runs = 5;
  bool json = false;
};

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
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

// Runs `count` equal requests together, through the engine. When each had its first token, and when
// all were done, in seconds since they were submitted.
struct Timing {
  double last_first_token_s = 0;
  double done_s = 0;
};

Result<Timing> RunRequests(Session& session, int count, int prompt_tokens, int new_tokens,
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
      request.prompt.push_back(static_cast<int32_t>(
          rng.Below(static_cast<uint64_t>(session.engine->limits().vocab_size))));
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sampling.max_tokens = new_tokens;
    TRY(session.engine->Submit(std::move(request),
                               [&, first = true](const engine::Delta& delta) mutable {
                                 const std::lock_guard lock(mutex);
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
Result<double> DecodeRate(Session& session, int sequences, uint64_t seed) {
  TRY_ASSIGN(const Timing timing,
             RunRequests(session, sequences, kDecodePrompt, kDecodeTokens, seed));
  return sequences * (kDecodeTokens - 1) / (timing.done_s - timing.last_first_token_s);
}

struct Sizes {
  double matrix_bytes = 0;   // read once per step
  double prefill_flops = 0;  // of one prompt token: all matrices but the head's
};

Sizes SizesOf(const isa::Program& program) {
  Sizes sizes;
  const auto vocab = program.FactOr("vocab_size", 0);
  for (const auto& stream : program.streams) {
    for (const isa::Instruction& in : stream) {
      if (in.op != isa::Opcode::kMatMul) continue;
      const isa::Buffer& w = program.buffer(in.operand(isa::matmul::kW));
      sizes.matrix_bytes += static_cast<double>(isa::BufferBytes(w, w.rows.size));
      if (w.rows.size != vocab)
        sizes.prefill_flops += 2.0 * static_cast<double>(w.rows.size) * static_cast<double>(w.cols);
    }
  }
  return sizes;
}

Result<Json> Measure(const Flags& flags) {
  SessionOptions options;
  TRY_ASSIGN(options.load, ToLoadOptions(flags.shared));
  options.kernels = flags.shared.kernels;
  options.max_model_len = 0;
  const auto cold = std::chrono::steady_clock::now();
  TRY_ASSIGN(Session session, StartSession(flags.model, options));
  const double cold_start_s = Seconds(cold);
  TRY(RunRequests(session, 1, kDecodePrompt, 4, 1));  // touches every weight once
  const int64_t resident_bytes = ResidentBytes();

  Machine machine(options.load.threads);
  const Sizes sizes = SizesOf(*session.model.program);
  // Each run measures the limit right beside what is held to it: shares are of the same moment.
  std::vector<double> bandwidths, fma_peaks, int8_peaks, decode_rates, decode_shares, prefill_rates,
      prefill_shares;
  std::map<int, std::vector<double>> batch_rates;
  uint64_t seed = 2;
  for (int run = 0; run < flags.runs; ++run) {
    if (!flags.json) fmt::print(stderr, "run {} of {}\n", run + 1, flags.runs);
    bandwidths.push_back(machine.ReadBandwidth());
    fma_peaks.push_back(machine.FmaPeak());
    int8_peaks.push_back(machine.Int8Peak());
    for (const int sequences : {1, 8, 32}) {
      TRY_ASSIGN(const double rate, DecodeRate(session, sequences, seed++));
      batch_rates[sequences].push_back(rate);
    }
    decode_rates.push_back(batch_rates[1].back());
    decode_shares.push_back(decode_rates.back() * sizes.matrix_bytes / bandwidths.back());
    TRY_ASSIGN(const Timing prefill, RunRequests(session, 1, kPrefillTokens, 1, seed++));
    prefill_rates.push_back(kPrefillTokens / prefill.done_s);
    if (fma_peaks.back() > 0)
      prefill_shares.push_back(prefill_rates.back() * sizes.prefill_flops / fma_peaks.back());
  }
  return Json{
      {"model", session.model.name},
      {"threads", options.load.threads},
      {"runs", flags.runs},
      {"read_bandwidth_bytes_s", Median(bandwidths)},
      {"fma_peak_flops_s", Median(fma_peaks)},
      {"int8_peak_ops_s", Median(int8_peaks)},
      {"matrix_bytes", static_cast<int64_t>(sizes.matrix_bytes)},
      {"decode_tok_s", Median(decode_rates)},
      {"decode_share_of_bandwidth", Median(decode_shares)},
      {"decode_8_tok_s", Median(batch_rates[8])},
      {"decode_32_tok_s", Median(batch_rates[32])},
      {"prefill_512_tok_s", Median(prefill_rates)},
      {"prefill_share_of_peak", prefill_shares.empty() ? Json() : Json(Median(prefill_shares))},
      {"cold_start_s", cold_start_s},
      {"resident_bytes", resident_bytes}};
}

void PrintTable(const Json& result) {
  auto number = [&](const char* key) {
    return result[key].is_null() ? 0.0 : result[key].get<double>();
  };
  fmt::print("{}, {} threads, medians of {} runs\n\n", result["model"].get<std::string>(),
             result["threads"].get<int>(), result["runs"].get<int>());
  fmt::print("machine      read {:.1f} GB/s, f32 {:.0f} Gflop/s, int8 {:.0f} Gop/s\n",
             number("read_bandwidth_bytes_s") / 1e9, number("fma_peak_flops_s") / 1e9,
             number("int8_peak_ops_s") / 1e9);
  fmt::print("decode       {:.1f} tok/s, {:.0f}% of the bandwidth ({} of weights a step)\n",
             number("decode_tok_s"), 100 * number("decode_share_of_bandwidth"),
             FormatSize(result["matrix_bytes"].get<int64_t>()));
  fmt::print("  batch 8    {:.1f} tok/s\n  batch 32   {:.1f} tok/s\n", number("decode_8_tok_s"),
             number("decode_32_tok_s"));
  fmt::print("prefill 512  {:.1f} tok/s, {:.0f}% of the f32 peak\n", number("prefill_512_tok_s"),
             100 * number("prefill_share_of_peak"));
  fmt::print("cold start   {:.2f} s\nresident     {}\n", number("cold_start_s"),
             FormatSize(result["resident_bytes"].get<int64_t>()));
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
  command->add_option("model", flags->model, "Model folder or compiled file")->required();
  command->add_option("--runs", flags->runs, "Runs, of which medians are told")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON object instead of a table");
  AddCompileFlags(*command, flags->shared);
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Bench(*flags); };
}

}  // namespace millpower::cli
