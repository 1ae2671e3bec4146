// Any body must be refused, or become parts that lie within it and can be written down again. The
// first line is the Content-Type header.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "serve/batch/multipart.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millpower::serve;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\n'), input.size());
  const auto boundary = BoundaryOf(input.substr(0, end));
  if (!boundary) {
    CHECK(!boundary.error().message.empty());
    return 0;
  }
  CHECK(!boundary->empty() && boundary->size() <= 70) << boundary->size();
  const std::string_view body = input.substr(std::min(end + 1, size));
  const auto parts = ReadMultipart(body, *boundary);
  if (!parts) {
    CHECK(!parts.error().message.empty());
    return 0;
  }
  CHECK(!parts->empty() && parts->size() <= MultipartLimits().parts_max) << parts->size();
  for (const Part& part : *parts) {
    CHECK(!part.name.empty());
    CHECK(part.content.data() >= body.data() &&
          part.content.data() + part.content.size() <= body.data() + body.size());
    CHECK(part.content.find("\r\n--" + *boundary) == std::string_view::npos);
    // The same content in a body of our own is read as the same.
    std::string again = "--" + *boundary + "\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
    again += part.content;
    again += "\r\n--" + *boundary + "--";
    const auto reread = ReadMultipart(again, *boundary);
    CHECK(reread && reread->size() == 1 && reread->front().content == part.content);
  }
  return 0;
}
