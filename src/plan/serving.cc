#include "plan/serving.h"

#include <algorithm>
#include <condition_variable>
#include <iterator>
#include <limits>
#include <mutex>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/rng.h"
#include "device/pipeline.h"
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

// What the engines of one replica share.
struct Shared {
  const ServingSetup& setup;
  const int64_t kv_pages;                                    // of each engine
  std::function<void(const chip::LaunchReport&)> on_launch;  // thread-safe; may be null
  std::shared_ptr<chip::Turns> turns;                        // null: there is but one
};

// One engine, with the requests that are its own.
class Server {
 public:
  Server(const Shared& shared, int index, Workload workload)
      : shared_(shared),
        index_(index),
        workload_(std::move(workload)),
        users_(shared.setup, workload_, clock_) {}

  Result<void> Serve() {
    const Result<void> served = Run();
    if (shared_.turns) shared_.turns->Leave(index_);
    return served;
  }

  // Adds what it did.
  void AddTo(ServingResult& result) {
    result.Add(totals_);
    result.preemptions += preemptions_;
    std::ranges::move(users_.Take(), std::back_inserter(result.requests));
  }

 private:
  Result<void> Run() {
    TRY_ASSIGN(auto loaded, Load());
    engine::LlmOptions options;
    options.max_queue = std::numeric_limits<int32_t>::max() / 2;
    options.prefix_cache = shared_.setup.prefix_cache;
    options.clock = &clock_;
    TRY_ASSIGN(const auto engine, engine::StartLlmEngine(std::move(loaded), options));
    users_.Use(*engine);
    TRY(users_.Run());
    preemptions_ = engine->Stats().preemptions;
    return {};
  }

  Result<std::unique_ptr<device::LoadedProgram>> Load() {
    const ServingSetup& setup = shared_.setup;
    const device::LoadOptions load{.kv_pages = shared_.kv_pages};
    if (setup.stages.empty()) {
      devices_.push_back(chip::MakeChipDevice(OptionsOf(0)));
      return devices_.back()->Load(setup.program, {}, load);
    }
    std::vector<std::unique_ptr<device::LoadedProgram>> stages;
    for (int stage = 0; stage < setup.stage_count(); ++stage) {
      devices_.push_back(chip::MakeChipDevice(OptionsOf(stage)));
      TRY_ASSIGN(auto loaded,
                 devices_.back()->Load(setup.stages[static_cast<size_t>(stage)], {}, load));
      stages.push_back(std::move(loaded));
    }
    return device::MakePipeline(setup.program, std::move(stages));
  }

  chip::ChipOptions OptionsOf(int stage) {
    const ServingSetup& setup = shared_.setup;
    chip::ChipOptions options;
    options.chip = setup.chip;
    options.expand.ranks = setup.ranks;
    options.expand.routing = setup.routing;
    options.clock = &clock_;
    options.stage = {stage, setup.stage_count(), shared_.turns, index_};
    options.with_spans = shared_.on_launch != nullptr;
    options.on_launch = [this](const chip::LaunchReport& report) {
      totals_.Add(report);
      if (shared_.on_launch) shared_.on_launch(report);
      if (report.stage == 0) began_ns_ = report.start_ns;
      if (report.stage + 1 == shared_.setup.stage_count()) users_.OnTime(began_ns_);
    };
    return options;
  }

  const Shared& shared_;
  const int index_;
  const Workload workload_;
  VirtualClock clock_;
  Users users_;
  ChipTotals totals_;
  int64_t preemptions_ = 0;
  int64_t began_ns_ = 0;  // the launch under way, at the first stage
  std::vector<std::unique_ptr<device::Device>> devices_;
};

// The least room of any stage, in pages of the whole model.
Result<chip::Footprint> LeastRoom(const ServingSetup& setup) {
  if (setup.stages.empty()) return chip::FootprintOn(setup.chip, *setup.program);
  std::optional<chip::Footprint> least;
  for (const auto& stage : setup.stages) {
    TRY_ASSIGN(const chip::Footprint footprint, chip::FootprintOn(setup.chip, *stage));
    if (!least || footprint.kv_pages < least->kv_pages) least = footprint;
  }
  return *least;
}

// All at once, each in a thread of its own.
Result<void> ServeAll(std::deque<Server>& servers) {
  if (servers.size() == 1) return servers.front().Serve();
  std::vector<Result<void>> served(servers.size());
  std::vector<std::jthread> threads;
  for (size_t i = 0; i < servers.size(); ++i)
    threads.emplace_back([&, i] { served[i] = servers[i].Serve(); });
  threads.clear();
  for (Result<void>& one : served) TRY(std::move(one));
  return {};
}

// Adds what one replica did.
Result<void> ServeReplica(const ServingSetup& setup, const Workload& workload, bool is_first,
                          ServingResult& result) {
  const int stages = setup.stage_count();
  std::mutex mutex;
  Shared shared{setup, result.kv_pages / stages, nullptr, nullptr};
  if (stages > 1) shared.turns = std::make_shared<chip::Turns>(stages, stages);
  if (is_first && setup.on_launch != nullptr)
    shared.on_launch = [&](const chip::LaunchReport& report) {
      const std::lock_guard lock(mutex);
      setup.on_launch(report);
    };
  std::deque<Server> servers;
  for (int i = 0; i < stages; ++i) servers.emplace_back(shared, i, ShareOf(workload, i, stages));
  TRY(ServeAll(servers));
  for (Server& server : servers) server.AddTo(result);
  return {};
}

}  // namespace

Result<ServingResult> SimulateServing(const ServingSetup& setup, const Workload& workload) {
  ServingResult result;
  TRY_ASSIGN(result.footprint, LeastRoom(setup));
  const int32_t pages = setup.program->FindRegister("pages");
  if (pages < 0) return Fail(ErrorCode::kUnsupported, "the Program is no language model");
  const auto room =
      static_cast<int64_t>(static_cast<double>(result.footprint.kv_pages) * setup.kv_memory_share);
  result.kv_pages =
      std::clamp<int64_t>(setup.kv_pages > 0 ? setup.kv_pages : room, setup.stage_count(),
                          setup.program->registers[static_cast<size_t>(pages)].max);
  for (int replica = 0; replica < setup.replicas; ++replica) {
    const Workload share = ShareOf(workload, replica, setup.replicas);
    if (!share.requests.empty()) TRY(ServeReplica(setup, share, replica == 0, result));
  }
  result.seconds = SecondsOf(result.requests);
  result.joules = result.Joules(setup, result.seconds);
  return result;
}

}  // namespace millpower::plan
