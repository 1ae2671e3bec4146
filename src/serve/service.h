// The HTTP service as main() starts and stops it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "serve/models.h"
#include "serve/server.h"

namespace millpower::serve {

// Models may be added to the registry, and removed, at any time; the service is ready while there
// is one. The registry, its engines and the clock outlive the service, and the engines run until it
// is gone.
class Service {
 public:
  Service(HttpConfig config, const ModelRegistry& models, const Clock& clock);
  ~Service();  // Drain(0)

  // Listens and serves. Call once. Errors: kInvalidArgument (the host), kIo (the address is in use
  // or not ours).
  Result<void> Start();

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
