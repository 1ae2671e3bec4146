// Tells every engine what is leased to whom, as leases begin and end.
#pragma once

#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "ledger/ledger.h"
#include "serve/models.h"

namespace millpower::serve {

// What is leased at a time, by tenant.
std::vector<engine::CallerShare> SharesAt(const ledger::Directory& directory, int64_t unix_s);

class LeaseKeeper {
 public:
  using Tell = std::function<void(const std::vector<engine::CallerShare>&)>;
  // Looks once a second, so that a lease begins and ends within one, and models that were loaded
  // meanwhile hear of it too. `tell_others`, if there is one, hears it as the engines of `models`
  // do. All outlive it.
  LeaseKeeper(const ledger::Ledger& ledger, const ModelRegistry& models, const Clock& clock,
              std::chrono::milliseconds pause = std::chrono::seconds(1),
              Tell tell_others = nullptr);
  ~LeaseKeeper();

 private:
  void Look();

  const ledger::Ledger& ledger_;
  const ModelRegistry& models_;
  const Clock& clock_;
  const Tell tell_others_;
  bool told_ = false;  // that there are leases, so that their end is told too
  std::jthread thread_;
};

}  // namespace millpower::serve
