#include "base/toml.h"

#include <algorithm>
#include <optional>

namespace millpower {
namespace {

bool IsBeyondAscii(char c) { return static_cast<unsigned char>(c) >= 0x80; }

// Behind the string that begins at `at`, as far as it goes; or where a letter beyond ASCII comes
// after a backslash and what it lets the string go on after.
size_t EndOfString(std::string_view text, size_t at) {
  const char quote = text[at];
  const std::string three(3, quote);
  const bool is_long = text.substr(at).starts_with(three);
  for (at += is_long ? 3 : 1; at < text.size(); ++at) {
    if (text[at] == '\\' && quote == '"') {
      const size_t next = is_long ? text.find_first_not_of(" \t\r\n", at + 1) : at + 1;
      if (next < text.size() && IsBeyondAscii(text[next])) return next;
      ++at;
    } else if (is_long && text.substr(at).starts_with(three)) {
      at += 3;
      // Two quotes more may belong to it.
      for (int more = 0; more < 2 && at < text.size() && text[at] == quote; ++more) ++at;
      return at;
    } else if (!is_long && (text[at] == quote || text[at] == '\n')) {
      return text[at] == quote ? at + 1 : at;
    }
  }
  return text.size();
}

// The line of the first byte beyond ASCII that stands neither in a string nor in a comment, or
// after a backslash. Nothing of TOML has any there, but for a line that a backslash joins to the
// one before; and toml++ 3.3 asks of each whether it is a blank, which its tables have holes for.
std::optional<int64_t> LineBeyondAscii(std::string_view text) {
  const auto lines = [&](size_t end) { return 1 + std::ranges::count(text.substr(0, end), '\n'); };
  size_t at = text.starts_with("\xef\xbb\xbf") ? 3 : 0;  // a byte order mark
  while (at < text.size()) {
    const char c = text[at];
    if (IsBeyondAscii(c)) return lines(at);
    if (c == '#')
      at = std::min(text.find('\n', at), text.size());
    else if (c == '"' || c == '\'')
      at = EndOfString(text, at);
    else
      ++at;
  }
  return std::nullopt;
}

}  // namespace

Result<toml::table> ParseToml(std::string_view text, const std::string& file_name) {
  const auto bad = [&](int64_t line, std::string_view what) {
    return Fail(ErrorCode::kInvalidArgument,
                file_name + ":" + std::to_string(line) + ": " + std::string(what));
  };
  if (const auto line = LineBeyondAscii(text))
    return bad(*line, "a letter beyond ASCII stands outside of a string, or after a backslash");
  try {
    return toml::parse(text, file_name);
  } catch (const toml::parse_error& error) {
    return bad(static_cast<int64_t>(error.source().begin.line), error.description());
  }
}

}  // namespace millpower
