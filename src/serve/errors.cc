#include "serve/errors.h"

namespace millpower::serve {
namespace {

struct Appearance {
  int status;
  const char* type;
  const char* code;  // nullptr: null
};

constexpr const char* kInvalid = "invalid_request_error";
constexpr const char* kServer = "server_error";
constexpr std::string_view kInsufficientQuota = "insufficient_quota";  // waiting does not help

// The one place where our error codes become HTTP.
constexpr Appearance AppearanceOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return {400, kInvalid, nullptr};
    case ErrorCode::kNotFound:
      return {404, kInvalid, "model_not_found"};
    case ErrorCode::kUnsupported:
      return {400, kInvalid, "unsupported_parameter"};
    case ErrorCode::kOutOfRange:
      return {400, kInvalid, "context_length_exceeded"};
    case ErrorCode::kNoCapacity:
      return {429, "rate_limit_error", "rate_limit_exceeded"};
    case ErrorCode::kUnauthenticated:
      return {401, kInvalid, "invalid_api_key"};
    case ErrorCode::kForbidden:
      return {403, kInvalid, "permission_denied"};
    case ErrorCode::kQuotaExceeded:
      return {429, "insufficient_quota", "insufficient_quota"};
    case ErrorCode::kRateLimited:
      return {429, "rate_limit_error", "rate_limit_exceeded"};
    case ErrorCode::kAlreadyExists:
      return {409, kInvalid, "conflict"};
    case ErrorCode::kCancelled:
      return {499, kInvalid, "cancelled"};
    case ErrorCode::kDeadline:
      return {504, kServer, "timeout"};
    case ErrorCode::kUnavailable:
      return {503, kServer, "service_unavailable"};
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return {500, kServer, "internal_error"};
  }
  return {500, kServer, "internal_error"};
}

// Other bounds than the context's are passed as well, and other things than models not found.
Appearance AppearanceOf(const Error& error) {
  if (error.code == ErrorCode::kNotFound && error.param != "model")
    return {404, kInvalid, "not_found"};
  const bool other_bound = error.code == ErrorCode::kOutOfRange && error.param != "prompt";
  return AppearanceOf(other_bound ? ErrorCode::kInvalidArgument : error.code);
}

constexpr Appearance AppearanceOf(HttpFault fault) {
  switch (fault) {
    case HttpFault::kMalformed:
      return {400, kInvalid, "malformed_http"};
    case HttpFault::kNoSuchPath:
      return {404, kInvalid, "not_found"};
    case HttpFault::kMethodNotAllowed:
      return {405, kInvalid, "method_not_allowed"};
    case HttpFault::kTimeout:
      return {408, kInvalid, "request_timeout"};
    case HttpFault::kBodyTooLarge:
      return {413, kInvalid, "request_too_large"};
    case HttpFault::kUnsupportedMedia:
      return {415, kInvalid, "unsupported_media_type"};
    case HttpFault::kExpectationFailed:
      return {417, kInvalid, "expectation_failed"};
    case HttpFault::kHeaderTooLarge:
      return {431, kInvalid, "header_too_large"};
    case HttpFault::kTooManyConnections:
      return {503, kServer, "too_many_connections"};
  }
  return {500, kServer, "internal_error"};
}

Json MakeJson(const Appearance& appearance, const std::string& message, const std::string& param) {
  Json error = {{"message", message}, {"type", appearance.type}};
  error["param"] = param.empty() ? Json() : Json(param);
  error["code"] = appearance.code ? Json(appearance.code) : Json();
  return {{"error", std::move(error)}};
}

HttpResponse MakeResponse(const Appearance& appearance, const std::string& message,
                          const std::string& param, int retry_after_s) {
  HttpResponse response = {.status = appearance.status,
                           .body = DumpJson(MakeJson(appearance, message, param))};
  if ((appearance.status == 429 && appearance.type != kInsufficientQuota) ||
      appearance.status == 503)
    response.headers.emplace_back("retry-after", std::to_string(retry_after_s));
  if (appearance.status == 401) response.headers.emplace_back("www-authenticate", "Bearer");
  return response;
}

}  // namespace

Json ErrorJson(const Error& error) {
  return MakeJson(AppearanceOf(error), error.message, error.param);
}

HttpResponse ErrorResponse(const Error& error, int retry_after_s) {
  return MakeResponse(AppearanceOf(error), error.message, error.param, retry_after_s);
}

HttpResponse ErrorResponse(HttpFault fault, const std::string& message) {
  return MakeResponse(AppearanceOf(fault), message, "", 1);
}

}  // namespace millpower::serve
