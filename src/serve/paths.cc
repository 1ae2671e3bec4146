#include "serve/paths.h"

#include <algorithm>
#include <charconv>

namespace millpower::serve {

std::string PercentDecoded(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      decoded += static_cast<char>(byte);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

bool IsJson(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return type.size() >= kJson.size() &&
         std::equal(kJson.begin(), kJson.end(), type.begin(),
                    [](char a, char b) { return a == (b | 0x20) || a == b; }) &&
         type.find_first_not_of(' ', kJson.size()) == std::string_view::npos;
}

std::string PrintablePath(std::string_view text) {
  constexpr size_t kLoggedBytes = 200;
  std::string printable(text.substr(0, kLoggedBytes));
  std::ranges::replace_if(printable, [](char c) { return c <= ' ' || c > '~'; }, '?');
  return printable;
}

}  // namespace millpower::serve
