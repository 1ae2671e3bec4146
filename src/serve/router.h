// From a method and a path to the function that answers. One table for each port.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/exchange.h"

namespace millpower::serve {

// What stood in a pattern's braces, percent-decoded, in order.
using PathArguments = std::vector<std::string>;

struct Route {
  const char* method;   // "GET", which answers HEAD as well
  const char* pattern;  // "/v1/files/{id}/content"; {id} is one part of the path, {id...} the rest
  const char* name;     // in logs and metrics: "files"
  // Must not block; whoever it passes the exchange to answers it.
  std::function<void(const std::shared_ptr<Exchange>&, const PathArguments&)> handle;
};

// Routes are added before the first Handle, which is thread-safe. Of several that match, the one
// added first is taken.
class Router {
 public:
  void Add(Route route) { routes_.push_back(std::move(route)); }

  // Answers what has no route itself: 404; 405 with `allow`; OPTIONS with 204 and `allow`.
  void Handle(const std::shared_ptr<Exchange>& exchange) const;

 private:
  std::vector<Route> routes_;
};

// The parameters of a query string, "a=1&b=x%20y". Of several of one name the last counts.
class Query {
 public:
  explicit Query(std::string_view query);
  // Null where there is none.
  const std::string* Find(std::string_view name) const;
  std::string Get(std::string_view name, std::string_view otherwise = "") const;
  // All, in order.
  const std::vector<std::pair<std::string, std::string>>& parameters() const { return parameters_; }

 private:
  std::vector<std::pair<std::string, std::string>> parameters_;
};

}  // namespace millpower::serve
