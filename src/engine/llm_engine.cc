#include "engine/llm_engine.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <unordered_set>

#include "base/check.h"
#include "engine/scheduler.h"
#include "isa/sampling.h"

namespace millpower::engine {
namespace {

// Where a language model's Program keeps what the engine gives and takes, by index.
struct Ports {
  int32_t rows, seqs, picked, adjusts, page_entries, pages;  // registers
  int32_t tokens, positions, sequences, page_list, picked_rows, sampling, adjust_tokens,
      adjustments;  // inputs
  int32_t sampled;  // output

  static Result<Ports> Find(const isa::Program& program) {
    Ports ports{};
    const std::pair<const char*, int32_t*> registers[] = {{"rows", &ports.rows},
                                                          {"seqs", &ports.seqs},
                                                          {"picked", &ports.picked},
                                                          {"adjusts", &ports.adjusts},
                                                          {"page_entries", &ports.page_entries},
                                                          {"pages", &ports.pages}};
    const std::pair<const char*, int32_t*> buffers[] = {{"tokens", &ports.tokens},
                                                        {"positions", &ports.positions},
                                                        {"sequences", &ports.sequences},
                                                        {"pages", &ports.page_list},
                                                        {"picked_rows", &ports.picked_rows},
                                                        {"sampling", &ports.sampling},
                                                        {"adjust_tokens", &ports.adjust_tokens},
                                                        {"adjustments", &ports.adjustments},
                                                        {"sampled", &ports.sampled}};
    for (const auto& [name, index] : registers)
      if ((*index = program.FindRegister(name)) < 0) return Missing("register", name);
    for (const auto& [name, index] : buffers)
      if ((*index = program.FindBuffer(name)) < 0) return Missing("buffer", name);
    const isa::Buffer& sampled = program.buffers[static_cast<size_t>(ports.sampled)];
    const bool kinds =
        sampled.kind == isa::BufferKind::kOutput && sampled.rows.reg == ports.picked &&
        sampled.cols == isa::kSampleRecordWords && program.FactOr("vocab_size", 0) > 0 &&
        program.FactOr("max_positions", 0) > 0;
    if (!kinds) return Missing("fact or output", "of sampling");
    return ports;
  }

 private:
  static std::unexpected<Error> Missing(const std::string& what, const std::string& name) {
    return Fail(ErrorCode::kUnsupported,
                "the Program is no language model: it has no " + what + " '" + name + "'");
  }
};

std::unexpected<Error> BadParam(const char* param, std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message), param);
}

// A century: as long as anyone waits, and the clock can still add it to now.
constexpr int64_t kForeverNs = int64_t{100} * 365 * 86400 * 1'000'000'000;

class LlmEngine final : public Engine {
 public:
  LlmEngine(std::unique_ptr<device::LoadedProgram> program, const Ports& ports,
            const LlmOptions& options, const EngineLimits& limits,
            const SchedulerLimits& scheduler_limits)
      : program_(std::move(program)),
        ports_(ports),
        eos_ids_(options.eos_ids.begin(), options.eos_ids.end()),
        limits_(limits),
        launch_(program_->program()),
        scheduler_(scheduler_limits, static_cast<int32_t>(program_->LoadRegister(ports.pages))),
        thread_([this] { Loop(); }) {}

  ~LlmEngine() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      cancel_all_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  const EngineLimits& limits() const override { return limits_; }
  Result<void> Submit(Request request, Sink sink) override;
  void Cancel(const std::string& id) override;
  EngineStats Stats() const override;
  void Drain(int64_t timeout_ns) override;

 private:
  Result<void> Check(const Request& request) const;

  // The engine's thread.
  void Loop();
  bool TakeMail();
  void CancelMarked();
  void Step();
  void BuildLaunch(const std::vector<Share>& shares);
  void AddSampling(const Sequence& sequence, int32_t position);
  void TakeResults(const std::vector<Share>& shares);
  void TakePromptRow(Sequence& sequence, int32_t position, const int32_t* record);
  void TakeToken(Sequence& sequence, const int32_t* record);
  void Deliver(Sequence* sequence);
  void Finish(Sequence* sequence);
  void FailAll(const std::vector<Share>& shares, const Error& error);
  void Publish();

