#include "serve/fake_engine.h"

namespace millpower::serve {
namespace {

// Made up, but checkable: -0.5 for the token, -1, -1.5 ... for alternatives 1, 2 ... after it.
engine::TokenInfo MakeInfo(const engine::SamplingParams& sampling, int32_t token) {
  engine::TokenInfo info{.token = token, .logprob = -0.5f, .top = {}};
  for (int32_t i = 0; i < sampling.logprobs; ++i)
    info.top.push_back({token + i, -0.5f - 0.5f * static_cast<float>(i)});
  return info;
}

}  // namespace

FakeEngine::FakeEngine(engine::EngineLimits limits, Script script, engine::Observer* observer,
                       engine::Hooks* hooks)
    : limits_(limits),
      script_(std::move(script)),
      observer_(observer),
      hooks_(hooks),
      thread_([this](std::stop_token stop) { Loop(stop); }) {}

FakeEngine::~FakeEngine() { thread_.request_stop(); }

Result<void> FakeEngine::Submit(engine::Request request, engine::Sink sink) {
  std::lock_guard lock(mutex_);
  if (draining_) return Fail(ErrorCode::kUnavailable, "the model is being unloaded");
  if (static_cast<int32_t>(live_.size()) >= limits_.max_queue)
    return Fail(ErrorCode::kNoCapacity, "the queue is full");
  if (live_.contains(request.id))
    return Fail(ErrorCode::kInvalidArgument, "the id is in use", "id");
  Live live{.request = request, .sink = std::move(sink), .tokens = {}};
  if (hooks_ != nullptr) {
    TRY_ASSIGN(live.granted, hooks_->Admit(request));
  }
  requests_.push_back(std::move(request));
  live.tokens = script_(live.request);
  std::string id = live.request.id;
  live_.emplace(std::move(id), std::move(live));
  return {};
}

void FakeEngine::SetStepDelay(std::chrono::milliseconds delay) {
  std::lock_guard lock(mutex_);
  delay_ = delay;
  is_delay_new_ = true;
  delay_changed_.notify_all();
}

void FakeEngine::Cancel(const std::string& id) {
  std::lock_guard lock(mutex_);
  if (const auto found = live_.find(id); found != live_.end()) found->second.cancelled = true;
  ++cancel_calls_;
}

void FakeEngine::SetShares(std::vector<engine::CallerShare> shares) {
  std::lock_guard lock(mutex_);
  shares_ = std::move(shares);
}

std::vector<engine::CallerShare> FakeEngine::shares() const {
  std::lock_guard lock(mutex_);
  return shares_;
}

engine::EngineStats FakeEngine::Stats() const {
  std::lock_guard lock(mutex_);
  engine::EngineStats stats = stats_;
  stats.requests_running = static_cast<int64_t>(live_.size());
  return stats;
}

void FakeEngine::Drain(int64_t timeout_ns) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout_ns);
  std::unique_lock lock(mutex_);
  draining_ = true;
  while (!live_.empty()) {
    if (std::chrono::steady_clock::now() >= end)
      for (auto& [id, live] : live_) live.cancelled = true;
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    lock.lock();
  }
}

std::vector<engine::Request> FakeEngine::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

engine::Request FakeEngine::last_request() const { return requests().back(); }

engine::Delta FakeEngine::Step(Live& live) {
  engine::Delta delta;
  live.usage.prompt_tokens = static_cast<int64_t>(live.request.prompt.size());
  live.usage.cached_tokens = cached_tokens_;
  if (live.cancelled) {
    delta.finish = engine::FinishReason::kCancelled;
  } else if (fail_next_.exchange(false)) {
    delta.finish = engine::FinishReason::kError;
    delta.error = Error{ErrorCode::kInternal, "the device failed", ""};
  } else {
    const engine::SamplingParams& sampling = live.request.sampling;
    if (live.position == 0 && sampling.prompt_logprobs)
      for (const int32_t token : live.request.prompt)
        delta.prompt.push_back(MakeInfo(sampling, token));
    if (sampling.max_tokens > 0) {
      delta.tokens.push_back(MakeInfo(sampling, live.tokens.at(live.position++)));
      ++live.usage.completion_tokens;
      if (observer_ != nullptr && live.position == 1) observer_->OnFirstToken(1'000'000);
      if (observer_ != nullptr && live.position > 1) observer_->OnNextToken(1'000'000);
    }
    if (static_cast<int32_t>(live.position) == sampling.max_tokens)
      delta.finish = engine::FinishReason::kLength;
    else if (live.position == live.tokens.size())
      delta.finish = engine::FinishReason::kStop;
    else if (live.usage.completion_tokens >= budget_)
      delta.finish = engine::FinishReason::kBudget;
  }
  delta.usage = live.usage;
  return delta;
}

