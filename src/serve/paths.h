// Small readings of HTTP that the endpoints share.
#pragma once

#include <string>
#include <string_view>

namespace millpower::serve {

// "%2F" and the like decoded; malformed escapes stay as they are.
std::string PercentDecoded(std::string_view text);

// "application/json; charset=utf-8" is JSON as well.
bool IsJson(std::string_view content_type);

// For a log line: what a client sent, cut off where it is long, without what could break the line.
std::string PrintablePath(std::string_view text);

}  // namespace millpower::serve