  const std::unique_ptr<device::LoadedProgram> program_;
  const Ports ports_;
  const std::unordered_set<int32_t> eos_ids_;
  const EngineLimits limits_;

  // Mail from other threads, and what they read.
  mutable std::mutex mutex_;
  std::condition_variable wake_;  // mail for the engine
  std::condition_variable idle_;  // nothing is live
  std::vector<std::unique_ptr<Sequence>> arrived_;
  std::vector<std::string> to_cancel_;
  std::unordered_set<std::string> ids_;  // of all live requests
  int64_t queued_ = 0;                   // requests that have not been given a step yet
  int64_t next_order_ = 0;
  bool stopping_ = false;    // refuse requests
  bool cancel_all_ = false;  // and end those that live
  EngineStats stats_;
  std::random_device entropy_;

  // Touched by the engine's thread only.
  device::Launch launch_;
  Scheduler scheduler_;
  EngineStats counts_;

  std::thread thread_;  // last: starts when all else is there
};

// --- called from any thread ---

Result<void> LlmEngine::Check(const Request& request) const {
  const SamplingParams& sampling = request.sampling;
  auto in = [](double value, double low, double high) { return value >= low && value <= high; };
  if (request.prompt.empty()) return BadParam("prompt", "the prompt is empty");
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= limits_.vocab_size)
      return BadParam("prompt", "token id " + std::to_string(token) +
                                    " is not below the vocabulary's size, " +
                                    std::to_string(limits_.vocab_size));
  if (!in(sampling.temperature, 0, 100)) return BadParam("temperature", "must be in 0..100");
  if (!(sampling.top_p > 0) || !in(sampling.top_p, 0, 1))
    return BadParam("top_p", "must be above 0 and at most 1");
  if (!in(sampling.min_p, 0, 1)) return BadParam("min_p", "must be in 0..1");
  if (sampling.max_tokens < 0) return BadParam("max_tokens", "must not be negative");
  if (sampling.logprobs < -1 || sampling.logprobs > kMaxTopLogprobs)
    return BadParam("logprobs", "must be in 0.." + std::to_string(kMaxTopLogprobs));
  const auto prompt_size = static_cast<int64_t>(request.prompt.size());
  const bool generates = sampling.max_tokens > 0;
  if (prompt_size + (generates ? 1 : 0) > limits_.max_model_len)
    return Fail(ErrorCode::kOutOfRange,
                "the prompt has " + std::to_string(prompt_size) + " tokens; this model's context " +
                    "holds " + std::to_string(limits_.max_model_len) +
                    ", one of them for the answer",
                "prompt");
  return {};
}

Result<void> LlmEngine::Submit(Request request, Sink sink) {
  TRY(Check(request));
  auto sequence = std::make_unique<Sequence>();
  sequence->prompt_size = static_cast<int32_t>(request.prompt.size());
  sequence->tokens = request.prompt;
  if (request.sampling.prompt_logprobs)
    sequence->delta.prompt.push_back({request.prompt[0], 0, {}});  // nothing comes before it
  sequence->sink = std::move(sink);
  sequence->request = std::move(request);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Fail(ErrorCode::kUnavailable, "the server is shutting down");
    if (queued_ >= limits_.max_queue)
      return Fail(
          ErrorCode::kNoCapacity,
          "the queue is full (" + std::to_string(limits_.max_queue) + " requests are waiting)");
    if (!ids_.insert(sequence->request.id).second)
      return BadParam("id", "request id '" + sequence->request.id + "' is in use");
    ++queued_;
    sequence->order = next_order_++;
    sequence->seed =
        sequence->request.sampling.seed.value_or(uint64_t{entropy_()} << 32 | uint64_t{entropy_()});
    arrived_.push_back(std::move(sequence));
    ++stats_.requests_waiting;
  }
  wake_.notify_all();
  return {};
}

