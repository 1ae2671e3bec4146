// Speaks to the admin API of a server on this machine.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "base/json.h"
#include "base/result.h"

namespace millpower::cli::admin {

// Errors of all functions: kIo (nobody answers), kInvalidArgument (no key; what the server refuses,
// in its words).
class Client {
 public:
  // `key_file` as ReadAdminKey takes it.
  Client(uint16_t port, std::string key_file) : port_(port), key_file_(std::move(key_file)) {}

  Result<Json> Get(const std::string& path) const;
  Result<Json> Post(const std::string& path, const Json& body) const;
  // A body that is no JSON.
  Result<Json> PostBytes(const std::string& path, std::string body) const;
  Result<Json> Patch(const std::string& path, const Json& body) const;
  Result<Json> Delete(const std::string& path) const;
  // As it comes: invoices and CSV.
  Result<std::string> GetText(const std::string& path) const;

  // By id, by "TENANT/NAME", or by a name that no other has. The answer is the id.
  Result<std::string> ResolveProject(const std::string& text) const;
  // By id, by the visible prefix of its secret, or by a name that no other active key has.
  Result<std::string> ResolveKey(const std::string& text) const;

 private:
  struct Body {
    const char* type = "application/json";
    std::string bytes = {};
  };
  Result<std::string> Exchange(const char* method, const std::string& path, Body body) const;

  const uint16_t port_;
  const std::string key_file_;
};

std::string PercentEncoded(const std::string& text);

// "?a=1&b=2" of those that are not empty; "" of none.
std::string QueryOf(std::initializer_list<std::pair<const char*, std::string>> parameters);

}  // namespace millpower::cli::admin
