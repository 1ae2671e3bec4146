#include "cli/evaluation.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "base/check.h"

namespace millpower::cli {

std::vector<Window> PlanWindows(int64_t tokens, int64_t context, int64_t stride) {
  CHECK(context >= 2 && stride >= 1 && stride <= context) << context << " by " << stride;
  std::vector<Window> windows;
  int64_t counted = 0;  // tokens before this have had their turn
  for (int64_t begin = 0; counted < tokens; begin += stride) {
    const int64_t end = std::min(begin + context, tokens);
    const Window window{begin, std::max(counted, begin + 1), end};
    if (window.scored_begin < end) windows.push_back(window);
    counted = end;
  }
  return windows;
}

RowScore ScoreRow(std::span<const float> logits, int32_t target) {
  RowScore score;
  for (size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[static_cast<size_t>(score.top)]) score.top = static_cast<int64_t>(i);
  const double max = logits[static_cast<size_t>(score.top)];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  score.log_sum = max + std::log(sum);
  score.nll = score.log_sum - logits[static_cast<size_t>(target)];
  return score;
}

double KlDivergence(std::span<const float> reference, const RowScore& reference_score,
                    std::span<const float> model, const RowScore& model_score) {
  // log(p_ref / p_model) = (ref - model) - (ref.log_sum - model.log_sum): the second part is the
  // same for every token, and probabilities sum to 1.
  double sum = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double p = std::exp(reference[i] - reference_score.log_sum);
    if (p > 0) sum += p * (static_cast<double>(reference[i]) - model[i]);
  }
  return std::max(0.0, sum - (reference_score.log_sum - model_score.log_sum));
}

Mean MeanOf(std::span<const double> values) {
  const auto count = static_cast<double>(values.size());
  Mean mean;
  for (const double value : values) mean.value += value;
  mean.value /= count;
  if (values.size() < 2) return mean;
  double squares = 0;
  for (const double value : values) squares += (value - mean.value) * (value - mean.value);
  mean.error = std::sqrt(squares / (count - 1) / count);
  return mean;
}

