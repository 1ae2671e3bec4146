// What the engine refuses of a request before any work starts, by the parameter's name.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "engine/adjustments.h"
#include "engine/engine.h"

namespace millpower::engine {

inline constexpr size_t kMaxStopIds = 1024;  // looked through for every token

std::unexpected<Error> BadParam(const char* param, std::string message);

// Errors: those of Engine::Submit that depend on nothing but the request.
Result<void> CheckRequest(const Request& request, const EngineLimits& limits);

// `adjustments` are those of the request's first token; a step takes `max_count`. Errors:
// kOutOfRange (it might come to need more before its end).
Result<void> CheckAdjustments(const Request& request, const Adjustments& adjustments,
                              const EngineLimits& limits, int32_t max_count);

}  // namespace millpower::engine
