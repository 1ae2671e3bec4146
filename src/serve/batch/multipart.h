// Reads multipart/form-data (RFC 7578, on RFC 2046's framing), as clients upload files with it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower::serve {

struct MultipartLimits {
  size_t parts_max = 16;
  size_t header_bytes_max = 4096;  // of one part, the empty line included
};

struct Part {
  std::string name;  // of the form's field; not empty
  // As the client wrote it, percent escapes of browsers included: to show, never a path.
  std::optional<std::string> filename;
  std::string content_type;  // "" where the part does not say
  std::string_view content;  // any bytes; within the body that was read
};

// The boundary in a Content-Type header. Errors: kUnsupported (another type); kInvalidArgument (no
// boundary, two, or one that RFC 2046 does not allow: 1 to 70 of its characters).
Result<std::string> BoundaryOf(std::string_view content_type);

// The parts in order; at least one. What stands before the first delimiter and after the last is
// ignored, as RFC 2046 says. Otherwise strict: lines end with CRLF, headers are not folded, a line
// that begins like a delimiter is one, each part has one Content-Disposition with one name, and the
// last delimiter must be there. Errors: kInvalidArgument.
Result<std::vector<Part>> ReadMultipart(std::string_view body, std::string_view boundary,
                                        const MultipartLimits& limits = {});

}  // namespace millpower::serve
