#include "device/chip/routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace millpower::device::chip {
namespace {

// Cumulative probabilities, not normalised.
std::vector<double> CumulativeShares(const RoutingModel& model, int64_t experts) {
  std::vector<double> sums(static_cast<size_t>(experts));
  double sum = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    double share = 1;
    if (model.experts == Popularity::kPowerLaw)
      share = std::pow(static_cast<double>(i + 1), -model.expert_exponent);
    if (model.experts == Popularity::kRecorded && i < model.expert_shares.size())
      share = model.expert_shares[i];
    sums[i] = sum += share;
  }
  return sums;
}

// x^-exponent between `least` and `most`: the value below which `share` of the distribution lies.
double PowerQuantile(double exponent, double least, double most, double share) {
  const double e = 1 - exponent;
  if (std::abs(e) < 1e-9) return least * std::pow(most / least, share);
  const double from = std::pow(least, e);
  return std::pow(from + (std::pow(most, e) - from) * share, 1 / e);
}

// Adds to (`step` 1) or takes from (-1) the counts, `left` in all: the ranks in turn, each its
// least or most loaded expert, none above `rows` or below 0.
void Deal(std::span<int64_t> counts, int64_t ranks, int64_t left, int64_t step, int64_t rows) {
  const size_t each = counts.size() / static_cast<size_t>(ranks);
  for (int64_t before = -1; left > 0 && left != before;) {
    before = left;
    for (size_t rank = 0; rank < static_cast<size_t>(ranks) && left > 0; ++rank) {
      const auto mine = counts.subspan(rank * each, each);
      int64_t& count = step > 0 ? *std::ranges::min_element(mine) : *std::ranges::max_element(mine);
      if (step > 0 ? count >= rows : count <= 0) continue;
      count += step;
      --left;
    }
  }
}

std::vector<int64_t> DrawnLoads(const RoutingModel& model, int64_t rows, int64_t choices,
                                int64_t experts) {
  const bool many = rows * choices > experts;
  const double least = many ? 1 : 0.01;
  const double most = many ? std::max(0.8 * static_cast<double>(rows), 1.0) : 2;
  std::vector<double> loads(static_cast<size_t>(experts));
  for (size_t i = 0; i < loads.size(); ++i)
    loads[i] = PowerQuantile(model.expert_exponent, least, most,
                             (static_cast<double>(i) + 0.5) / static_cast<double>(experts));
  Rng rng(Mix64(model.seed) ^ Mix64(static_cast<uint64_t>(rows * 64 + choices)));
  for (size_t i = loads.size() - 1; i > 0; --i) std::swap(loads[i], loads[rng.Below(i + 1)]);

  const double scale =
      static_cast<double>(rows * choices) / std::accumulate(loads.begin(), loads.end(), 0.0);
  std::vector<int64_t> counts(loads.size());
  int64_t above = 0, sum = 0;
  for (size_t i = 0; i < loads.size(); ++i) {
    const auto wanted = static_cast<int64_t>(std::floor(loads[i] * scale + 0.5));
    counts[i] = std::min(wanted, rows);
    above += wanted - counts[i];
    sum += wanted;
  }
  Deal(counts, model.expert_ranks, above, 1, rows);
  const int64_t missing = rows * choices - sum;
  Deal(counts, model.expert_ranks, std::abs(missing), missing > 0 ? 1 : -1, rows);

  const auto each = static_cast<ptrdiff_t>(experts / model.expert_ranks);
  int64_t most_rows = -1, busiest = 0;
  for (int64_t rank = 0; rank < model.expert_ranks; ++rank) {
    const auto first = counts.begin() + rank * each;
    const int64_t of_rank = std::accumulate(first, first + each, int64_t{0});
    if (of_rank > most_rows) most_rows = of_rank, busiest = rank;
  }
  if (busiest > 0)
    std::swap_ranges(counts.begin(), counts.begin() + each, counts.begin() + busiest * each);
  return counts;
}

// A row's choices a stride apart; each row one further, or, of fewer rows than the stride, as far
// as spreads them evenly.
std::vector<int64_t> BalancedLoads(int64_t rows, int64_t choices, int64_t experts) {
  std::vector<int64_t> counts(static_cast<size_t>(experts), 0);
  const int64_t stride = (experts + choices - 1) / choices;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = rows >= stride ? row : row * stride / rows;
    for (int64_t choice = 0; choice < choices; ++choice)
      ++counts[static_cast<size_t>((first + choice * stride) % experts)];
  }
  return counts;
}

// x^(1 - exponent) integrated from 1/2 to n + 1/2, up to a factor.
double PowerSum(double exponent, double n) {
  if (std::abs(exponent - 1) < 1e-9) return std::log(2 * n + 1);
  return (std::pow(n + 0.5, 1 - exponent) - std::pow(0.5, 1 - exponent)) / (1 - exponent);
}

}  // namespace

std::vector<int64_t> RowsOfExperts(const RoutingModel& model, int64_t rows, int64_t choices,
                                   int64_t experts) {
  CHECK(choices >= 1 && choices <= experts) << choices << " of " << experts;
  CHECK(model.expert_ranks >= 1 && experts % model.expert_ranks == 0)
      << experts << " of " << model.expert_ranks;
  if (model.experts == Popularity::kBalanced) return BalancedLoads(rows, choices, experts);
  if (model.experts == Popularity::kDrawn) return DrawnLoads(model, rows, choices, experts);
  std::vector<int64_t> counts(static_cast<size_t>(experts), 0);
  const std::vector<double> sums = CumulativeShares(model, experts);
  Rng rng(model.seed);
  std::vector<size_t> chosen;
  for (int64_t row = 0; row < rows; ++row) {
    chosen.clear();
    // Drawing again what was drawn before is the same as drawing without putting back. A share of 0
    // is taken in the end when nothing else is left.
    for (int64_t tries = 0; std::ssize(chosen) < choices; ++tries) {
      const double at = static_cast<double>(rng.Uniform(0, 1)) * sums.back();
      size_t expert = static_cast<size_t>(std::ranges::upper_bound(sums, at) - sums.begin());
      expert = std::min(expert, sums.size() - 1);
      if (tries > 64 * choices)
        for (expert = 0; std::ranges::find(chosen, expert) != chosen.end();) ++expert;
      if (std::ranges::find(chosen, expert) == chosen.end()) chosen.push_back(expert);
    }
    for (const size_t expert : chosen) ++counts[expert];
  }
  return counts;
}

double ShareOfMostPopular(double exponent, double kept, double rows) {
  if (kept >= rows) return 1;
  if (kept <= 0) return 0;
  return PowerSum(exponent, kept) / PowerSum(exponent, rows);
}

}  // namespace millpower::device::chip