double Quantile(std::span<const double> sorted, double share) {
  CHECK(!sorted.empty() && share > 0 && share <= 1) << share;
  const double rank = std::ceil(share * static_cast<double>(sorted.size()));
  return sorted[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

namespace {

Likelihood LikelihoodOf(std::span<const double> nll) {
  Likelihood likelihood{.nll = MeanOf(nll), .perplexity = {}};
  likelihood.perplexity.value = std::exp(likelihood.nll.value);
  likelihood.perplexity.error = likelihood.perplexity.value * likelihood.nll.error;
  return likelihood;
}

// One figure per scored token, in the text's order.
struct Scores {
  std::vector<double> model_nll, reference_nll, kl, agreement;
};

// Calls work(row) for every row, on all threads.
void ForRows(ThreadTeam& team, size_t rows, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  team.Run([&](int) {
    for (size_t row; (row = next++) < rows;) work(row);
  });
}

std::unexpected<Error> NotANumber(const char* whose, size_t token) {
  return Fail(ErrorCode::kCorrupt, std::string(whose) + " gives no finite likelihood for token " +
                                       std::to_string(token) + " of the text");
}

// Scores tokens [begin, begin + targets.size()) of the text, from the logits before each.
Result<void> ScoreChunk(std::span<const float> model, std::span<const float> reference,
                        std::span<const int32_t> targets, size_t begin, size_t vocab,
                        ThreadTeam& team, Scores& scores) {
  const size_t rows = targets.size(), at = scores.model_nll.size();
  const bool compared = !reference.empty();
  scores.model_nll.resize(at + rows);
  if (compared)
    for (auto* values : {&scores.reference_nll, &scores.kl, &scores.agreement})
      values->resize(at + rows);
  ForRows(team, rows, [&](size_t row) {
    const auto ours = model.subspan(row * vocab, vocab);
    const RowScore score = ScoreRow(ours, targets[row]);
    scores.model_nll[at + row] = score.nll;
    if (!compared) return;
    const auto theirs = reference.subspan(row * vocab, vocab);
    const RowScore reference_score = ScoreRow(theirs, targets[row]);
    scores.reference_nll[at + row] = reference_score.nll;
    scores.kl[at + row] = KlDivergence(theirs, reference_score, ours, score);
    scores.agreement[at + row] = score.top == reference_score.top ? 1 : 0;
  });
  for (size_t row = 0; row < rows; ++row) {
    if (!std::isfinite(scores.model_nll[at + row])) return NotANumber("the model", begin + row);
    if (!compared) continue;
    if (!std::isfinite(scores.reference_nll[at + row]))
      return NotANumber("the reference", begin + row);
    if (!std::isfinite(scores.kl[at + row])) return NotANumber("one of the models", begin + row);
  }
  return {};
}

}  // namespace

Result<Evaluation> Evaluate(LogitsRunner& model, LogitsRunner* reference,
                            std::span<const int32_t> tokens, std::span<const Window> windows,
                            ThreadTeam& team,
                            const std::function<void(int64_t, int64_t)>& progress) {
  int64_t total = 0;
  for (const Window& window : windows) total += window.end - window.scored_begin;
  if (total == 0)
    return Fail(ErrorCode::kInvalidArgument,
                "the text has " + std::to_string(tokens.size()) +
                    " tokens: none comes after another, so there is nothing to predict");
  int64_t max_rows = model.max_rows(), max_picked = model.max_picked();
  if (reference != nullptr) {
    CHECK(reference->vocab_size() == model.vocab_size());
    max_rows = std::min(max_rows, reference->max_rows());
    max_picked = std::min(max_picked, reference->max_picked());
  }
  const auto vocab = static_cast<size_t>(model.vocab_size());
  Scores scores;
  for (const Window& window : windows) {
    // The last token of a window is only predicted, never seen.
    int64_t at = window.begin;
    while (at + 1 < window.end) {
      const int64_t unscored = window.scored_begin - 1 - at;
      const int64_t count =
          unscored > 0 ? std::min(max_rows, unscored) : std::min(max_picked, window.end - 1 - at);
      const int64_t picked = unscored > 0 ? 0 : count;
      const auto chunk = tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(count));
      TRY_ASSIGN(const auto logits, model.Run(chunk, at - window.begin, picked));
      std::span<const float> theirs;
      if (reference != nullptr) {
        TRY_ASSIGN(theirs, reference->Run(chunk, at - window.begin, picked));
      }
      at += count;
      if (picked == 0) continue;
      const auto first = static_cast<size_t>(at - count + 1);
      TRY(ScoreChunk(logits, theirs, tokens.subspan(first, static_cast<size_t>(count)), first,
                     vocab, team, scores));
      if (progress) progress(static_cast<int64_t>(scores.model_nll.size()), total);
    }
  }

  Evaluation result;
  result.scored_tokens = total;
  result.model = LikelihoodOf(scores.model_nll);
  if (reference == nullptr) return result;
  result.reference = LikelihoodOf(scores.reference_nll);
  std::vector<double> deltas(scores.kl.size());
  for (size_t i = 0; i < deltas.size(); ++i)
    deltas[i] = scores.reference_nll[i] - scores.model_nll[i];
  Divergence divergence{.kl = MeanOf(scores.kl),
                        .top_agreement = MeanOf(scores.agreement),
                        .logprob_delta = MeanOf(deltas)};
  std::ranges::sort(scores.kl);
  divergence.kl_median = Quantile(scores.kl, 0.5);
  divergence.kl_p99 = Quantile(scores.kl, 0.99);
  divergence.kl_max = scores.kl.back();
  result.divergence = divergence;
  return result;
}

}  // namespace millpower::cli
