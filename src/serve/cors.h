// Cross-origin resource sharing (Fetch Standard, section 3.2): which web pages' scripts may use the
// server from a browser.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower::serve {

// "https://example.org", "http://localhost:3000", or "*" for any. Errors: kInvalidArgument.
Result<void> CheckOrigin(std::string_view origin);

// The header lines, CRLF included, that let a page from `origin` see an answer; none if it may not.
// `allowed`: origins as CheckOrigin takes them. `preflight_headers`: of an OPTIONS request that
// asks before another, the Access-Control-Request-Headers; nullptr for all others.
std::string CorsHeaders(const std::vector<std::string>& allowed, std::string_view origin,
                        const std::string* preflight_headers);

}  // namespace millpower::serve
