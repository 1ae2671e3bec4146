#include "device/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "isa/sampling.h"

namespace millpower::device::cpu {
namespace {

// Vocabulary order is summed in blocks of this many tokens when all of it takes part.
constexpr int64_t kBlock = 1024;
// First guess of how many tokens hold top_p of the mass; grown eightfold until they do.
constexpr int64_t kTopPGuess = 256;

}  // namespace

Sampler::Sampler(const kernels::KernelSet& kernels, int64_t vocab_size_max) : kernels_(kernels) {
  candidates_.reserve(static_cast<size_t>(vocab_size_max));
  adjusted_.reserve(static_cast<size_t>(vocab_size_max));
  weights_.reserve(static_cast<size_t>(vocab_size_max));
}

void Sampler::Run(std::span<const float> logits, const int32_t* params,
                  const Adjustments& adjustments, int32_t* record) {
  std::fill_n(record, isa::kSampleRecordWords, 0);
  int32_t token = params[isa::kSampleTarget];
  if (token < 0 || token >= std::ssize(logits)) {
    const std::span<const float> x = Adjust(logits, params, adjustments);
    const int64_t best = kernels_.argmax(x.data(), std::ssize(x));
    const float max = x[static_cast<size_t>(best)];
    const float temperature = isa::FloatOf(params[isa::kSampleTemperature]);
    token = static_cast<int32_t>(best);
    if (temperature > 0 && std::isfinite(max)) token = Draw(x, params, max);
  }
  record[isa::kRecordToken] = token;
  const int alternatives = std::min(params[isa::kSampleLogprobs], isa::kMaxAlternatives);
  if (alternatives < 0) return;
  const int64_t best = kernels_.argmax(logits.data(), std::ssize(logits));
  WriteLogprobs(logits, alternatives, logits[static_cast<size_t>(best)], record);
}

std::span<const float> Sampler::Adjust(std::span<const float> logits, const int32_t* params,
                                       const Adjustments& adjustments) {
  const int64_t size = std::ssize(adjustments.tokens);
  const int64_t first = std::clamp<int64_t>(params[isa::kSampleAdjustBegin], 0, size);
  const int64_t last =
      first + std::clamp<int64_t>(params[isa::kSampleAdjustCount], 0, size - first);
  if (first == last) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  for (int64_t i = first; i < last; ++i) {
    const int32_t* row = adjustments.rows + i * adjustments.stride;
    const float divide = isa::FloatOf(row[isa::kAdjustDivide]);
    float& logit = adjusted_[static_cast<size_t>(adjustments.tokens[static_cast<size_t>(i)])];
    logit = (logit > 0 ? logit / divide : logit * divide) + isa::FloatOf(row[isa::kAdjustAdd]);
  }
  const int64_t best = kernels_.argmax(adjusted_.data(), std::ssize(adjusted_));
  if (adjusted_[static_cast<size_t>(best)] > -std::numeric_limits<float>::infinity())
    return adjusted_;
  return logits;
}

void Sampler::TakeTop(std::span<const float> logits, int64_t count) {
  count = std::clamp<int64_t>(count, 1, std::ssize(logits));
  auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  candidates_.clear();
  // A heap with the least likely on top: most of the vocabulary fails the first comparison.
  for (int64_t i = 0; i < std::ssize(logits); ++i) {
    const float logit = logits[static_cast<size_t>(i)];
    if (static_cast<int64_t>(candidates_.size()) < count) {
      if (std::isnan(logit)) continue;
      candidates_.push_back({logit, static_cast<int32_t>(i)});
      std::push_heap(candidates_.begin(), candidates_.end(), likelier);
    } else if (logit > candidates_.front().logit) {
      std::pop_heap(candidates_.begin(), candidates_.end(), likelier);
      candidates_.back() = {logit, static_cast<int32_t>(i)};
      std::push_heap(candidates_.begin(), candidates_.end(), likelier);
    }
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), likelier);
}

