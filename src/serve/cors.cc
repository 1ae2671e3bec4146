#include "serve/cors.h"

#include <fmt/format.h>

#include <algorithm>

namespace millpower::serve {
namespace {

constexpr size_t kRequestedHeadersMaxBytes = 2048;
constexpr int kPreflightSeconds = 600;  // how long a browser may remember the answer

// A list of header names, which can be repeated as it is.
bool IsHeaderList(std::string_view text) {
  return text.size() <= kRequestedHeadersMaxBytes && std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == ',' || c == ' ';
         });
}

}  // namespace

Result<void> CheckOrigin(std::string_view origin) {
  if (origin == "*") return {};
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!origin.starts_with(scheme)) continue;
    const std::string_view host = origin.substr(scheme.size());
    if (!host.empty() && std::ranges::all_of(host, [](char c) {
          return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                 c == ':' || c == '[' || c == ']';
        }))
      return {};
  }
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("'{}' is not an origin; write for example https://example.org or *, in "
                          "lower case, without a path",
                          origin),
              "cors-origin");
}

std::string CorsHeaders(const std::vector<std::string>& allowed, std::string_view origin,
                        const std::string* preflight_headers) {
  if (allowed.empty()) return "";
  const bool any = std::ranges::find(allowed, "*") != allowed.end();
  // Caches must not give one page's answer to another.
  std::string headers = any ? "" : "vary: origin\r\n";
  if (origin.empty() || (!any && std::ranges::find(allowed, origin) == allowed.end()))
    return headers;
  headers += fmt::format("access-control-allow-origin: {}\r\n", any ? "*" : origin);
  if (preflight_headers == nullptr)
    return headers +
           "access-control-expose-headers: x-request-id, retry-after, "
           "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
           "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
           "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens\r\n";
  headers += fmt::format(
      "access-control-allow-methods: GET, HEAD, POST, DELETE, OPTIONS\r\n"
      "access-control-max-age: {}\r\n",
      kPreflightSeconds);
  // Clients have many of their own (x-stainless-...), and "*" would not cover Authorization.
  if (!preflight_headers->empty() && IsHeaderList(*preflight_headers))
    headers += fmt::format("access-control-allow-headers: {}\r\n", *preflight_headers);
  return headers;
}

}  // namespace millpower::serve
