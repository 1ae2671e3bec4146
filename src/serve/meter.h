// Between the engines and the ledger: what a request may use, and what it did use.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "ledger/ledger.h"
#include "serve/caller.h"

namespace millpower::serve {

// Output that is held at first, and each time a generation needs more. Short answers hold little,
// which a small cap still covers; long ones ask the ledger once in 256 tokens.
inline constexpr int64_t kFirstSliceTokens = 64;
inline constexpr int64_t kNextSliceTokens = 256;

inline int64_t FirstSliceOf(int64_t max_tokens) {
  return max_tokens < kFirstSliceTokens ? max_tokens : kFirstSliceTokens;
}

// One request of the engine's: a choice.
struct MeteredRequest {
  std::string id;
  int64_t prompt_tokens = 0;  // that it pays for: 0 where another choice pays for the same prompt
  int64_t max_tokens = 0;
};

// One API request: all of its choices are held, or none.
struct MeteredCall {
  std::shared_ptr<const Caller> caller;  // not null
  std::string api_request_id;
  std::string model;
  std::string endpoint;  // "chat"
  ledger::Tier tier = ledger::Tier::kOnDemand;
  std::vector<MeteredRequest> requests;
};

// One request to a model that ranks: it is held, then posted or abandoned.
struct MeteredInference {
  std::shared_ptr<const Caller> caller;  // not null
  std::string id;                        // unique for ever
  std::string model;
  std::string endpoint;  // "inference"
  ledger::Tier tier = ledger::Tier::kOnDemand;
  int64_t candidates = 1;
};

// The hooks of all engines of a server. A request is held (Hold), then submitted or abandoned; from
// Submit on the engine tells what becomes of it. Thread-safe; never waits. May be destroyed while
// the ledger still answers.
class Meter final : public engine::Hooks {
 public:
  // `ledger` outlives it. `grid_g_per_kwh`: what the electricity costs the air, in grams of CO2
  // equivalent; usage has it beside its energy, where the device models that.
  explicit Meter(ledger::Ledger& ledger, double grid_g_per_kwh = 0);
  ~Meter() override;

  ledger::Ledger& ledger() const { return ledger_; }

  // Holds prompt and first slice of every choice; `done` as the ledger's: on its writer's thread,
  // when that is durable. A line of a batch that was posted before runs without a hold, and is not
  // posted again. Errors, after which nothing is held: the ledger's; kUnavailable (an id is under
  // way), which is told at once.
  void Hold(const MeteredCall& call, ledger::Ledger::Done done);

  // A request that was held will not be submitted, or its Submit has failed: it is voided, unless
  // the engine has admitted it and so tells its end. Unknown ids are ignored.
  void Abandon(const std::string& id);

  // Holds an inference and its candidates; errors and `done` as those of Hold.
  void HoldInference(const MeteredInference& inference, ledger::Ledger::Done done);
  // It was answered, with so much of the device's time and energy; `posted` as Finish's.
  void PostInference(const std::string& id, int64_t device_ns, int64_t energy_uj,
                     std::function<void(Result<void>)> posted);

  // What the client is told is an error, which costs nothing: whatever the engine tells of it, it
  // is voided. Unknown ids are ignored.
  void Waive(const std::string& id);

  // engine::Hooks. Errors of Admit: kInternal (never held).
  Result<int64_t> Admit(const engine::Request& request) override;
  void Extend(const std::string& id, const engine::Usage& so_far,
              std::function<void(Result<int64_t>)> answer) override;
  // Posts what was used and is told to the client; voids what failed, and what used nothing.
  void Finish(const std::string& id, const engine::Usage& usage, engine::FinishReason reason,
              std::function<void(Result<void>)> posted) override;

 private:
  struct State;

  ledger::Energy EnergyOf(int64_t energy_uj) const;

  ledger::Ledger& ledger_;
  const double grid_g_per_kwh_;
  const std::shared_ptr<State> state_;
};

}  // namespace millpower::serve
