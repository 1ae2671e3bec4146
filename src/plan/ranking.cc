#include "plan/ranking.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <iterator>
#include <latch>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "ranking/engine.h"

namespace millpower::plan {
namespace {

namespace chip = device::chip;

constexpr const char* kModelName = "model";
constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 2;

int64_t ToNs(double seconds) { return static_cast<int64_t>(seconds * 1e9 + 0.5); }
double ToSeconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

// Inputs of queries: zeros, and offsets of bags that all have as many ids. All queries view the
// same bytes.
class QueryMaker {
 public:
  explicit QueryMaker(const RankingSetup& setup) : setup_(setup) {
    for (const ranking::Port& port : setup.signature.inputs)
      for (const std::string& values : port.offsets_of)
        for (const std::string& symbol : SymbolsOf(values)) per_item_[symbol] = setup.ids_per_bag;
    per_item_[setup.signature.batch] = 1;
  }

  // Errors: kOutOfRange (shapes that are too large to be written down).
  Result<ranking::Request> Make(int64_t items) {
    ranking::Request request;
    for (const ranking::Port& port : setup_.signature.inputs) {
      ranking::InputTensor& tensor = request.inputs.emplace_back();
      int64_t elements = 1;
      for (const Size& size : port.shape) {
        const auto value =
            size.Evaluate([&](const std::string& symbol) { return ValueOf(symbol, items); });
        if (!value || __builtin_mul_overflow(elements, *value, &elements) ||
            elements > kMaxElements)
          return Fail(
              ErrorCode::kOutOfRange,
              "input '" + port.name + "' of " + std::to_string(items) + " items is too large",
              port.name);
        tensor.shape.push_back(*value);
      }
      if (port.is_string) {
        tensor.strings.resize(static_cast<size_t>(elements));
        continue;
      }
      const auto bytes = static_cast<size_t>(elements * SizeBytes(port.dtype));
      tensor.bytes = std::span(BytesOf(port, bytes)).first(bytes);
    }
    return request;
  }

 private:
  using Bytes = std::vector<std::byte>;
  static constexpr int64_t kMaxElements = int64_t{1} << 32;

  std::vector<std::string> SymbolsOf(const std::string& input) const {
    const int index = setup_.signature.FindInput(input);
    if (index < 0) return {};
    const ranking::Port& port = setup_.signature.inputs[static_cast<size_t>(index)];
    return port.shape.empty() ? std::vector<std::string>() : port.shape[0].Symbols();
  }

  std::optional<int64_t> ValueOf(const std::string& symbol, int64_t items) const {
    if (const auto found = per_item_.find(symbol); found != per_item_.end())
      return found->second * items;
    const int32_t reg = setup_.program->FindRegister(symbol);
    if (reg < 0) return std::nullopt;
    return setup_.program->registers[static_cast<size_t>(reg)].max;
  }

  // At least so many bytes that this input begins with. Those that were handed out before stay.
  const Bytes& BytesOf(const ranking::Port& port, size_t bytes) {
    const bool offsets = !port.offsets_of.empty();
    auto& kept = offsets ? offsets_[port.dtype] : zeros_;
    if (kept.empty() || kept.back()->size() < bytes) {
      kept.push_back(std::make_unique<Bytes>(std::max<size_t>(2 * bytes, 4096)));
      if (offsets) FillOffsets(port.dtype, *kept.back());
    }
    return *kept.back();
  }

  void FillOffsets(DType dtype, Bytes& bytes) const {
    const auto size = static_cast<size_t>(SizeBytes(dtype));
    for (size_t i = 0; (i + 1) * size <= bytes.size(); ++i) {
      // Little-endian: the lower bytes of an i64 are an i32.
      const int64_t offset = static_cast<int64_t>(i) * setup_.ids_per_bag;
      std::memcpy(bytes.data() + i * size, &offset, std::min(size, sizeof offset));
    }
  }

  const RankingSetup& setup_;
  std::map<std::string, int64_t> per_item_;  // symbols that grow with the candidates
  std::vector<std::unique_ptr<Bytes>> zeros_;
  std::map<DType, std::vector<std::unique_ptr<Bytes>>> offsets_;
};

// The users. Queries come at their own times, as alarms of the virtual clock, in the thread of the
// engine, be it waiting or in a launch. So every run is the same to the bit.
class Users {
 public:
  Users(const RankingSetup& setup, const Workload& workload, VirtualClock& clock)
      : setup_(setup), workload_(workload), clock_(clock), maker_(setup) {
    const size_t count = workload.requests.size();
    answered_.resize(count);
    if (workload.concurrency == 0) ExpectArrival(0);
    next_ = std::min(count, static_cast<size_t>(workload.concurrency));
    for (size_t i = 0; i < next_; ++i) clock_.At(0, [this, i] { Ask(i); });
  }

