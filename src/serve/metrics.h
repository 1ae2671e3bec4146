// What /metrics says, in Prometheus' text form. All names begin with "millpower_".
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "serve/models.h"

namespace millpower::serve {

// Thread-safe.
class Metrics {
 public:
  // `models` outlives this; its engines are asked for their counters at every scrape.
  // `connection_count` likewise.
  Metrics(const ModelRegistry& models, std::string version,
          std::function<int64_t()> connection_count);
  ~Metrics();

  // An answered request. `route` is one of ours ("chat"), never what a client wrote.
  void CountRequest(const char* route, int status, double seconds);

  // Of one generation: from the request's arrival to its first token, from one token to the next
  // (`count` tokens that arrived together share the time), from arrival to the end.
  void ObserveFirstToken(const std::string& model, double seconds);
  void ObserveTokens(const std::string& model, int count, double seconds);
  void ObserveGeneration(const std::string& model, double seconds);

  std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
