// Result<T>: how "the world is wrong" is told. A value, or an Error with a code and one line that
// says what is wrong and where. "We are wrong" is CHECK (check.h).
//
// No exceptions cross folders; third-party ones are caught at the edge that calls them.
#pragma once

#include <expected>
#include <string>
#include <utility>

namespace millpower {

enum class ErrorCode {
  kInvalidArgument,  // the caller's input is wrong: a bad flag, field or value
  kNotFound,         // a named thing does not exist: file, model, tensor, request
  kCorrupt,          // bytes that do not hold what their format promises
  kUnsupported,      // well-formed, but not something we model; said by name
  kOutOfRange,       // a size or position past a declared bound (prompt beyond the context)
  kNoCapacity,       // would be fine later or on a larger machine: queue full, memory short
  kCancelled,        // the caller went away or asked to stop
  kDeadline,         // time ran out
  kUnavailable,      // shutting down or not ready yet
  kIo,               // the operating system refused
  kInternal,         // a fault of ours that did not warrant stopping the process
  kUnauthenticated,  // no key, or one that is not valid
  kForbidden,        // a valid key that may not do this
  kQuotaExceeded,    // a cap or the credit does not cover it
  kRateLimited,      // would be fine a little later
  kAlreadyExists,    // a name or an id that is taken
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one line, no trailing full stop
  std::string param;    // the offending field or flag, empty when there is none
};

template <typename T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> Fail(ErrorCode code, std::string message, std::string param = {}) {
  return std::unexpected(Error{code, std::move(message), std::move(param)});
}

// The error again with `where` in front: "model.safetensors: header is truncated".
inline std::unexpected<Error> FailAt(const std::string& where, Error error) {
  error.message = where + ": " + error.message;
  return std::unexpected(std::move(error));
}

}  // namespace millpower

#define MP_CONCAT_INNER(a, b) a##b
#define MP_CONCAT(a, b) MP_CONCAT_INNER(a, b)

// TRY(expr): evaluates a Result<void>-like expression and returns its error from the caller.
#define TRY(expr)                                                 \
  do {                                                            \
    if (auto mp_try_result = (expr); !mp_try_result) [[unlikely]] \
      return std::unexpected(std::move(mp_try_result).error());   \
  } while (false)

// TRY_ASSIGN(decl, expr): `decl` receives the value, or the caller returns the error.
#define TRY_ASSIGN(decl, expr) TRY_ASSIGN_INNER(MP_CONCAT(mp_try_, __LINE__), decl, expr)
#define TRY_ASSIGN_INNER(tmp, decl, expr)           \
  auto tmp = (expr);                                \
  if (!tmp) [[unlikely]]                            \
    return std::unexpected(std::move(tmp).error()); \
  decl = std::move(*tmp)