  // Until all are answered. In the caller's thread.
  Result<void> Run(ranking::Engine& engine, ranking::ModelPtr model) {
    engine_ = &engine;
    model_ = std::move(model);
    is_ready_.count_down();
    std::unique_lock lock(mutex_);
    over_.wait(lock, [&] { return error_ || done_ == answered_.size(); });
    if (error_) return std::unexpected(*error_);
    return {};
  }

  std::vector<Answered> Take() { return std::move(answered_); }

 private:
  void ExpectArrival(size_t index) {
    if (index == workload_.requests.size()) return;
    clock_.At(ToNs(workload_.requests[index].at_s), [this, index] {
      ExpectArrival(index + 1);
      Ask(index);
    });
  }

  void Ask(size_t index) {
    is_ready_.wait();  // the model's thread runs before Load has returned the model
    const int32_t items = workload_.requests[index].input;
    answered_[index].arrived_s = ToSeconds(clock_.NowNs());
    answered_[index].items = items;
    auto request = maker_.Make(items);
    if (!request) return End(request.error());
    const auto submitted = engine_->Submit(
        model_, *std::move(request),
        [this, index](const Result<ranking::Answer>& answer) { See(index, answer); });
    if (!submitted) End(submitted.error());
  }

  void See(size_t index, const Result<ranking::Answer>& answer) {
    if (!answer) return End(answer.error());
    answered_[index].done_s = ToSeconds(clock_.NowNs());
    answered_[index].chip_s = ToSeconds(answer->device_ns);
    if (workload_.concurrency > 0 && next_ < workload_.requests.size())
      clock_.At(clock_.NowNs() + ToNs(setup_.turnaround_s), [this, i = next_++] { Ask(i); });
    const std::lock_guard lock(mutex_);
    if (++done_ == workload_.requests.size()) over_.notify_all();
  }

  void End(const Error& error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
    over_.notify_all();
  }

  const RankingSetup& setup_;
  const Workload& workload_;
  VirtualClock& clock_;
  ranking::Engine* engine_ = nullptr;
  ranking::ModelPtr model_;

  std::latch is_ready_{1};

  // Of the engine's thread alone, until all is over.
  QueryMaker maker_;
  size_t next_ = 0;  // of a closed loop
  std::vector<Answered> answered_;

  std::mutex mutex_;
  std::condition_variable over_;
  size_t done_ = 0;
  std::optional<Error> error_;
};

// Adds what one replica did.
Result<void> RankOnReplica(const RankingSetup& setup, const Workload& workload, bool is_first,
                           RankingResult& result) {
  VirtualClock clock;
  Users users(setup, workload, clock);
  chip::ChipOptions options;
  options.chip = setup.chip;
  options.expand.routing = setup.routing;
  options.clock = &clock;
  const bool is_told = is_first && setup.on_launch != nullptr;
  options.with_spans = is_told;
  options.on_launch = [&](const chip::LaunchReport& report) {
    result.Add(report);
    if (is_told) setup.on_launch(report);
  };
  const auto device = chip::MakeChipDevice(std::move(options));
  ranking::Engine engine(*device, clock);
  TRY_ASSIGN(ranking::ModelPtr model,
             engine.Load({.name = kModelName,
                          .program = setup.program,
                          .weights = {},
                          .signature = setup.signature,
                          .config = {.max_batch = setup.max_batch,
                                     .max_queue_delay_us = setup.max_queue_delay_us,
                                     .max_queue = kNoLimit,
                                     .max_queue_bytes = kNoLimit,
                                     .warm_up = false}}));
  TRY(users.Run(engine, std::move(model)));
  std::ranges::move(users.Take(), std::back_inserter(result.requests));
  return {};
}

}  // namespace

Result<RankingResult> SimulateRanking(const RankingSetup& setup, const Workload& workload) {
  if (setup.ranks != 1)
    return Fail(
        ErrorCode::kUnsupported,
        "a recommender runs on one chip, its tables are not split; more chips are replicas");
  RankingResult result;
  TRY_ASSIGN(result.footprint, chip::FootprintOn(setup.chip, *setup.program));
  for (int replica = 0; replica < setup.replicas; ++replica) {
    const Workload share = ShareOf(workload, replica, setup.replicas);
    if (!share.requests.empty()) TRY(RankOnReplica(setup, share, replica == 0, result));
  }
  result.seconds = SecondsOf(result.requests);
  result.joules = result.Joules(setup, result.seconds);
  return result;
}

}  // namespace millpower::plan
