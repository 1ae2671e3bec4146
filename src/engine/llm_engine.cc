#include "engine/llm_engine.h"

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <random>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "engine/ports.h"
#include "engine/request_check.h"
#include "engine/scheduler.h"
#include "isa/sampling.h"

namespace millpower::engine {
namespace {

// A century: as long as anyone waits, and the clock can still add it to now.
constexpr int64_t kForeverNs = int64_t{100} * 365 * 86400 * 1'000'000'000;

// What hooks answered about the sequence of this order.
struct Granted {
  int64_t order = 0;
  Result<int64_t> tokens;
};
struct Posted {
  int64_t order = 0;
  Result<void> result;
};

// Mail for the engine's thread. Shared with the answers that hooks hold, which may come when the
// engine is gone.
struct Mail {
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::unique_ptr<Sequence>> arrived;
  std::vector<std::string> to_cancel;
  std::vector<Granted> granted;
  std::vector<Posted> posted;
  std::optional<std::vector<CallerShare>> shares;
  bool cancel_all = false;

  bool empty() const {
    return arrived.empty() && to_cancel.empty() && granted.empty() && posted.empty() && !shares &&
           !cancel_all;
  }
};

class LlmEngine final : public Engine {
 public:
  LlmEngine(std::unique_ptr<device::LoadedProgram> program, const Ports& ports,
            const LlmOptions& options, const EngineLimits& limits,
            const SchedulerLimits& scheduler_limits)
      : program_(std::move(program)),
        ports_(ports),
        clock_(options.clock != nullptr ? *options.clock : system_clock_),
        hooks_(options.hooks),
        observer_(options.observer != nullptr ? *options.observer : nobody_),
        ledger_grace_(options.ledger_grace_ns),
        eos_ids_(options.eos_ids),
        is_eos_(options.eos_ids.begin(), options.eos_ids.end()),
        limits_(limits),
        max_adjustments_(scheduler_limits.max_adjustments),
        open_places_(scheduler_limits.max_sequences),
        launch_(program_->program()),
        scheduler_(scheduler_limits),
        thread_([this] { Loop(); }) {}

  ~LlmEngine() override {
    {
      const std::lock_guard lock(mail_->mutex);
      stopping_ = ending_ = cancelling_ = true;
      mail_->cancel_all = true;
    }
    mail_->wake.notify_all();
    thread_.join();
  }

  const EngineLimits& limits() const override { return limits_; }
  Result<void> Submit(Request request, Sink sink) override;
  void Cancel(const std::string& id) override;
  EngineStats Stats() const override;
  void SetShares(std::vector<CallerShare> shares) override;
  void Drain(int64_t timeout_ns) override;

 private:
  Result<void> TakePlace(const std::string& id, const std::string& caller);
  int64_t Queued() const;
  void LeaveQueue(const std::string& caller);

  // The engine's thread.
  void Loop();
  bool TakeMail(bool wait);
  void TakeGrant(const Granted& granted);
  void TakePosted(const Posted& posted);
  void TellPosted(Sequence* sequence, const Result<void>& result);
  void GiveUpOnLedger();
  bool StartStep();
  void Claim();
  void FinishStep();
  void TakeShare(const Share& share, int64_t device_ns, const int32_t* record);
  void TakePromptRow(Sequence& sequence, int32_t position, const int32_t* record);
  void TakeToken(Sequence& sequence, const int32_t* record);
  void AskForMore(Sequence& sequence);
  void FailStep(const Error& error);
  bool Deliver();
  void EndByVerdict();
  void Close(Sequence* sequence, FinishReason reason);
  void CloseEarly(Sequence* sequence, FinishReason reason);
  void CloseWith(Sequence* sequence, const Error& error);
  void Release(Sequence* sequence);
  void Publish();

  const std::unique_ptr<device::LoadedProgram> program_;
  const Ports ports_;
  const SystemClock system_clock_{};
  Observer nobody_;
  const Clock& clock_;
  Hooks* const hooks_;
  Observer& observer_;
  const std::chrono::nanoseconds ledger_grace_;
  const std::vector<int32_t> eos_ids_;
  const std::unordered_set<int32_t> is_eos_;
  const EngineLimits limits_;
  const int32_t max_adjustments_;

