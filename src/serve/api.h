// The endpoints: from an Exchange to the engine and back. See docs/api.md for what they promise.
#pragma once

#include <atomic>
#include <memory>

#include "base/clock.h"
#include "serve/exchange.h"
#include "serve/metrics.h"
#include "serve/models.h"

namespace millpower::serve {

// Thread-safe.
class Api {
 public:
  // All outlive this, and the engines of `models` run until it is gone.
  Api(const ModelRegistry& models, Metrics& metrics, const Clock& clock);
  // Waits until the work of all requests has ended; their clients should be gone or answered.
  ~Api();

  // Returns at once; the exchange is answered now or later, on another thread.
  void Handle(std::shared_ptr<Exchange> exchange);

  // From now on /health/ready says no, and new work is refused.
  void StartDraining();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
