// What /metrics says, in Prometheus' text form. All names begin with "millpower_"; docs/serve.md
// lists them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "engine/engine.h"
#include "serve/exchange.h"
#include "serve/models.h"

namespace millpower::ledger {
class Ledger;
}

namespace millpower::serve {

// What is measured of one model: its engine tells what happens in it, the API what becomes of
// requests. Outlives the engine. Thread-safe.
class ModelMetrics final : public engine::Observer {
 public:
  ModelMetrics();
  ~ModelMetrics() override;

  void OnQueued(int64_t waited_ns) override;
  void OnFirstToken(int64_t since_submit_ns) override;
  void OnNextToken(int64_t since_last_ns) override;
  void OnStep(int64_t sequences, int64_t rows, int64_t device_ns, int64_t step_ns) override;

  // A generation is over. `reason`: what the client is told ("stop", "length", "tool_calls"), or
  // "budget", "cancelled", "error". `seconds` since the request arrived.
  void CountFinish(const char* reason, const engine::Usage& usage, double seconds);

  // How many were observed, and what they add up to.
  struct Distribution {
    double sum = 0;
    int64_t count = 0;
  };
  Distribution first_token_seconds() const;
  Distribution inter_token_seconds() const;

  // When a request that found the queue full should come again: after as long as the one that left
  // the queue last had been in it. In 1..60.
  int RetryAfterSeconds() const;

 private:
  friend class Metrics;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Thread-safe.
class Metrics {
 public:
  // `models` outlives this; its engines are asked for their counters at every scrape.
  // `connection_count` likewise.
  // `ledger` too, if there is one.
  Metrics(const ModelRegistry& models, std::string version,
          std::function<int64_t()> connection_count, const ledger::Ledger* ledger = nullptr);
  ~Metrics();

  // An answered request. `route` is one of ours ("chat"), never what a client wrote.
  void CountRequest(const char* route, int status, double seconds);

  // A request that got an error instead of work. `model` is one of ours, or "" if it named none.
  void CountRefusal(const std::string& model, ErrorCode code);

  // Metrics of others, in the same form, made when they are asked for. Before the first Text.
  void AddText(std::function<std::string()> text);

  std::string Text() const;
  HttpResponse Response() const;  // the text, as it is served

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