void LlmEngine::Cancel(const std::string& id) {
  {
    const std::lock_guard lock(mutex_);
    if (!ids_.contains(id)) return;
    to_cancel_.push_back(id);
  }
  wake_.notify_all();
}

EngineStats LlmEngine::Stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void LlmEngine::Drain(int64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  const auto nothing_live = [this] { return ids_.empty(); };
  const std::chrono::nanoseconds timeout(std::min(timeout_ns, kForeverNs));
  if (idle_.wait_for(lock, timeout, nothing_live)) return;
  cancel_all_ = true;
  wake_.notify_all();
  idle_.wait(lock, nothing_live);
}

// --- the engine's thread ---

void LlmEngine::Loop() {
  while (TakeMail()) {
    CancelMarked();
    Step();
    Publish();
  }
}

// Waits until there is something to do. False: stopping, and nothing is left.
bool LlmEngine::TakeMail() {
  std::vector<std::unique_ptr<Sequence>> arrived;
  std::vector<std::string> to_cancel;
  bool cancel_all = false;
  {
    std::unique_lock lock(mutex_);
    const bool busy = scheduler_.running() + scheduler_.waiting() > 0;
    wake_.wait(lock, [&] { return busy || !arrived_.empty() || cancel_all_; });
    if (cancel_all_ && stopping_ && arrived_.empty() && !busy) return false;
    arrived.swap(arrived_);
    to_cancel.swap(to_cancel_);
    cancel_all = cancel_all_;
  }
  for (auto& sequence : arrived) scheduler_.Add(std::move(sequence));
  for (const std::string& id : to_cancel)
    if (Sequence* sequence = scheduler_.Find(id)) sequence->cancelled = true;
  if (cancel_all)
    for (Sequence* sequence : scheduler_.Live()) sequence->cancelled = true;
  return true;
}

void LlmEngine::CancelMarked() {
  for (Sequence* sequence : scheduler_.Live()) {
    if (!sequence->cancelled) continue;
    sequence->delta = Delta{};  // a part of the prompt's logprobs is of no use
    sequence->delta.finish = FinishReason::kCancelled;
    Deliver(sequence);
  }
}

void LlmEngine::Step() {
  const std::vector<Share>& shares = scheduler_.Plan();
  if (shares.empty()) return;
  BuildLaunch(shares);
  const auto ticket = program_->Submit(launch_);
  if (!ticket) return FailAll(shares, ticket.error());
  const auto completion = program_->Complete(*ticket);
  if (!completion) return FailAll(shares, completion.error());
  counts_.device_busy_ns += completion->device_ns;
  ++counts_.steps;
  TakeResults(shares);
}

void LlmEngine::BuildLaunch(const std::vector<Share>& shares) {
  auto input = [&](int32_t buffer) -> std::vector<int32_t>& {
    return launch_.inputs[static_cast<size_t>(buffer)];
  };
  for (auto& values : launch_.inputs) values.clear();
  int32_t row = 0;
  for (const Share& share : shares) {
    const Sequence& sequence = *share.sequence;
    auto& pages = input(ports_.page_list);
    auto& work = input(ports_.sequences);
    work.insert(work.end(),
                {row, share.count, sequence.computed, static_cast<int32_t>(pages.size())});
    pages.insert(pages.end(), sequence.pages.begin(), sequence.pages.end());
    for (int32_t i = 0; i < share.count; ++i, ++row) {
      const int32_t position = sequence.computed + i;
      input(ports_.tokens).push_back(sequence.tokens[static_cast<size_t>(position)]);
      input(ports_.positions).push_back(position);
      if (i < share.count - share.picked) continue;
      input(ports_.picked_rows).push_back(row);
      AddSampling(sequence, position);
    }
  }
  auto set = [&](int32_t reg, size_t value) {
    launch_.registers[static_cast<size_t>(reg)] = static_cast<int64_t>(value);
  };
  set(ports_.rows, static_cast<size_t>(row));
  set(ports_.seqs, shares.size());
  set(ports_.picked, input(ports_.picked_rows).size());
  set(ports_.adjusts, input(ports_.adjust_tokens).size());
  set(ports_.page_entries, input(ports_.page_list).size());
}

