// Who works on what, when there are no weights to decide it: which experts rows choose, and which
// rows of embedding tables are looked up. Stated models, so that a result can be repeated.
#pragma once

#include <cstdint>
#include <vector>

namespace millpower::device::chip {

enum class Popularity : uint8_t {
  kBalanced,  // all alike: a row's choices lie evenly over the experts, each row begins one further
  kUniform,   // all alike, drawn at random
  kPowerLaw,  // the i-th of n with a probability that goes by (i + 1)^-exponent
  kDrawn,     // loads are drawn from a power law's density: see RowsOfExperts
  kRecorded,  // by shares that were measured
};

struct RoutingModel {
  Popularity experts = Popularity::kUniform;
  double expert_exponent = 0;         // of kPowerLaw and kDrawn; 0 to 10
  int64_t expert_ranks = 1;           // chips that share the experts out, in order: each as many
  std::vector<double> expert_shares;  // of kRecorded: one for each expert
  double id_exponent = 0;             // of ids in tables: 0 is uniform; 1.05 is a common skew
  uint64_t seed = 1;
};

// How many of `rows` rows each of `experts` works on when every row chooses `choices` different
// ones, drawn one after the other without putting back. Pure: the same arguments, the same result.
//
// kBalanced and kDrawn are how NVIDIA AIConfigurator (github.com/ai-dynamo/aiconfigurator,
// collector/helper.py) measures mixtures of experts. kDrawn gives each expert a load of density
// x^-exponent between 1 and 0.8 rows (0.01 and 2 when there are no more choices than experts), here
// at the middles of as many equal parts of the distribution as there are experts, in random order;
// scales them to rows * choices and rounds. What an expert has beyond `rows`, and what is missing
// or left over, is dealt to the ranks in turn, each one's least or most loaded expert; then the
// rank with the most rows changes places with the first, which is thus the one that all wait for.
std::vector<int64_t> RowsOfExperts(const RoutingModel& model, int64_t rows, int64_t choices,
                                   int64_t experts);

// The share of lookups that the `kept` most popular of `rows` rows of a table have, if the i-th has
// a probability that goes by (i + 1)^-exponent: what a cache of so many rows catches at most.
// Sums are replaced by integrals, which is within 1% from a hundred rows on.
double ShareOfMostPopular(double exponent, double kept, double rows);

}  // namespace millpower::device::chip
