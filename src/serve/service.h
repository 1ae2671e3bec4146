// The HTTP service as main() starts and stops it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "serve/api.h"
#include "serve/batch/batch_service.h"
#include "serve/inference/inference_api.h"
#include "serve/meter.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/server.h"

namespace millpower::serve {

// Models may be added to the registry, and removed, at any time; the service is ready while there
// is one. The registry, its engines and the clock outlive the service, and the engines run until it
// is gone.
class Service {
 public:
  // `meter` may be null: then it is open to all. It outlives the service and all engines, whose
  // hooks it is.
  Service(HttpConfig config, const ModelRegistry& models, const Clock& clock,
          Meter* meter = nullptr);
  ~Service();  // Drain(0)

  // Serves files and batches as well, which needs a meter. Before Start, once. Errors: those of
  // BatchService::Open.
  Result<void> OpenBatches(const BatchConfig& config);
  // Goes on with the batches that are not over: when the models are there, and OpenBatches went
  // well.
  void StartBatches();

  // Serves the models of a ranking engine as well. Before Start, once; the engine outlives the
  // service.
  InferenceApi& OpenInference(ranking::Engine& engine, InferenceConfig config);

  // More for /metrics, as Metrics::AddText. Before Start.
  void AddMetrics(std::function<std::string()> text);

  // Listens and serves. Call once. Errors: kInvalidArgument (the host), kIo (the address is in use
  // or not ours).
  Result<void> Start();

  // For other modules, which add routes before Start, and for other ports, which answer the same
  // requests; both are gone before the service.
  Api& api();
  const Metrics& metrics() const;

  // The port it listens on, chosen by the kernel if the config says 0; valid after Start.
  uint16_t port() const;

  // Stops accepting, refuses new work, waits until the requests being served are answered or
  // `timeout` has passed, then cuts off and cancels the rest. Idempotent.
  void Drain(std::chrono::milliseconds timeout);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
