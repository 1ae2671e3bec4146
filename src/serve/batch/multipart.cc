#include "serve/batch/multipart.h"

#include <algorithm>
#include <utility>

namespace millpower::serve {
namespace {

constexpr size_t kBoundaryBytesMax = 70;

std::unexpected<Error> Malformed(const std::string& what) {
  return Fail(ErrorCode::kInvalidArgument, "malformed multipart/form-data: " + what);
}

bool IsAlphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// RFC 2046, section 5.1.1: bchars.
bool IsBoundaryCharacter(char c) {
  return IsAlphanumeric(c) || std::string_view("'()+_,-./:=? ").find(c) != std::string_view::npos;
}

// RFC 9110, section 5.6.2.
bool IsTokenCharacter(char c) {
  return IsAlphanumeric(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool IsControl(char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 0x7f; }

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  return lower;
}

std::string_view SkipBlanks(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(" \t"), text.size()));
}

std::string_view Trim(std::string_view text) {
  text = SkipBlanks(text);
  return text.substr(0, text.find_last_not_of(" \t") + 1);
}

std::string_view TakeToken(std::string_view& text) {
  const auto end = std::ranges::find_if_not(text, IsTokenCharacter);
  const auto size = static_cast<size_t>(end - text.begin());
  const std::string_view token = text.substr(0, size);
  text.remove_prefix(size);
  return token;
}

// The rest of a quoted string, its opening quote taken. A backslash hides a quote or a backslash;
// before anything else it is itself, as in the paths of old browsers.
std::optional<std::string> TakeQuoted(std::string_view& text) {
  std::string value;
  while (!text.empty()) {
    const char c = text.front();
    text.remove_prefix(1);
    if (c == '"') return value;
    if (c == '\\' && !text.empty() && (text.front() == '"' || text.front() == '\\')) {
      value += text.front();
      text.remove_prefix(1);
    } else {
      value += c;
    }
  }
  return std::nullopt;
}

// "form-data; name=\"a\"; filename=b". Names of parameters in lower case.
struct HeaderValue {
  std::string value;
  std::vector<std::pair<std::string, std::string>> parameters;

  // The one of that name; nullptr if there is none.
  const std::string* Find(std::string_view name) const {
    for (const auto& [key, value] : parameters)
      if (key == name) return &value;
    return nullptr;
  }
};

Result<HeaderValue> ReadHeaderValue(std::string_view text) {
  const size_t end = std::min(text.find(';'), text.size());
  HeaderValue header{Lower(Trim(text.substr(0, end))), {}};
  text.remove_prefix(end);
  while (!text.empty()) {
    text = SkipBlanks(text.substr(1));  // what follows ';'
    const std::string name = Lower(TakeToken(text));
    if (name.empty() || !text.starts_with('='))
      return Fail(ErrorCode::kInvalidArgument, "a parameter must be name=value");
    text.remove_prefix(1);
    std::string value;
    if (text.starts_with('"')) {
      text.remove_prefix(1);
      auto quoted = TakeQuoted(text);
      if (!quoted) return Fail(ErrorCode::kInvalidArgument, "a quoted string has no end");
      value = std::move(*quoted);
    } else {
      value = TakeToken(text);
      if (value.empty()) return Fail(ErrorCode::kInvalidArgument, "a parameter has no value");
    }
    text = SkipBlanks(text);
    if (!text.empty() && text.front() != ';')
      return Fail(ErrorCode::kInvalidArgument, "';' expected between parameters");
    if (header.Find(name) != nullptr)
      return Fail(ErrorCode::kInvalidArgument, "parameter `" + name + "` is there twice");
    header.parameters.emplace_back(name, std::move(value));
  }
  return header;
}

Result<void> ReadDisposition(std::string_view text, Part& part) {
  auto header = ReadHeaderValue(text);
  if (!header) return Malformed("Content-Disposition: " + header.error().message);
  if (header->value != "form-data") return Malformed("a part's Content-Disposition is form-data");
  const std::string* name = header->Find("name");
  if (name == nullptr || name->empty()) return Malformed("a part has no name");
  part.name = *name;
  if (const std::string* filename = header->Find("filename")) part.filename = *filename;
  return {};
}

// One line of a part's headers, without its end.
Result<void> ReadHeader(std::string_view line, Part& part, bool& has_type) {
  if (std::ranges::any_of(line, IsControl))
    return Malformed("a control character, or a line end that is not CRLF, in a part's headers");
  const std::string name = Lower(TakeToken(line));
  if (name.empty() || !line.starts_with(':'))
    return Malformed("a part's header must be \"Name: value\" on one line");
  const std::string_view value = Trim(line.substr(1));
  if (name == "content-disposition") {
    if (!part.name.empty()) return Malformed("a part has two Content-Disposition headers");
    return ReadDisposition(value, part);
  }
  if (name == "content-type") {
    if (has_type) return Malformed("a part has two Content-Type headers");
    has_type = true;
    part.content_type = value;
  }
  if (name == "content-transfer-encoding") {
    const std::string encoding = Lower(value);
    if (encoding != "binary" && encoding != "8bit" && encoding != "7bit")
      return Malformed("parts must come as they are, not in an encoding");
  }
  return {};
}

// Takes the headers and the empty line after them off the front of `rest`.
Result<Part> TakeHeaders(std::string_view& rest, const MultipartLimits& limits) {
  Part part;
  bool has_type = false;
  for (size_t total = 0;;) {
    // A line may be as long as what is left, and its end as well.
    const size_t end = rest.substr(0, limits.header_bytes_max - total).find("\r\n");
    if (end == std::string_view::npos)
      return Malformed(rest.size() < limits.header_bytes_max - total
                           ? "it ends within a part's headers"
                           : "the headers of a part exceed " +
                                 std::to_string(limits.header_bytes_max) + " bytes");
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 2);
    total += end + 2;
    if (line.empty()) break;
    TRY(ReadHeader(line, part, has_type));
  }
  if (part.name.empty()) return Malformed("a part has no Content-Disposition");
  return part;
}

