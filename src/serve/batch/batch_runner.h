// Runs batches: asks each line of an input file as a request of its tenant's, of batch priority,
// and records the answers. What it knows is on the disk (BatchStore), so that it goes on where a
// process that died left off.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "serve/batch/batch_store.h"
#include "serve/caller.h"
#include "serve/exchange.h"

namespace millpower::serve {

struct RunnerOptions {
  // Of all tenants, and at most half of them of one while another has a line to ask. Enough to fill
  // the steps of a small machine; what more would wait in the queue of the engine, where lines of
  // one batch would stand before those of another.
  int lines_in_flight_max = 16;
  // After an answer that says "later" (429, 503) the batch's lines wait, twice as long each time.
  int64_t backoff_first_ns = 1'000'000'000;
  int64_t backoff_max_ns = 60'000'000'000;
  // Answers that come within this time of each other are written together.
  int64_t gather_ns = 20'000'000;
  // How often it looks at the clock while there are batches.
  std::chrono::milliseconds poll{200};
};

// What the runner asks of the server.
struct BatchPorts {
  // Answers a request, now or later, on any thread; returns at once (Api::Handle).
  std::function<void(std::shared_ptr<Exchange>)> answer;
  // The caller on whose behalf the lines are asked, as things are now; null: the key is unknown.
  std::function<std::shared_ptr<const Caller>(const Owner&)> caller_of;
  // Whether the caller may have answers of a model. Errors: kNotFound; kUnavailable (no price).
  std::function<Result<void>(const Caller&, const std::string& model)> check_model;
  // Whether some of the credit of the caller's tenant is held for requests under way.
  std::function<bool(const Caller&)> holds_credit;
};

// Since the start.
struct RunnerStats {
  int64_t completed = 0, failed = 0;  // lines
  int64_t retried = 0;                // answers that said "later"
  int64_t in_flight = 0;              // now
};

// Thread-safe.
class BatchRunner {
 public:
  // `store` and `clock` outlive it, and what the ports use.
  BatchRunner(BatchStore& store, BatchPorts ports, const Clock& clock,
              const RunnerOptions& options = {});
  ~BatchRunner();  // Stop(0)

  void Start();
  // A batch was added or cancelled.
  void Wake();
  // Asks no more; waits until what is asked is answered or `timeout` has passed, and gives up the
  // rest, which is asked again after the next start. Idempotent.
  void Stop(std::chrono::milliseconds timeout);

  RunnerStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
