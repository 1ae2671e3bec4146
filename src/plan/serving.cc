#include "plan/serving.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/rng.h"
#include "engine/llm_engine.h"

namespace millpower::plan {
namespace {

namespace chip = device::chip;

constexpr double kNs = 1e-9;

int64_t ToNs(double seconds) { return static_cast<int64_t>(seconds * 1e9 + 0.5); }

// The users: they hand requests to the engine when their time has come, and note what they see.
//
// Virtual time moves only while a launch completes, and when nothing is live. So requests that come
// during a launch are handed over at its end, by the engine's thread; when nothing is live, the
// next one is handed over alone, and those that come with it at the end of the launch which it
// starts. That way every run is the same to the bit.
class Users {
 public:
  Users(const ServingSetup& setup, const Workload& workload, VirtualClock& clock)
      : setup_(setup), workload_(workload), clock_(clock) {
    const size_t first =
        workload.concurrency > 0
            ? std::min(workload.requests.size(), static_cast<size_t>(workload.concurrency))
            : workload.requests.size();
    for (size_t i = 0; i < first; ++i)
      due_.push_back(workload.concurrency > 0 ? 0 : ToNs(workload.requests[i].at_s));
  }

  void Use(engine::Engine& engine) { engine_ = &engine; }

  // Until all are served. In the caller's thread.
  Result<void> Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      idle_.wait(lock, [&] { return live_ == 0; });
      if (error_) return std::unexpected(*error_);
      if (next_ == due_.size()) return {};
      clock_.AdvanceTo(due_[next_]);
      const size_t index = next_++;
      ++live_;
      lock.unlock();
      Submit(index);
      lock.lock();
    }
  }

  // A launch has ended. In the engine's thread.
  void OnTime(int64_t start_ns) {
    const int64_t until_ns = setup_.plans_ahead ? start_ns : clock_.NowNs();
    while (true) {
      size_t index = 0;
      {
        const std::lock_guard lock(mutex_);
        if (error_ || next_ == due_.size() || due_[next_] > until_ns) return;
        index = next_++;
        ++live_;
      }
      Submit(index);
    }
  }

  std::vector<Served> Take() { return std::move(served_); }

 private:
  std::vector<int32_t> Prompt(size_t index) const {
    const Arrival& arrival = workload_.requests[index];
    const auto vocab = static_cast<uint64_t>(engine_->limits().vocab_size);
    std::vector<int32_t> tokens(static_cast<size_t>(arrival.input));
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool shared =
          arrival.prefix_group >= 0 && i < static_cast<size_t>(arrival.prefix_tokens);
      const uint64_t stream = shared ? Mix64(static_cast<uint64_t>(arrival.prefix_group) + 1)
                                     : Mix64(index + (uint64_t{1} << 40));
      tokens[i] = static_cast<int32_t>(RandomBits(setup_.seed ^ stream, i) % vocab);
    }
    return tokens;
  }

  void Submit(size_t index) {
    const Arrival& arrival = workload_.requests[index];
    engine::Request request;
    request.id = std::to_string(index);
    request.prompt = Prompt(index);
    request.sampling.temperature = 1;
    request.sampling.seed = setup_.seed + index;
    request.sampling.max_tokens = arrival.output;
    request.sampling.ignore_eos = true;
    {
      const std::lock_guard lock(mutex_);
      if (served_.size() <= index) served_.resize(index + 1);
      served_[index].arrived_s = static_cast<double>(due_[index]) * kNs;
      served_[index].input = arrival.input;
    }
    const auto submitted =
        engine_->Submit(std::move(request),
                        [this, index](const engine::Delta& delta) { return See(index, delta); });
    if (submitted) return;
    const std::lock_guard lock(mutex_);
    error_ = submitted.error();
    Leave();
  }

  // In the engine's thread, while the launch after the one that made these tokens is under way: the
  // clock still stands where that one ended.
  engine::Verdict See(size_t index, const engine::Delta& delta) {
    const std::lock_guard lock(mutex_);
    Served& served = served_[index];
    const double now_s = static_cast<double>(clock_.NowNs()) * kNs;
    if (served.output == 0 && !delta.tokens.empty()) served.first_token_s = now_s;
    served.output += static_cast<int32_t>(delta.tokens.size());
    if (delta.finish) {
      served.done_s = now_s;
      served.cached = static_cast<int32_t>(delta.usage.cached_tokens);
      served.chip_s = static_cast<double>(delta.usage.device_ns) * kNs;
      if (delta.error && !error_) error_ = *delta.error;
      if (workload_.concurrency > 0 && due_.size() < workload_.requests.size())
        due_.push_back(clock_.NowNs() + ToNs(setup_.turnaround_s));
      Leave();
    }
    return engine::Verdict::kContinue;
  }

  void Leave() {
    if (--live_ == 0) idle_.notify_all();
  }

  const ServingSetup& setup_;
  const Workload& workload_;
  VirtualClock& clock_;
  engine::Engine* engine_ = nullptr;

  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<int64_t> due_;  // when request i comes; of a closed loop, as far as it is known
  size_t next_ = 0;
  int64_t live_ = 0;
  std::vector<Served> served_;
  std::optional<Error> error_;
};

}  // namespace

