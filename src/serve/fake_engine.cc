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

FakeEngine::FakeEngine(engine::EngineLimits limits, Script script, engine::Observer* observer)
    : limits_(limits),
      script_(std::move(script)),
      observer_(observer),
      thread_([this](std::stop_token stop) { Loop(stop); }) {}

FakeEngine::~FakeEngine() { thread_.request_stop(); }

Result<void> FakeEngine::Submit(engine::Request request, engine::Sink sink) {
  std::lock_guard lock(mutex_);
  if (draining_) return Fail(ErrorCode::kUnavailable, "the model is being unloaded");
  if (static_cast<int32_t>(live_.size()) >= limits_.max_queue)
    return Fail(ErrorCode::kNoCapacity, "the queue is full");
  requests_.push_back(request);
  Live live{.request = std::move(request), .sink = std::move(sink), .tokens = {}};
  live.tokens = script_(live.request);
  std::string id = live.request.id;
  live_.emplace(std::move(id), std::move(live));
  return {};
}

void FakeEngine::Cancel(const std::string& id) {
  std::lock_guard lock(mutex_);
  if (const auto found = live_.find(id); found != live_.end()) found->second.cancelled = true;
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

void FakeEngine::Loop(std::stop_token stop) {
  while (!stop.stop_requested()) {
    std::this_thread::sleep_for(std::max(delay_.load(), std::chrono::milliseconds(0)) +
                                std::chrono::microseconds(100));
    std::vector<std::string> ids;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, live] : live_) ids.push_back(id);
    }
    for (const std::string& id : ids) {
      std::unique_lock lock(mutex_);
      Live& live = live_.at(id);
      const engine::Delta delta = Step(live);
      ++stats_.steps;
      stats_.generated_tokens += static_cast<int64_t>(delta.tokens.size());
      lock.unlock();
      const engine::Verdict verdict = live.sink(delta);
      if (verdict == engine::Verdict::kContinue && !delta.finish) continue;
      const bool cancelled =
          verdict == engine::Verdict::kCancel || delta.finish == engine::FinishReason::kCancelled;
      engine::Sink last_sink = std::move(live.sink);  // destroyed without the lock
      lock.lock();
      ++stats_.requests_finished;
      stats_.requests_cancelled += cancelled;
      live_.erase(id);
    }
  }
}

}  // namespace millpower::serve