void FakeEngine::AskForMore(const std::string& id, Live& live) {
  live.asked = true;
  hooks_->Extend(id, live.usage, [mail = mail_, id](Result<int64_t> granted) {
    std::lock_guard lock(mail->mutex);
    mail->granted[id] = granted.value_or(0);
  });
}

void FakeEngine::Close(const std::string& id, Live& live, engine::FinishReason reason,
                       std::optional<engine::Delta> last) {
  live.closing = true;
  live.last = std::move(last);
  const auto post = [mail = mail_, id](Result<void> posted) {
    std::lock_guard lock(mail->mutex);
    mail->posted.emplace(id, std::move(posted));
  };
  if (hooks_ == nullptr)
    post({});
  else
    hooks_->Finish(id, live.usage, reason, post);
}

bool FakeEngine::IsOver(const std::string& id, Live& live) {
  Result<void> posted;
  {
    std::lock_guard lock(mail_->mutex);
    const auto node = mail_->posted.extract(id);
    if (!node) return false;
    posted = node.mapped();
    mail_->granted.erase(id);
  }
  if (!live.last) return true;
  if (!posted) {
    live.last->tokens.clear();
    live.last->finish = engine::FinishReason::kError;
    live.last->error = posted.error();
  }
  live.sink(*live.last);
  return true;
}

void FakeEngine::Advance(const std::string& id, Live& live) {
  {
    std::lock_guard lock(mail_->mutex);
    if (const auto node = mail_->granted.extract(id)) {
      live.asked = false;
      live.granted += node.mapped();
      live.refused = node.mapped() == 0;
    }
  }
  std::unique_lock lock(mutex_);
  const bool wants_more = live.request.sampling.max_tokens > live.granted && !live.cancelled;
  const int64_t left = live.granted - live.usage.completion_tokens;
  const bool blocked = wants_more && left <= 0;
  if (wants_more && left <= 1 && !live.asked && !live.refused) AskForMore(id, live);
  if (blocked && !live.refused) return;
  engine::Delta delta;
  if (blocked) {
    delta.finish = engine::FinishReason::kBudget;
    delta.usage = live.usage;
  } else {
    delta = Step(live);
    ++stats_.steps;
    stats_.generated_tokens += static_cast<int64_t>(delta.tokens.size());
  }
  lock.unlock();
  if (delta.finish) {
    const engine::FinishReason reason = *delta.finish;
    return Close(id, live, reason, std::move(delta));
  }
  const engine::Verdict verdict = live.sink(delta);
  if (verdict == engine::Verdict::kCancel)
    Close(id, live, engine::FinishReason::kCancelled, std::nullopt);
  if (verdict == engine::Verdict::kStop) {
    engine::Delta last;
    last.finish = engine::FinishReason::kStop;
    last.usage = live.usage;
    Close(id, live, engine::FinishReason::kStop, std::move(last));
  }
}

void FakeEngine::Pause(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  do {
    is_delay_new_ = false;
  } while (delay_changed_.wait_for(lock, stop, delay_ + std::chrono::microseconds(100),
                                   [this] { return is_delay_new_; }));
}

void FakeEngine::Loop(std::stop_token stop) {
  while (!stop.stop_requested()) {
    Pause(stop);
    std::vector<std::string> ids;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, live] : live_) ids.push_back(id);
    }
    for (const std::string& id : ids) {
      std::unique_lock lock(mutex_);
      Live& live = live_.at(id);
      lock.unlock();
      if (!live.closing) Advance(id, live);
      if (!live.closing || !IsOver(id, live)) continue;
      const bool cancelled = !live.last || live.last->finish == engine::FinishReason::kCancelled;
      const engine::Sink last_sink = std::move(live.sink);  // destroyed without the lock
      lock.lock();
      ++stats_.requests_finished;
      stats_.requests_cancelled += cancelled;
      live_.erase(id);
    }
  }
}

}  // namespace millpower::serve
