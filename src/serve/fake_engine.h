// An engine for tests: says what a script says, one token per step for every live request, on a
// thread of its own, and asks hooks as the real one does.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace millpower::serve {

// Thread-safe.
class FakeEngine final : public engine::Engine {
 public:
  // The tokens that answer a request. They end with kStop, or with kLength after max_tokens.
  using Script = std::function<std::vector<int32_t>(const engine::Request&)>;

  // `observer` and `hooks` may be null.
  FakeEngine(engine::EngineLimits limits, Script script, engine::Observer* observer = nullptr,
             engine::Hooks* hooks = nullptr);
  ~FakeEngine() override;

  // Time between steps; none at first. It ends the delay that is under way, so that a test can hold
  // an engine still with kForEver until it has seen what it waits for.
  static constexpr std::chrono::milliseconds kForEver = std::chrono::hours(1);
  void SetStepDelay(std::chrono::milliseconds delay);
  // Fails every live request at its next step, once.
  void FailNext() { fail_next_ = true; }
  // Ends every request with kBudget after so many tokens.
  void SetBudget(int64_t tokens) { budget_ = tokens; }
  // What requests find in the prefix cache.
  void SetCachedTokens(int64_t count) { cached_tokens_ = count; }

  const engine::EngineLimits& limits() const override { return limits_; }
  Result<void> Submit(engine::Request request, engine::Sink sink) override;
  void Cancel(const std::string& id) override;
  engine::EngineStats Stats() const override;
  void SetShares(std::vector<engine::CallerShare> shares) override;
  void Drain(int64_t timeout_ns) override;

  // All requests submitted, and the last of them.
  std::vector<engine::Request> requests() const;
  engine::Request last_request() const;
  // Those set last.
  std::vector<engine::CallerShare> shares() const;
  // How often Cancel was called.
  int64_t cancel_calls() const { return cancel_calls_; }

 private:
  // What hooks answered; they may do so when the engine is gone.
  struct Mail {
    std::mutex mutex;
    std::map<std::string, int64_t> granted;  // by request id; 0: no more
    std::map<std::string, Result<void>> posted;
  };
  struct Live {
    engine::Request request;
    engine::Sink sink;
    std::vector<int32_t> tokens;
    size_t position = 0;
    bool cancelled = false;
    engine::Usage usage = {};
    int64_t granted = INT64_MAX;
    bool asked = false, refused = false;  // for more
    // Over, but not posted yet: the delta for then; none if the sink has heard the last.
    bool closing = false;
    std::optional<engine::Delta> last = std::nullopt;
  };

  void Loop(std::stop_token stop);
  void Pause(std::stop_token stop);
  // The engine's thread alone changes what is live, so that references stay good without the lock.
  void Advance(const std::string& id, Live& live);
  engine::Delta Step(Live& live);
  void AskForMore(const std::string& id, Live& live);
  void Close(const std::string& id, Live& live, engine::FinishReason reason,
             std::optional<engine::Delta> last);
  // Whether a closing request is posted, and so over.
  bool IsOver(const std::string& id, Live& live);

  const engine::EngineLimits limits_;
  const Script script_;
  engine::Observer* const observer_;
  engine::Hooks* const hooks_;
  const std::shared_ptr<Mail> mail_ = std::make_shared<Mail>();
  std::atomic<bool> fail_next_{false};
  std::atomic<int64_t> budget_{INT64_MAX};
  std::atomic<int64_t> cached_tokens_{0};
  std::atomic<int64_t> cancel_calls_{0};

  mutable std::mutex mutex_;
  std::map<std::string, Live> live_;
  engine::EngineStats stats_;
  std::vector<engine::Request> requests_;
  std::vector<engine::CallerShare> shares_;
  bool draining_ = false;
  std::chrono::milliseconds delay_{0};
  bool is_delay_new_ = false;
  std::condition_variable_any delay_changed_;
  std::jthread thread_;
};

}  // namespace millpower::serve