int32_t Sampler::DrawFromAll(std::span<const float> logits, float max, float inverse_temperature,
                             float uniform) {
  weights_.clear();
  double total = 0;
  for (int64_t begin = 0; begin < std::ssize(logits); begin += kBlock) {
    const int64_t size = std::min(kBlock, std::ssize(logits) - begin);
    const double mass = kernels_.sum_exp(logits.data() + begin, size, max, inverse_temperature);
    weights_.push_back(std::isnan(mass) ? 0 : mass);
    total += weights_.back();
  }
  double left = static_cast<double>(uniform) * total;
  size_t block = 0;
  while (block + 1 < weights_.size() && left >= weights_[block]) left -= weights_[block++];
  const int64_t begin = static_cast<int64_t>(block) * kBlock;
  const int64_t end = std::min(begin + kBlock, std::ssize(logits));
  int64_t drawn = -1;
  for (int64_t i = begin; i < end; ++i) {
    const float weight = kernels_.sum_exp(logits.data() + i, 1, max, inverse_temperature);
    if (!(weight > 0)) continue;
    drawn = i;  // rounding may leave a little over: it goes to the last token that can be drawn
    left -= weight;
    if (left < 0) break;
  }
  return static_cast<int32_t>(drawn >= 0 ? drawn
                                         : kernels_.argmax(logits.data(), std::ssize(logits)));
}

size_t Sampler::KeptCount(const int32_t* params, float max, float inverse_temperature,
                          std::optional<double> all_mass, bool complete) {
  const float top_p = isa::FloatOf(params[isa::kSampleTopP]);
  const float min_p = isa::FloatOf(params[isa::kSampleMinP]);
  weights_.clear();
  double mass = 0;
  for (const Candidate& candidate : candidates_) {
    weights_.push_back(
        static_cast<double>(kernels_.sum_exp(&candidate.logit, 1, max, inverse_temperature)));
    mass += weights_.back();
  }
  const double wanted = static_cast<double>(top_p) * all_mass.value_or(mass);
  double before = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    const bool enough = top_p < 1 && before >= wanted;
    if (i > 0 && (enough || weights_[i] < static_cast<double>(min_p))) return i;
    before += weights_[i];
  }
  if (complete || (top_p < 1 && before >= wanted)) return candidates_.size();
  return 0;
}

int32_t Sampler::Draw(std::span<const float> logits, const int32_t* params, float max) {
  const float temperature = isa::FloatOf(params[isa::kSampleTemperature]);
  const float inverse_temperature = std::min(1.0f / temperature, 1e6f);
  const uint64_t seed = static_cast<uint32_t>(params[isa::kSampleSeedLow]) |
                        uint64_t{static_cast<uint32_t>(params[isa::kSampleSeedHigh])} << 32;
  const float uniform = RandomUniform(seed, static_cast<uint32_t>(params[isa::kSampleCounter]));
  const int32_t top_k = params[isa::kSampleTopK];
  const bool some_k = top_k > 0 && top_k < std::ssize(logits);
  const bool filtered =
      isa::FloatOf(params[isa::kSampleTopP]) < 1 || isa::FloatOf(params[isa::kSampleMinP]) > 0;
  if (!some_k && !filtered) return DrawFromAll(logits, max, inverse_temperature, uniform);

  size_t kept = 0;
  if (some_k) {
    TakeTop(logits, top_k);
    kept = KeptCount(params, max, inverse_temperature, std::nullopt, true);
  } else {
    const double all_mass =
        kernels_.sum_exp(logits.data(), std::ssize(logits), max, inverse_temperature);
    for (int64_t count = kTopPGuess; kept == 0; count *= 8) {
      TakeTop(logits, count);
      kept = KeptCount(params, max, inverse_temperature, all_mass, count >= std::ssize(logits));
    }
  }
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weights_[i];
  double left = static_cast<double>(uniform) * total;
  size_t drawn = 0;
  while (drawn + 1 < kept && left >= weights_[drawn]) left -= weights_[drawn++];
  // Rounding may leave a little over: it goes to the last token that can be drawn.
  while (drawn > 0 && weights_[drawn] == 0) --drawn;
  return candidates_[drawn].token;
}

void Sampler::WriteLogprobs(std::span<const float> logits, int alternatives, float max,
                            int32_t* record) {
  const double log_total =
      std::log(static_cast<double>(kernels_.sum_exp(logits.data(), std::ssize(logits), max, 1.0f)));
  auto logprob = [&](float logit) {
    return isa::WordOf(static_cast<float>(static_cast<double>(logit - max) - log_total));
  };
  record[isa::kRecordLogprob] = logprob(logits[static_cast<size_t>(record[isa::kRecordToken])]);
  if (alternatives == 0) return;
  TakeTop(logits, alternatives);
  record[isa::kRecordCount] = static_cast<int32_t>(candidates_.size());
  for (size_t i = 0; i < candidates_.size(); ++i) {
    record[isa::kRecordIds + static_cast<int>(i)] = candidates_[i].token;
    record[isa::kRecordLogprobs + static_cast<int>(i)] = logprob(candidates_[i].logit);
  }
}

}  // namespace millpower::device::cpu
