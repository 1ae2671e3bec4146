#include "bench/serving/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace millpower::bench {

double Quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

Json Spread(const std::vector<double>& values) {
  if (values.empty())
    return {{"median", nullptr},
            {"p90", nullptr},
            {"p99", nullptr},
            {"max", nullptr},
            {"mean", nullptr}};
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {{"median", Quantile(values, 0.5)},
          {"p90", Quantile(values, 0.9)},
          {"p99", Quantile(values, 0.99)},
          {"max", std::ranges::max(values)},
          {"mean", sum / static_cast<double>(values.size())}};
}

Json Summarise(const std::vector<Outcome>& outcomes) {
  std::vector<double> ttft, tpot, gaps, latency;
  int64_t failed = 0, refused = 0, prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  std::string first_error;
  double begin = 0, end = 0;
  bool any = false;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.error.empty()) {
      ++failed;
      if (outcome.status == 429) ++refused;
      if (first_error.empty()) first_error = outcome.error;
      continue;
    }
    begin = any ? std::min(begin, outcome.start_s) : outcome.start_s;
    end = any ? std::max(end, outcome.end_s) : outcome.end_s;
    any = true;
    ttft.push_back(outcome.TimeToFirstToken());
    if (outcome.output_tokens > 1) tpot.push_back(outcome.TimePerOutputToken());
    gaps.insert(gaps.end(), outcome.gaps_s.begin(), outcome.gaps_s.end());
    latency.push_back(outcome.end_s - outcome.start_s);
    prompt_tokens += outcome.prompt_tokens;
    cached_tokens += outcome.cached_tokens;
    output_tokens += outcome.output_tokens;
  }
  const double seconds = end - begin;
  auto rate = [&](int64_t count) {
    return seconds > 0 ? Json(static_cast<double>(count) / seconds) : Json();
  };
  return {{"requests", static_cast<int64_t>(outcomes.size())},
          {"failed", failed},
          {"refused", refused},
          {"first_error", first_error},
          {"seconds", seconds},
          {"prompt_tokens", prompt_tokens},
          {"cached_tokens", cached_tokens},
          {"output_tokens", output_tokens},
          {"output_tok_s", rate(output_tokens)},
          {"total_tok_s", rate(prompt_tokens + output_tokens)},
          {"request_s", rate(static_cast<int64_t>(ttft.size()))},
          {"ttft_s", Spread(ttft)},
          {"tpot_s", Spread(tpot)},
          {"gap_s", Spread(gaps)},
          {"latency_s", Spread(latency)}};
}

}  // namespace millpower::bench