// What follows a delimiter on its line: "--" ends the body, blanks and a line end begin a part.
// Takes the line off the front of `rest`; true at the end of the body.
Result<bool> TakeDelimiterEnd(std::string_view& rest) {
  if (rest.starts_with("--")) return true;
  rest = SkipBlanks(rest);
  if (!rest.starts_with("\r\n")) return Malformed("a delimiter must be alone on its line");
  rest.remove_prefix(2);
  return false;
}

}  // namespace

Result<std::string> BoundaryOf(std::string_view content_type) {
  if (Lower(Trim(content_type.substr(0, content_type.find(';')))) != "multipart/form-data")
    return Fail(ErrorCode::kUnsupported, "Content-Type must be multipart/form-data");
  auto header = ReadHeaderValue(content_type);
  if (!header) return Fail(ErrorCode::kInvalidArgument, "Content-Type: " + header.error().message);
  const std::string* boundary = header->Find("boundary");
  if (boundary == nullptr)
    return Fail(ErrorCode::kInvalidArgument, "Content-Type: multipart/form-data has no boundary");
  if (boundary->empty() || boundary->size() > kBoundaryBytesMax || boundary->back() == ' ' ||
      !std::ranges::all_of(*boundary, IsBoundaryCharacter))
    return Fail(ErrorCode::kInvalidArgument,
                "Content-Type: a boundary is 1 to 70 of the characters that RFC 2046 allows");
  return *boundary;
}

Result<std::vector<Part>> ReadMultipart(std::string_view body, std::string_view boundary,
                                        const MultipartLimits& limits) {
  const std::string delimiter = "\r\n--" + std::string(boundary);
  std::string_view rest = body;
  if (rest.starts_with(std::string_view(delimiter).substr(2))) {
    rest.remove_prefix(delimiter.size() - 2);
  } else {
    const size_t first = rest.find(delimiter);
    if (first == std::string_view::npos) return Malformed("the boundary is nowhere in the body");
    rest.remove_prefix(first + delimiter.size());
  }

  std::vector<Part> parts;
  while (true) {
    TRY_ASSIGN(const bool is_end, TakeDelimiterEnd(rest));
    if (is_end) break;
    if (parts.size() == limits.parts_max)
      return Malformed("more than " + std::to_string(limits.parts_max) + " parts");
    TRY_ASSIGN(Part part, TakeHeaders(rest, limits));
    // The line end before a delimiter belongs to it; without content that is the headers' last.
    const std::string_view alone = std::string_view(delimiter).substr(2);
    const bool is_empty = rest.starts_with(alone);
    const size_t end = is_empty ? 0 : rest.find(delimiter);
    if (end == std::string_view::npos) return Malformed("the last boundary is missing");
    part.content = rest.substr(0, end);
    rest.remove_prefix(end + (is_empty ? alone.size() : delimiter.size()));
    parts.push_back(std::move(part));
  }
  if (parts.empty()) return Malformed("it has no parts");
  return parts;
}

}  // namespace millpower::serve