  // Of all threads, under the mail's mutex.
  const std::shared_ptr<Mail> mail_ = std::make_shared<Mail>();
  std::condition_variable idle_;                // nothing is live
  std::unordered_map<std::string, bool> live_;  // ids of all live requests; whether cancelled
  // How many requests of each caller with a name have not had a step yet.
  std::unordered_map<std::string, int64_t> queued_;
  int64_t admitting_ = 0;    // requests that the ledger is asked about
  int64_t waiting_ = 0;      // those the engine's thread knows of
  int64_t open_places_ = 0;  // for how many more there is a place
  int64_t next_order_ = 0;
  bool stopping_ = false;    // refuse requests
  bool cancelling_ = false;  // cancel what still comes from before that
  bool ending_ = false;      // leave when none is live
  EngineStats stats_;
  std::random_device entropy_;

  // Touched by the engine's thread only.
  device::Launch launch_;
  Scheduler scheduler_;
  EngineStats counts_;
  device::Ticket ticket_ = 0;
  int64_t step_start_ns_ = 0, step_end_ns_ = 0;
  std::vector<Share> shares_;                        // of the launch under way
  std::vector<Sequence*> outbox_;                    // those whose sinks have something to be told
  std::vector<Sequence*> outgoing_;                  // the same, while they are being told
  std::vector<Sequence*> ended_;                     // those whose sinks want no more
  std::vector<std::unique_ptr<Sequence>> closing_;   // over, but for the ledger and the last delta
  std::vector<std::unique_ptr<Sequence>> released_;  // over
  std::vector<const Sequence*> dequeued_;            // had their first step, or ended before
  bool draining_ = false;                            // what was live has been cancelled
  std::optional<std::chrono::steady_clock::time_point> give_up_at_;  // on the ledger

