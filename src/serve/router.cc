#include "serve/router.h"

#include <algorithm>
#include <optional>

#include "serve/errors.h"
#include "serve/paths.h"

namespace millpower::serve {
namespace {

// The first part of a path, taken off it: "/a/b" gives "a" and leaves "/b".
std::string_view TakePart(std::string_view& path) {
  path.remove_prefix(1);
  const std::string_view part = path.substr(0, path.find('/'));
  path.remove_prefix(part.size());
  return part;
}

std::optional<PathArguments> Match(std::string_view pattern, std::string_view path) {
  PathArguments arguments;
  while (pattern.starts_with('/') && path.starts_with('/')) {
    const std::string_view wanted = TakePart(pattern);
    if (wanted.ends_with("...}")) {
      if (path.size() < 2) return std::nullopt;
      arguments.push_back(PercentDecoded(path.substr(1)));
      return arguments;
    }
    const std::string_view part = TakePart(path);
    if (wanted.starts_with('{') && !part.empty())
      arguments.push_back(PercentDecoded(part));
    else if (wanted != part)
      return std::nullopt;
  }
  if (!pattern.empty() || !path.empty()) return std::nullopt;
  return arguments;
}

}  // namespace

void Router::Handle(const std::shared_ptr<Exchange>& exchange) const {
  const HttpRequest& request = exchange->request();
  const std::string_view method =
      request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
  std::string allow;
  for (const Route& route : routes_) {
    const auto arguments = Match(route.pattern, request.path);
    if (!arguments) continue;
    if (allow.empty()) exchange->SetRoute(route.name);
    if (method == route.method) {
      exchange->SetRoute(route.name);
      return route.handle(exchange, *arguments);
    }
    if (allow.find(route.method) != allow.npos) continue;
    allow += route.method;
    allow += std::string_view(route.method) == "GET" ? ", HEAD, " : ", ";
  }
  if (allow.empty()) {
    exchange->Reply(ErrorResponse(HttpFault::kNoSuchPath, "no such path: " + request.path));
    return;
  }
  allow += "OPTIONS";
  if (method == "OPTIONS") {
    exchange->Reply({.status = 204, .body = {}, .headers = {{"allow", allow}}});
    return;
  }
  HttpResponse response =
      ErrorResponse(HttpFault::kMethodNotAllowed, request.path + " takes only " + allow);
  response.headers.emplace_back("allow", allow);
  exchange->Reply(std::move(response));
}

Query::Query(std::string_view query) {
  while (!query.empty()) {
    const std::string_view one = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), one.size() + 1));
    const size_t equals = std::min(one.find('='), one.size());
    const auto decoded = [](std::string_view text) {
      std::string spaced(text);
      std::ranges::replace(spaced, '+', ' ');
      return PercentDecoded(spaced);
    };
    if (!one.empty())
      parameters_.emplace_back(decoded(one.substr(0, equals)),
                               decoded(one.substr(std::min(one.size(), equals + 1))));
  }
}

const std::string* Query::Find(std::string_view name) const {
  const auto found = std::find_if(parameters_.rbegin(), parameters_.rend(),
                                  [&](const auto& each) { return each.first == name; });
  return found == parameters_.rend() ? nullptr : &found->second;
}

std::string Query::Get(std::string_view name, std::string_view otherwise) const {
  const std::string* found = Find(name);
  return found == nullptr ? std::string(otherwise) : *found;
}

}  // namespace millpower::serve
