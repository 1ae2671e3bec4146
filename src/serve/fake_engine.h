// An engine for tests: says what a script says, one token per step for every live request, on a
// thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
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

  explicit FakeEngine(engine::EngineLimits limits, Script script);
  ~FakeEngine() override;

  // Time between steps; none at first.
  void SetStepDelay(std::chrono::milliseconds delay) { delay_ = delay; }
  // Fails every live request at its next step, once.
  void FailNext() { fail_next_ = true; }

  const engine::EngineLimits& limits() const override { return limits_; }
  Result<void> Submit(engine::Request request, engine::Sink sink) override;
  void Cancel(const std::string& id) override;
  engine::EngineStats Stats() const override;
  void Drain(int64_t timeout_ns) override;

  // The last request submitted.
  engine::Request last_request() const;

 private:
  struct Live {
    engine::Request request;
    engine::Sink sink;
    std::vector<int32_t> tokens;
    size_t position = 0;
    bool cancelled = false;
    engine::Usage usage = {};
  };

  void Loop(std::stop_token stop);
  engine::Delta Step(Live& live);

  const engine::EngineLimits limits_;
  const Script script_;
  std::atomic<std::chrono::milliseconds> delay_{std::chrono::milliseconds(0)};
  std::atomic<bool> fail_next_{false};

  mutable std::mutex mutex_;
  std::map<std::string, Live> live_;
  engine::EngineStats stats_;
  engine::Request last_request_;
  std::jthread thread_;
};

}  // namespace millpower::serve
