// Bodies that are compressed as HTTP has it (RFC 9110, 8.4.1): gzip, and deflate in zlib's
// wrapping.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millpower::serve {

enum class Coding { kIdentity, kGzip, kDeflate };

// Of a Content-Encoding header. Errors: kUnsupported.
Result<Coding> ReadCoding(std::string_view content_encoding);

// What a client takes, by its Accept-Encoding header: gzip before deflate, neither if it must not
// be.
Coding ChooseCoding(std::string_view accept_encoding);
const char* Name(Coding coding);  // "gzip"

// Errors: kInvalidArgument (damaged, cut off, or followed by something else); kOutOfRange (more
// than `max_bytes`).
Result<std::string> Decompress(std::string_view bytes, Coding coding, size_t max_bytes);
// Fast rather than small.
std::string Compress(std::string_view bytes, Coding coding);

}  // namespace millpower::serve
