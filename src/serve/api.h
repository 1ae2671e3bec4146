// The endpoints: from an Exchange to the engine and back. See docs/api.md for what they promise.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "serve/access.h"
#include "serve/exchange.h"
#include "serve/meter.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/rate_limiter.h"
#include "serve/router.h"

namespace millpower::serve {

// Thread-safe.
class Api {
 public:
  // All outlive this, and the engines of `models` run until it is gone. With a meter, which is then
  // the engines' too, requests need a key of its ledger, and what they use is billed. /metrics is
  // open only without one.
  Api(const ModelRegistry& models, Metrics& metrics, const Clock& clock, Meter* meter = nullptr);
  // Waits until the work of all requests has ended; their clients should be gone or answered.
  ~Api();

  // Where others add their endpoints, before the first Handle.
  Router& router();
  // How they find out who asks.
  const Access& access() const;
  RateLimiter& limiter();

  // GET /v1/models/... of what is no language model goes to `answer`, once the caller is known;
  // false: it is none of theirs either. And the service is ready when `is_ready` says that others'
  // models are, unless a language model is still to come. Before the first Handle.
  struct OtherModels {
    std::function<bool(const std::shared_ptr<Exchange>&, const Caller*, const std::string& path)>
        answer;
    std::function<bool()> is_ready;
  };
  void SetOtherModels(OtherModels others);

  // Returns at once; the exchange is answered now or later, on another thread. A request with a
  // `caller` is made on its behalf by ourselves: it needs no key. That of a batch is of the batch
  // tier and priority.
  void Handle(std::shared_ptr<Exchange> exchange);

  // From now on /health/ready says no, and new work is refused.
  void StartDraining();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
