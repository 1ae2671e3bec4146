// The operator's API, on a port of its own that only this machine reaches: models, tenants, keys,
// prices, invoices. See docs/rental.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "serve/model_host.h"
#include "serve/server.h"

namespace millpower::ledger {
class Ledger;
}

namespace millpower::serve {

class Api;
class InferenceApi;
class Metrics;

inline constexpr size_t kAdminKeyMinBytes = 16;

struct AdminConfig {
  uint16_t port = 8081;  // of 127.0.0.1; 0: any free one
  std::string key;       // at least kAdminKeyMinBytes: what callers must show
  // Not empty: models are loaded from inside this folder only, and relative paths start there.
  std::filesystem::path model_root = {};
  size_t body_bytes_max = HttpLimits().body_bytes_max;  // of what goes on to the Api
};

// 256 random bits, in hexadecimal.
std::string NewAdminKey();

// A path that may be loaded: it exists and, with a root, neither it nor anything in it (where it is
// a folder) leads out of that by ".." or by a link. Errors: kInvalidArgument (param "path").
Result<std::filesystem::path> ResolveModelPath(const std::string& path,
                                               const std::filesystem::path& root);

// The body of a request to load a model. Errors: kInvalidArgument, naming the field.
Result<ModelSpec> ReadModelSpec(const Json& body, const std::filesystem::path& root);

// What it has besides models; all outlive it, and any may be null.
struct AdminParts {
  ledger::Ledger* ledger = nullptr;   // null: what is about renting answers 503
  Api* api = nullptr;                 // answers what is not ours, with the keys of tenants
  const Metrics* metrics = nullptr;   // GET /metrics, with the admin key
  InferenceApi* inference = nullptr;  // what IsOperatorPath says, with the admin key
  const Clock* clock = nullptr;       // null: the system's
};

class AdminServer {
 public:
  // `host` outlives it.
  AdminServer(AdminConfig config, ModelHost& host, const AdminParts& parts = {});
  ~AdminServer();  // stops

  // Listens and serves. Call once. Errors: kInvalidArgument (a key that is too short), kNotFound
  // (no such root), kIo.
  Result<void> Start();
  uint16_t port() const;  // valid after Start

  // Stops accepting and lets what is being answered end, as HttpServer's.
  void Drain(std::chrono::milliseconds timeout);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
