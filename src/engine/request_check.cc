#include "engine/request_check.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace millpower::engine {
namespace {

Result<void> CheckSampling(const SamplingParams& sampling, int32_t vocab_size) {
  // False for NaN too.
  auto in = [](double value, double low, double high) { return value >= low && value <= high; };
  if (!in(sampling.temperature, 0, 100)) return BadParam("temperature", "must be in 0..100");
  if (!(sampling.top_p > 0) || !in(sampling.top_p, 0, 1))
    return BadParam("top_p", "must be above 0 and at most 1");
  if (!in(sampling.min_p, 0, 1)) return BadParam("min_p", "must be in 0..1");
  if (sampling.max_tokens < 0) return BadParam("max_tokens", "must not be negative");
  if (sampling.min_tokens < 0 || sampling.min_tokens > sampling.max_tokens)
    return BadParam("min_tokens",
                    "must be in 0..max_tokens, " + std::to_string(sampling.max_tokens));
  if (!in(sampling.frequency_penalty, -2, 2))
    return BadParam("frequency_penalty", "must be in -2..2");
  if (!in(sampling.presence_penalty, -2, 2))
    return BadParam("presence_penalty", "must be in -2..2");
  if (!(sampling.repetition_penalty > 0) || !in(sampling.repetition_penalty, 0, 2))
    return BadParam("repetition_penalty", "must be above 0 and at most 2");
  if (sampling.logprobs < -1 || sampling.logprobs > kMaxTopLogprobs)
    return BadParam("logprobs", "must be in 0.." + std::to_string(kMaxTopLogprobs));
  const auto outside = [&](int32_t token) { return token < 0 || token >= vocab_size; };
  const auto not_below = [&](int32_t token) {
    return "token id " + std::to_string(token) + " is not below the vocabulary's size, " +
           std::to_string(vocab_size);
  };
  std::unordered_set<int32_t> biased;
  for (const TokenBias& bias : sampling.logit_bias) {
    if (outside(bias.token)) return BadParam("logit_bias", not_below(bias.token));
    if (!in(bias.bias, -100, 100) && bias.bias != -INFINITY)
      return BadParam("logit_bias", "the bias of token " + std::to_string(bias.token) +
                                        " must be in -100..100, or -infinity");
    if (!biased.insert(bias.token).second)
      return BadParam("logit_bias", "token " + std::to_string(bias.token) + " comes twice");
  }
  if (sampling.stop_token_ids.size() > kMaxStopIds)
    return BadParam("stop_token_ids",
                    "there are " + std::to_string(sampling.stop_token_ids.size()) + "; at most " +
                        std::to_string(kMaxStopIds) + " are taken");
  for (const int32_t token : sampling.stop_token_ids)
    if (outside(token)) return BadParam("stop_token_ids", not_below(token));
  return {};
}

}  // namespace

std::unexpected<Error> BadParam(const char* param, std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message), param);
}

Result<void> CheckRequest(const Request& request, const EngineLimits& limits) {
  if (request.prompt.empty()) return BadParam("prompt", "the prompt is empty");
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= limits.vocab_size)
      return BadParam("prompt", "token id " + std::to_string(token) +
                                    " is not below the vocabulary's size, " +
                                    std::to_string(limits.vocab_size));
  TRY(CheckSampling(request.sampling, limits.vocab_size));
  const auto prompt_size = static_cast<int64_t>(request.prompt.size());
  if (prompt_size + (request.sampling.max_tokens > 0 ? 1 : 0) > limits.max_model_len)
    return Fail(ErrorCode::kOutOfRange,
                "the prompt has " + std::to_string(prompt_size) + " tokens; this model's context " +
                    "holds " + std::to_string(limits.max_model_len) +
                    ", one of them for the answer",
                "prompt");
  return {};
}

Result<void> CheckAdjustments(const Request& request, const Adjustments& adjustments,
                              const EngineLimits& limits, int32_t max_count) {
  const SamplingParams& sampling = request.sampling;
  const auto room = limits.max_model_len - static_cast<int64_t>(request.prompt.size());
  const int64_t most =
      adjustments.CountAfter(std::min<int64_t>(sampling.max_tokens, room) - 1, limits.vocab_size);
  if (sampling.max_tokens == 0 || most <= max_count) return {};
  const bool at_once = adjustments.count() > max_count;
  const char* param = !at_once                           ? "max_tokens"
                      : sampling.repetition_penalty != 1 ? "repetition_penalty"
                                                         : "logit_bias";
  return Fail(ErrorCode::kOutOfRange,
              "penalties, biases and min_tokens would change the odds of up to " +
                  std::to_string(most) + " tokens at once; this model takes " +
                  std::to_string(max_count) +
                  (at_once ? "; give fewer biases, or no repetition_penalty"
                           : "; a lower max_tokens makes it fit"),
              param);
}

}  // namespace millpower::engine