// What to draw from the logits of one position: the next token, or, inside the prompt, the
// likelihood of the one that is there.
void LlmEngine::AddSampling(const Sequence& sequence, int32_t position) {
  const SamplingParams& params = sequence.request.sampling;
  const int32_t next = position + 1;
  int32_t words[isa::kSampleParamWords] = {};
  words[isa::kSampleTemperature] = isa::WordOf(params.temperature);
  words[isa::kSampleTopP] = isa::WordOf(params.top_p);
  words[isa::kSampleMinP] = isa::WordOf(params.min_p);
  words[isa::kSampleTopK] = params.top_k;
  words[isa::kSampleSeedLow] = static_cast<int32_t>(sequence.seed);
  words[isa::kSampleSeedHigh] = static_cast<int32_t>(sequence.seed >> 32);
  words[isa::kSampleCounter] = next - sequence.prompt_size;
  words[isa::kSampleLogprobs] = params.logprobs;
  words[isa::kSampleTarget] = -1;
  if (next < sequence.size()) {
    words[isa::kSampleTarget] = sequence.tokens[static_cast<size_t>(next)];
    words[isa::kSampleLogprobs] = std::max(params.logprobs, 0);
  }
  auto& sampling = launch_.inputs[static_cast<size_t>(ports_.sampling)];
  sampling.insert(sampling.end(), std::begin(words), std::end(words));
}

TokenInfo ReadRecord(const int32_t* record) {
  TokenInfo info{record[isa::kRecordToken], isa::FloatOf(record[isa::kRecordLogprob]), {}};
  for (int32_t i = 0; i < record[isa::kRecordCount]; ++i)
    info.top.push_back(
        {record[isa::kRecordIds + i], isa::FloatOf(record[isa::kRecordLogprobs + i])});
  return info;
}

void LlmEngine::TakeResults(const std::vector<Share>& shares) {
  const auto* record = reinterpret_cast<const int32_t*>(program_->Output(ports_.sampled).data());
  const std::vector<Share> done = shares;  // delivering may end sequences, not this list
  for (const Share& share : done) {
    Sequence& sequence = *share.sequence;
    const int32_t first_picked = sequence.computed + share.count - share.picked;
    sequence.computed += share.count;
    const int32_t of_prompt = std::min(sequence.computed, sequence.prompt_size);
    counts_.prompt_tokens += std::max(0, of_prompt - sequence.prompt_counted);
    sequence.prompt_counted = std::max(sequence.prompt_counted, of_prompt);
    for (int32_t i = 0; i < share.picked; ++i, record += isa::kSampleRecordWords) {
      const int32_t position = first_picked + i;
      if (position + 1 < sequence.size())
        TakePromptRow(sequence, position, record);
      else if (sequence.request.sampling.max_tokens > 0)
        TakeToken(sequence, record);
      else
        sequence.delta.finish = FinishReason::kLength;
    }
    if (share.completes) Deliver(&sequence);
  }
}

void LlmEngine::TakePromptRow(Sequence& sequence, int32_t position, const int32_t* record) {
  if (position + 1 >= sequence.prompt_size || position < sequence.prompt_logprobs_done) return;
  sequence.delta.prompt.push_back(ReadRecord(record));
  sequence.prompt_logprobs_done = position + 1;
}

void LlmEngine::TakeToken(Sequence& sequence, const int32_t* record) {
  const SamplingParams& params = sequence.request.sampling;
  sequence.delta.tokens.push_back(ReadRecord(record));
  const int32_t token = record[isa::kRecordToken];
  sequence.tokens.push_back(token);
  ++counts_.generated_tokens;
  const bool stops = (!params.ignore_eos && eos_ids_.contains(token)) ||
                     std::ranges::find(params.stop_token_ids, token) != params.stop_token_ids.end();
  if (stops)
    sequence.delta.finish = FinishReason::kStop;
  else if (sequence.generated() >= params.max_tokens || sequence.size() >= limits_.max_model_len)
    sequence.delta.finish = FinishReason::kLength;
}

