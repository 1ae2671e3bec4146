// OpenAI's Files and Batch API. See docs/batches.md for what it promises.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "serve/access.h"
#include "serve/batch/batch_runner.h"
#include "serve/batch/batch_store.h"
#include "serve/router.h"

namespace millpower::ledger {
class Ledger;
}

namespace millpower::serve {

class ModelRegistry;

inline constexpr int64_t kBatchWindowSeconds = 24 * 60 * 60;

struct BatchConfig {
  std::filesystem::path folder;  // exists; the ledger's own
  BatchLimits limits = {};
  RunnerOptions runner = {};
};

// Thread-safe.
class BatchService {
 public:
  using Authenticate =
      std::function<Result<std::shared_ptr<const Caller>>(const HttpRequest&, const char* scope)>;

  // Reads what there is. `clock` outlives it, and what `authenticate` and the ports use.
  // Errors: the store's.
  static Result<std::unique_ptr<BatchService>> Open(const BatchConfig& config,
                                                    Authenticate authenticate, BatchPorts ports,
                                                    const Clock& clock);
  ~BatchService();  // Stop(0)

  // Before the router handles anything; the service outlives the router's last Handle.
  void AddRoutes(Router& router);

  // Goes on with the batches that are not over.
  void Start();
  // As BatchRunner::Stop; files and batches can be asked for until it is destroyed.
  void Stop(std::chrono::milliseconds timeout);

  // In Prometheus' text form.
  std::string MetricsText() const;

 private:
  struct Impl;
  explicit BatchService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The ports of a server: `answer` is the API's Handle; keys and models are looked up as they are
// when a line is asked. A batch runs with the newest key that its own was rotated to. All outlive
// the service.
BatchPorts MakeBatchPorts(std::function<void(std::shared_ptr<Exchange>)> answer,
                          const ledger::Ledger& ledger, const ModelRegistry& models,
                          const Clock& clock);

}  // namespace millpower::serve