  std::thread thread_;  // last: starts when all else is there
};

// --- called from any thread ---

Result<void> LlmEngine::Submit(Request request, Sink sink) {
  TRY(CheckRequest(request, limits_));
  auto sequence = std::make_unique<Sequence>();
  std::vector<int32_t> ends = eos_ids_;
  ends.insert(ends.end(), request.sampling.stop_token_ids.begin(),
              request.sampling.stop_token_ids.end());
  sequence->adjustments = Adjustments(request, ends, limits_.vocab_size);
  TRY(CheckAdjustments(request, sequence->adjustments, limits_, max_adjustments_));
  sequence->prompt_size = static_cast<int32_t>(request.prompt.size());
  sequence->tokens = request.prompt;
  if (request.sampling.prompt_logprobs)
    sequence->delta.prompt.push_back({request.prompt[0], 0, {}});  // nothing comes before it
  sequence->sink = std::move(sink);
  sequence->request = std::move(request);
  sequence->submitted_ns = clock_.NowNs();
  const std::string& id = sequence->request.id;
  TRY(TakePlace(id, sequence->request.caller));
  // From here on nothing but the ledger refuses the request.
  Result<int64_t> granted = std::numeric_limits<int64_t>::max();
  if (hooks_ != nullptr) granted = hooks_->Admit(sequence->request);
  sequence->granted = std::max<int64_t>(granted.value_or(0), 0);
  {
    const std::lock_guard lock(mail_->mutex);
    --admitting_;
    if (granted) {
      sequence->cancelled = live_.at(id) || cancelling_;
      sequence->order = next_order_++;
      sequence->seed = sequence->request.sampling.seed.value_or(uint64_t{entropy_()} << 32 |
                                                                uint64_t{entropy_()});
      mail_->arrived.push_back(std::move(sequence));
    } else {
      live_.erase(id);
      LeaveQueue(sequence->request.caller);
      if (live_.empty()) idle_.notify_all();
    }
  }
  mail_->wake.notify_all();
  if (!granted) return std::unexpected(granted.error());
  return {};
}

Result<void> LlmEngine::TakePlace(const std::string& id, const std::string& caller) {
  const std::lock_guard lock(mail_->mutex);
  if (stopping_) return Fail(ErrorCode::kUnavailable, "the server is shutting down");
  if (Queued() >= limits_.max_queue + open_places_)
    return Fail(ErrorCode::kNoCapacity, "the queue is full (" + std::to_string(limits_.max_queue) +
                                            " requests are waiting)");
  // Half of the queue, rounded up, so that nobody fills it alone.
  const int64_t most = (int64_t{limits_.max_queue} + 1) / 2;
  const auto queued = queued_.find(caller);
  if (queued != queued_.end() && queued->second >= most + open_places_)
    return Fail(ErrorCode::kNoCapacity, "the caller has half of the queue (" +
                                            std::to_string(most) + " requests are waiting)");
  if (!live_.emplace(id, false).second) return BadParam("id", "request id '" + id + "' is in use");
  if (!caller.empty()) ++queued_[caller];
  ++admitting_;
  return {};
}

// Under the mail's mutex.
void LlmEngine::LeaveQueue(const std::string& caller) {
  const auto queued = queued_.find(caller);
  if (queued != queued_.end() && --queued->second == 0) queued_.erase(queued);
}

// Requests that are not given a place yet. Under the mail's mutex.
int64_t LlmEngine::Queued() const {
  return admitting_ + waiting_ + static_cast<int64_t>(mail_->arrived.size());
}

void LlmEngine::Cancel(const std::string& id) {
  {
    const std::lock_guard lock(mail_->mutex);
    const auto found = live_.find(id);
    if (found == live_.end() || std::exchange(found->second, true)) return;
    mail_->to_cancel.push_back(id);
  }
  mail_->wake.notify_all();
}

EngineStats LlmEngine::Stats() const {
  const std::lock_guard lock(mail_->mutex);
  EngineStats stats = stats_;
  stats.requests_waiting = Queued();
  return stats;
}

void LlmEngine::SetShares(std::vector<CallerShare> shares) {
  {
    const std::lock_guard lock(mail_->mutex);
    mail_->shares = std::move(shares);
  }
  mail_->wake.notify_all();
}

void LlmEngine::Drain(int64_t timeout_ns) {
  std::unique_lock lock(mail_->mutex);
  stopping_ = true;
  const auto nothing_live = [this] { return live_.empty(); };
  const std::chrono::nanoseconds timeout(std::min(timeout_ns, kForeverNs));
  if (idle_.wait_for(lock, timeout, nothing_live)) return;
  cancelling_ = mail_->cancel_all = true;
  mail_->wake.notify_all();
  idle_.wait(lock, nothing_live);
}

// --- the engine's thread ---

// While a step is under way - a device with threads of its own works on it already - the sinks are
// told what the one before brought. A sink that
// wants no more then has one row too many in the step under way: it pays for the row, but the token
// is never seen, nor counted.
void LlmEngine::Loop() {
  bool wait = true;
  while (TakeMail(wait)) {
    const bool started = StartStep();
    const bool told = Deliver();
    if (started) FinishStep();
    EndByVerdict();
    Publish();
    wait = !started && !told;
  }
}

// With `wait`, until there is mail. False: the engine is to end, and nothing is live.
bool LlmEngine::TakeMail(bool wait) {
  std::vector<std::unique_ptr<Sequence>> arrived;
  std::vector<std::string> to_cancel;
  std::vector<Granted> granted;
  std::vector<Posted> posted;
  std::optional<std::vector<CallerShare>> shares;
  bool cancel_all = false;
  {
    std::unique_lock lock(mail_->mutex);
    const auto over = [&] { return ending_ && live_.empty(); };
    const auto ready = [&] { return !wait || !mail_->empty() || over(); };
    if (give_up_at_)
      mail_->wake.wait_until(lock, *give_up_at_, ready);
    else
      mail_->wake.wait(lock, ready);
    if (over()) return false;
    arrived.swap(mail_->arrived);
    waiting_ += static_cast<int64_t>(arrived.size());
    to_cancel.swap(mail_->to_cancel);
    granted.swap(mail_->granted);
    posted.swap(mail_->posted);
    shares.swap(mail_->shares);
    cancel_all = std::exchange(mail_->cancel_all, false);
  }
  if (shares) scheduler_.SetShares(*shares);
  draining_ |= cancel_all;
  // From here on nothing is live but what waits for the ledger, and what a thread was submitting.
  if (cancel_all || (draining_ && !arrived.empty()))
    give_up_at_ = std::chrono::steady_clock::now() + ledger_grace_;
  for (auto& sequence : arrived) {
    Sequence& added = *sequence;
    scheduler_.Add(std::move(sequence));
    if (added.cancelled)
      CloseEarly(&added, FinishReason::kCancelled);
    else if (added.blocked())
      AskForMore(added);
  }
  for (const Granted& answer : granted) TakeGrant(answer);
  for (const Posted& answer : posted) TakePosted(answer);
  for (const std::string& id : to_cancel)
    if (Sequence* sequence = scheduler_.Find(id)) CloseEarly(sequence, FinishReason::kCancelled);
  if (cancel_all)
    for (Sequence* sequence : scheduler_.Live())
      CloseWith(sequence,
                {ErrorCode::kUnavailable, "the server stops, or lets go of the model", {}});
  if (give_up_at_ && std::chrono::steady_clock::now() >= *give_up_at_) GiveUpOnLedger();
  return true;
}

void LlmEngine::TakeGrant(const Granted& granted) {
  Sequence* const sequence = scheduler_.Find(granted.order);
  if (sequence == nullptr) return;  // over before the answer came
  sequence->asked = false;
  const int64_t more = granted.tokens.value_or(0);
  if (more > 0) {
    sequence->granted += std::min(more, std::numeric_limits<int64_t>::max() - sequence->granted);
    return;
  }
  // A ledger that fails is no cap that is reached.
  if (!granted.tokens && granted.tokens.error().code != ErrorCode::kQuotaExceeded)
    return CloseWith(sequence, granted.tokens.error());
  sequence->grants_ended = true;
  if (sequence->blocked()) CloseEarly(sequence, FinishReason::kBudget);
}

void LlmEngine::TakePosted(const Posted& posted) {
  const auto found = std::ranges::find_if(
      closing_, [&](const auto& sequence) { return sequence->order == posted.order; });
  if (found == closing_.end()) {
    CHECK(draining_) << "a request was posted twice";
    return;  // it was given up
  }
  TellPosted(found->get(), posted.result);
}

void LlmEngine::TellPosted(Sequence* sequence, const Result<void>& result) {
  if (sequence->verdict == FinishReason::kCancelled)
    return Release(sequence);  // has heard the last
  if (!result) {
    sequence->delta.prompt.clear();
    sequence->delta.tokens.clear();
    sequence->delta.finish = FinishReason::kError;
    sequence->delta.error = result.error();
  }
  outbox_.push_back(sequence);
}

void LlmEngine::GiveUpOnLedger() {
  give_up_at_.reset();
  std::vector<Sequence*> waiting;
  for (const auto& sequence : closing_)
    if (std::ranges::find(outbox_, sequence.get()) == outbox_.end())
      waiting.push_back(sequence.get());
  for (Sequence* sequence : waiting)
    TellPosted(sequence, Fail(ErrorCode::kUnavailable, "the ledger did not answer"));
}

// Plans a step and hands it to the device. False: there is nothing to do now.
bool LlmEngine::StartStep() {
  step_start_ns_ = clock_.NowNs();
  shares_ = scheduler_.Plan();
  if (shares_.empty()) return false;
  auto urgent = Priority::kBatch;
  for (const Share& share : shares_) {
    Sequence& sequence = *share.sequence;
    urgent = std::min(urgent, sequence.request.priority);
    // Before the last token it may generate, so that a quick answer costs no step.
    if (share.completes && sequence.granted - sequence.generated() == 1) AskForMore(sequence);
    if (!share.first) continue;
    dequeued_.push_back(&sequence);
    counts_.cached_prompt_tokens += sequence.usage.cached_tokens;
    observer_.OnQueued(step_start_ns_ - sequence.submitted_ns);
  }
  Publish();
  ports_.Write(shares_, launch_);
  Claim();
  const auto ticket = program_->Submit(launch_, static_cast<device::LaunchClass>(urgent));
  if (!ticket) {
    FailStep(ticket.error());
    return false;
  }
  ticket_ = *ticket;
  return true;
}

// Says for whom the launch is.
void LlmEngine::Claim() {
  launch_.claims.clear();
  for (auto share = shares_.begin(); share != shares_.end(); ++share) {
    const Caller* const caller = share->sequence->caller;
    const bool is_first = std::none_of(shares_.begin(), share, [&](const Share& before) {
      return before.sequence->caller->name == caller->name;
    });
    if (!is_first) continue;
    const bool has_lease = caller->lease > 0;
    launch_.claims.push_back({.caller = std::hash<std::string>()(caller->name),
                              .share = has_lease ? caller->lease : scheduler_.rest(),
                              .is_split = !has_lease});
  }
}

void LlmEngine::FinishStep() {
  const auto completion = program_->Complete(ticket_);
  if (!completion) return FailStep(completion.error());
  const int64_t device_ns = completion->device_ns;
  step_end_ns_ = clock_.NowNs();
  counts_.device_busy_ns += device_ns;
  ++counts_.steps;
  int64_t rows = 0, rows_before = 0;
  for (const Share& share : shares_) rows += share.count;
  // Every request pays for its rows. Nanoseconds, and microjoules, that are not a whole one for
  // each row go to whoever's rows reach the next whole one, so that the parts add up to all of it.
  const auto part_of = [&](int64_t all, const Share& share) {
    const auto rest_of = [&](int64_t first_rows) { return all % rows * first_rows / rows; };
    return all / rows * share.count + rest_of(rows_before + share.count) - rest_of(rows_before);
  };
  const auto* record = reinterpret_cast<const int32_t*>(program_->Output(ports_.sampled).data());
  for (const Share& share : shares_) {
    share.sequence->usage.energy_uj += part_of(completion->energy_uj, share);
    const int64_t part = part_of(device_ns, share);
    rows_before += share.count;
    TakeShare(share, part, record);
    record += share.picked * isa::kSampleRecordWords;
  }
  observer_.OnStep(std::ssize(shares_), rows, device_ns, step_end_ns_ - step_start_ns_);
}

void LlmEngine::TakeShare(const Share& share, int64_t device_ns, const int32_t* record) {
  Sequence& sequence = *share.sequence;
  const int32_t first_picked = sequence.computed + share.count - share.picked;
  scheduler_.Computed(share, device_ns);
  sequence.usage.device_ns += device_ns;
  const int64_t of_prompt = std::min(sequence.computed, sequence.prompt_size);
  if (of_prompt > sequence.usage.prompt_tokens) {  // counted once, however often computed
    counts_.prompt_tokens += of_prompt - sequence.usage.prompt_tokens;
    sequence.usage.prompt_tokens = of_prompt;
  }
  if (sequence.verdict) return;  // given while this was computed
  for (int32_t i = 0; i < share.picked; ++i, record += isa::kSampleRecordWords) {
    const int32_t position = first_picked + i;
    if (position + 1 < sequence.size())
      TakePromptRow(sequence, position, record);
    else if (sequence.request.sampling.max_tokens > 0)
      TakeToken(sequence, record);
    else
      sequence.delta.finish = FinishReason::kLength;
  }
  if (!share.completes) return;
  if (sequence.delta.finish)
    Close(&sequence, *sequence.delta.finish);
  else
    outbox_.push_back(&sequence);
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
  sequence.adjustments.Add(token);
  ++sequence.usage.completion_tokens;
  ++counts_.generated_tokens;
  if (sequence.generated() == 1)
    observer_.OnFirstToken(step_end_ns_ - sequence.submitted_ns);
  else
    observer_.OnNextToken(step_end_ns_ - sequence.last_token_ns);
  sequence.last_token_ns = step_end_ns_;
  const bool stops = (!params.ignore_eos && is_eos_.contains(token)) ||
                     std::ranges::find(params.stop_token_ids, token) != params.stop_token_ids.end();
  if (stops)
    sequence.delta.finish = FinishReason::kStop;
  else if (sequence.generated() >= params.max_tokens || sequence.size() >= limits_.max_model_len)
    sequence.delta.finish = FinishReason::kLength;
  else if (sequence.blocked() && sequence.grants_ended)
    sequence.delta.finish = FinishReason::kBudget;
}

void LlmEngine::AskForMore(Sequence& sequence) {
  const int64_t most = std::min<int64_t>(sequence.request.sampling.max_tokens,
                                         limits_.max_model_len - sequence.prompt_size);
  if (sequence.granted >= most || sequence.asked || sequence.grants_ended) return;
  sequence.asked = true;
  hooks_->Extend(sequence.request.id, sequence.usage,
                 [mail = mail_, order = sequence.order](Result<int64_t> answer) {
                   {
                     const std::lock_guard lock(mail->mutex);
                     mail->granted.push_back({order, std::move(answer)});
                   }
                   mail->wake.notify_all();
                 });
}

// The step under way has failed.
void LlmEngine::FailStep(const Error& error) {
  for (const Share& share : shares_) {
    if (share.sequence->verdict) continue;  // its sink has heard the last
    CloseWith(share.sequence, error);
  }
}

// Tells the sinks what there is to tell. False: nothing. Ids are free again once it returns.
bool LlmEngine::Deliver() {
  outgoing_.swap(outbox_);
  for (Sequence* sequence : outgoing_) {
    Delta& delta = sequence->delta;
    delta.usage = sequence->usage;
    const Verdict verdict = sequence->sink(delta);
    delta.prompt.clear();
    delta.tokens.clear();
    if (delta.finish) {
      Release(sequence);
    } else if (verdict != Verdict::kContinue) {
      sequence->verdict =
          verdict == Verdict::kStop ? FinishReason::kStop : FinishReason::kCancelled;
      ended_.push_back(sequence);
    }
  }
  if (outgoing_.empty()) return false;
  outgoing_.clear();
  Publish();
  return true;
}

void LlmEngine::EndByVerdict() {
  for (Sequence* sequence : ended_) Close(sequence, *sequence->verdict);
  ended_.clear();
}

// Ends a sequence between two steps. What came of the last one is still delivered; an unfinished
// part of the prompt's logprobs is of no use.
void LlmEngine::CloseEarly(Sequence* sequence, FinishReason reason) {
  if (std::ranges::find(outbox_, sequence) == outbox_.end()) sequence->delta.prompt.clear();
  Close(sequence, reason);
}

// Ends a sequence by a fault that is not its caller's.
void LlmEngine::CloseWith(Sequence* sequence, const Error& error) {
  sequence->delta.error = error;
  CloseEarly(sequence, FinishReason::kError);
}

// Takes a sequence and its pages out of the schedule. It lives on until the ledger has posted it
// and its sink was told.
void LlmEngine::Close(Sequence* sequence, FinishReason reason) {
  ++counts_.requests_finished;
  if (reason == FinishReason::kCancelled) ++counts_.requests_cancelled;
  std::erase(outbox_, sequence);
  if (!sequence->started) dequeued_.push_back(sequence);
  sequence->delta.finish = reason;
  closing_.push_back(scheduler_.Remove(sequence));
  if (hooks_ != nullptr)
    hooks_->Finish(sequence->request.id, sequence->usage, reason,
                   [mail = mail_, order = sequence->order](Result<void> result) {
                     {
                       const std::lock_guard lock(mail->mutex);
                       mail->posted.push_back({order, std::move(result)});
                     }
                     mail->wake.notify_all();
                   });
  else if (sequence->verdict == FinishReason::kCancelled)
    Release(sequence);
  else
    outbox_.push_back(sequence);
}

void LlmEngine::Release(Sequence* sequence) {
  const auto found = std::ranges::find(closing_, sequence, &std::unique_ptr<Sequence>::get);
  released_.push_back(std::move(*found));
  closing_.erase(found);
}

void LlmEngine::Publish() {
  counts_.requests_running = scheduler_.running();
  counts_.preemptions = scheduler_.preemptions();
  counts_.kv_pages_total = scheduler_.pages().count();
  counts_.kv_pages_used = scheduler_.pages().used();
  counts_.kv_pages_cached = scheduler_.pages().cached();
  {
    const std::lock_guard lock(mail_->mutex);
    waiting_ = scheduler_.waiting();
    open_places_ = scheduler_.open_places();
    stats_ = counts_;
    for (const Sequence* sequence : dequeued_) LeaveQueue(sequence->request.caller);
    for (const auto& sequence : released_) {
      live_.erase(sequence->request.id);
      std::erase(mail_->to_cancel, sequence->request.id);  // its successor is another request
    }
    if (live_.empty()) idle_.notify_all();
  }
  dequeued_.clear();
  released_.clear();  // with their sinks, which may end much else
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
  const int64_t pages = loaded->LoadRegister(ports.pages);
  EngineLimits limits;
  SchedulerLimits scheduler;
  limits.vocab_size = static_cast<int32_t>(program.FactOr("vocab_size", 0));
  limits.max_queue = options.max_queue;
  TRY_ASSIGN(limits.max_model_len,
             Limit("max_model_len", options.max_model_len,
                   std::min(program.FactOr("max_positions", 0),
                            std::min(pages, max(ports.page_entries)) * isa::kPagePositions)));
  TRY_ASSIGN(scheduler.max_sequences, Limit("max_num_seqs", options.max_num_seqs,
                                            std::min(max(ports.seqs), max(ports.picked))));
  TRY_ASSIGN(scheduler.max_batch_tokens,
             Limit("max_batch_tokens", options.max_batch_tokens, max(ports.rows)));
  scheduler.max_sequences = std::min(scheduler.max_sequences, scheduler.max_batch_tokens);
  scheduler.max_picked = static_cast<int32_t>(max(ports.picked));
  scheduler.max_adjustments = static_cast<int32_t>(max(ports.adjusts));
  scheduler.max_page_entries = static_cast<int32_t>(max(ports.page_entries));
  scheduler.pages = static_cast<int32_t>(pages);
  scheduler.prefix_cache = options.prefix_cache;
  std::random_device entropy;
  scheduler.hash_seed = uint64_t{entropy()} << 32 | uint64_t{entropy()};
  return std::make_unique<LlmEngine>(std::move(loaded), ports, options, limits, scheduler);
}

}  // namespace millpower::engine
