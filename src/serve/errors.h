// How an error looks to a client: {"error": {"message", "type", "param", "code"}}, as OpenAI's.
#pragma once

#include <string>

#include "base/json.h"
#include "base/result.h"
#include "serve/exchange.h"

namespace millpower::serve {

// Faults that are found in HTTP itself, before there is a request to speak of.
enum class HttpFault {
  kMalformed,           // 400
  kNoSuchPath,          // 404
  kMethodNotAllowed,    // 405
  kTimeout,             // 408
  kBodyTooLarge,        // 413
  kUnsupportedMedia,    // 415
  kExpectationFailed,   // 417
  kHeaderTooLarge,      // 431
  kTooManyConnections,  // 503
};

// The body of an error. `code` is the one of the table in errors.cc.
Json ErrorJson(const Error& error);

// The whole response; with Retry-After where waiting helps.
HttpResponse ErrorResponse(const Error& error, int retry_after_s = 1);
HttpResponse ErrorResponse(HttpFault fault, const std::string& message);

}  // namespace millpower::serve