// Hands out what has come together, and ends the sequence if that was all.
void LlmEngine::Deliver(Sequence* sequence) {
  Delta& delta = sequence->delta;
  delta.usage = {sequence->prompt_size, 0, sequence->generated()};
  const Verdict verdict = sequence->sink(delta);
  const bool cancelled = delta.finish == FinishReason::kCancelled || verdict == Verdict::kCancel;
  const bool finished = delta.finish.has_value() || verdict != Verdict::kContinue;
  delta = Delta{};
  if (!finished) return;
  if (cancelled) ++counts_.requests_cancelled;
  Finish(sequence);
}

void LlmEngine::Finish(Sequence* sequence) {
  ++counts_.requests_finished;
  const std::unique_ptr<Sequence> taken = scheduler_.Remove(sequence);
  const std::lock_guard lock(mutex_);
  ids_.erase(taken->request.id);
  std::erase(to_cancel_, taken->request.id);  // its successor in name is another request
}

void LlmEngine::FailAll(const std::vector<Share>& shares, const Error& error) {
  const std::vector<Share> failed = shares;
  for (const Share& share : failed) {
    share.sequence->delta = Delta{};
    share.sequence->delta.finish = FinishReason::kError;
    share.sequence->delta.error = error;
    Deliver(share.sequence);
  }
}

void LlmEngine::Publish() {
  counts_.requests_running = scheduler_.running();
  counts_.kv_pages_total = scheduler_.pool().count();
  counts_.kv_pages_used = scheduler_.pool().count() - scheduler_.pool().free_count();
  const std::lock_guard lock(mutex_);
  queued_ = scheduler_.waiting() + static_cast<int64_t>(arrived_.size());
  counts_.requests_waiting = queued_;
  stats_ = counts_;
  if (ids_.empty()) idle_.notify_all();
}

// `asked`, or `limit` when it is 0; an option above the limit is an error.
Result<int32_t> Limit(const char* option, int64_t asked, int64_t limit) {
  if (asked == 0) return static_cast<int32_t>(limit);
  if (asked > 0 && asked <= limit) return static_cast<int32_t>(asked);
  return BadParam(option, std::string(option) + " is " + std::to_string(asked) +
                              "; this model and its KV memory allow 1 to " + std::to_string(limit));
}

}  // namespace

Result<std::unique_ptr<Engine>> StartLlmEngine(std::unique_ptr<device::LoadedProgram> loaded,
                                               const LlmOptions& options) {
  const isa::Program& program = loaded->program();
  TRY_ASSIGN(const Ports ports, Ports::Find(program));
  auto max = [&](int32_t reg) { return program.registers[static_cast<size_t>(reg)].max; };
  const int64_t kv_positions = loaded->LoadRegister(ports.pages) * isa::kPagePositions;
  EngineLimits limits;
  SchedulerLimits scheduler;
  limits.vocab_size = static_cast<int32_t>(program.FactOr("vocab_size", 0));
  limits.max_queue = options.max_queue;
  TRY_ASSIGN(limits.max_model_len,
             Limit("max_model_len", options.max_model_len,
                   std::min({program.FactOr("max_positions", 0), kv_positions,
                             max(ports.page_entries) * isa::kPagePositions})));
  TRY_ASSIGN(scheduler.max_sequences, Limit("max_num_seqs", options.max_num_seqs,
                                            std::min(max(ports.seqs), max(ports.picked))));
  TRY_ASSIGN(scheduler.max_batch_tokens,
             Limit("max_batch_tokens", options.max_batch_tokens, max(ports.rows)));
  scheduler.max_picked = static_cast<int32_t>(max(ports.picked));
  scheduler.max_page_entries = static_cast<int32_t>(max(ports.page_entries));
  return std::make_unique<LlmEngine>(std::move(loaded), ports, options, limits, scheduler);
}

}  // namespace millpower::engine