Result<ServingResult> SimulateServing(const ServingSetup& setup, const Workload& workload) {
  ServingResult result;
  VirtualClock clock;
  Users users(setup, workload, clock);
  chip::ChipOptions options;
  options.chip = setup.chip;
  options.expand.ranks = setup.ranks;
  options.expand.routing = setup.routing;
  options.clock = &clock;
  options.with_spans = setup.on_launch != nullptr;
  double chip_joules = 0;
  options.on_launch = [&](const chip::LaunchReport& report) {
    const chip::LaunchTime& time = *report.time;
    ++result.steps;
    result.busy_s += static_cast<double>(report.end_ns - report.start_ns) * kNs;
    for (size_t unit = 0; unit < chip::kUnitCount; ++unit) {
      result.unit_busy_s[unit] += time.busy_s[unit];
      result.unit_joules[unit] += time.unit_joules[unit];
      chip_joules += time.unit_joules[unit];
    }
    for (size_t op = 0; op < isa::kOpcodeCount; ++op) {
      result.by_opcode[op].instructions += time.by_opcode[op].instructions;
      result.by_opcode[op].seconds += time.by_opcode[op].seconds;
      result.by_opcode[op].joules += time.by_opcode[op].joules;
    }
    result.traffic += time.traffic;
    if (setup.on_launch) setup.on_launch(report);
    users.OnTime(report.start_ns);
  };
  TRY_ASSIGN(result.footprint, chip::FootprintOn(setup.chip, *setup.program));
  const int32_t pages = setup.program->FindRegister("pages");
  if (pages < 0) return Fail(ErrorCode::kUnsupported, "the Program is no language model");
  const auto room =
      static_cast<int64_t>(static_cast<double>(result.footprint.kv_pages) * setup.kv_memory_share);
  result.kv_pages = std::clamp<int64_t>(setup.kv_pages > 0 ? setup.kv_pages : room, 1,
                                        setup.program->registers[static_cast<size_t>(pages)].max);
  const auto chip_device = chip::MakeChipDevice(std::move(options));
  TRY_ASSIGN(auto loaded, chip_device->Load(setup.program, {}, {.kv_pages = result.kv_pages}));
  engine::LlmOptions engine_options;
  engine_options.max_queue = std::numeric_limits<int32_t>::max() / 2;
  engine_options.prefix_cache = setup.prefix_cache;
  engine_options.clock = &clock;
  TRY_ASSIGN(const auto engine, engine::StartLlmEngine(std::move(loaded), engine_options));
  users.Use(*engine);
  TRY(users.Run());
  result.preemptions = engine->Stats().preemptions;
  result.requests = users.Take();
  double last = 0, first = std::numeric_limits<double>::infinity();
  for (const Served& served : result.requests) {
    first = std::min(first, served.arrived_s);
    last = std::max(last, served.done_s);
  }
  result.seconds = last - first;
  result.joules = setup.ranks * (chip_joules + setup.chip.idle_w.value * result.seconds);
  return result;
}

}  // namespace millpower::plan
