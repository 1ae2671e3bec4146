// The operator's API, on a port of its own that only this machine reaches: which models are loaded,
// loading one, unloading one. See docs/serve.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "serve/model_host.h"

namespace millpower::serve {

inline constexpr size_t kAdminKeyMinBytes = 16;

struct AdminConfig {
  uint16_t port = 8081;  // of 127.0.0.1; 0: any free one
  std::string key;       // at least kAdminKeyMinBytes: what callers must show
  // Not empty: models are loaded from inside this folder only, and relative paths start there.
  std::filesystem::path model_root = {};
};

// 256 random bits, in hexadecimal.
std::string NewAdminKey();

// A path that may be loaded: it exists and, with a root, neither it nor anything in it (where it is
// a folder) leads out of that by ".." or by a link. Errors: kInvalidArgument (param "path").
Result<std::filesystem::path> ResolveModelPath(const std::string& path,
                                               const std::filesystem::path& root);

// The body of a request to load a model. Errors: kInvalidArgument, naming the field.
Result<ModelSpec> ReadModelSpec(const Json& body, const std::filesystem::path& root);

class AdminServer {
 public:
  // `host` outlives it.
  AdminServer(AdminConfig config, ModelHost& host);
  ~AdminServer();  // stops

  // Listens and serves. Call once. Errors: kInvalidArgument (a key that is too short), kNotFound
  // (no such root), kIo.
  Result<void> Start();
  uint16_t port() const;  // valid after Start

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
