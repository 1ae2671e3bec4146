// How well a model predicts a text, and how far its predictions are from another model's:
// docs/perplexity.md says what each figure means. Arithmetic over logits is float64.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/threads.h"
#include "cli/logits_runner.h"

namespace millpower::cli {

// A stretch of the text that the model sees from its beginning on, with nothing before it.
struct Window {
  int64_t begin = 0;
  int64_t scored_begin = 0;  // tokens [scored_begin, end) count; those before are context only
  int64_t end = 0;
  bool operator==(const Window&) const = default;
};

// Windows of `context` tokens that begin `stride` tokens apart, the last one cut off at the text's
// end. Each token counts once, in the first window that holds it, unless it is the first token
// there: nothing comes before it. So the text's first token never counts, and, when `stride` is
// `context`, nor does the first of any window. 1 <= stride <= context, context >= 2.
std::vector<Window> PlanWindows(int64_t tokens, int64_t context, int64_t stride);

// What one row of logits says, log being the natural one.
struct RowScore {
  double log_sum = 0;  // log(sum(exp(logits)))
  double nll = 0;      // -log p(target)
  int64_t top = 0;     // index of the largest logit, the lowest of equals
};
RowScore ScoreRow(std::span<const float> logits, int32_t target);

// KL(reference || model) = sum over tokens of p_ref * log(p_ref / p_model), in nats, of one row.
// The scores are of the same rows. Never negative; 0 for equal logits.
double KlDivergence(std::span<const float> reference, const RowScore& reference_score,
                    std::span<const float> model, const RowScore& model_score);

// A mean, and the standard error of it: the sample's standard deviation over sqrt(count).
struct Mean {
  double value = 0;
  double error = 0;  // 0 of a single value
};
Mean MeanOf(std::span<const double> values);  // of at least one
// The smallest value that at least `share` of all are not above (nearest rank). `sorted` ascends
// and is not empty; 0 < share <= 1.
double Quantile(std::span<const double> sorted, double share);

struct Likelihood {
  Mean nll;         // nats a token
  Mean perplexity;  // exp(nll); its error is nll's times it (first order)
};

struct Divergence {
  Mean kl;  // of KL(reference || model), nats
  double kl_median = 0, kl_p99 = 0, kl_max = 0;
  Mean top_agreement;  // share of positions where both think the same token the most likely
  Mean logprob_delta;  // log p_model - log p_reference of the text's tokens, nats
};

struct Evaluation {
  int64_t scored_tokens = 0;
  Likelihood model;
  std::optional<Likelihood> reference;
  std::optional<Divergence> divergence;
};

// Runs `tokens` through `model`, and through `reference` where there is one, by `windows`. Both
// have one vocabulary, and positions for every window. `team` does the arithmetic over logits; how
// many threads it has changes nothing in the result. Holds one chunk of logits a model and a few
// numbers a token. `progress`: scored tokens, of all.
// Errors: those of LogitsRunner::Run; kInvalidArgument when no token can be scored; kCorrupt,
// naming the token, for logits that give no number (NaN, infinities).
Result<Evaluation> Evaluate(LogitsRunner& model, LogitsRunner* reference,
                            std::span<const int32_t> tokens, std::span<const Window> windows,
                            ThreadTeam& team,
                            const std::function<void(int64_t, int64_t)>& progress);

}  // namespace millpower::cli
