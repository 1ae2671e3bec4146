// How many chips a load needs: replicas, each a group of chips that runs the model together.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/report.h"

namespace millpower::plan {

struct Layout {
  int replicas = 1;
  int chips_per_replica = 1;

  int chips() const { return replicas * chips_per_replica; }
  bool operator==(const Layout&) const = default;
};

// What became of one layout.
struct Trial {
  Layout layout;
  std::optional<Outcome> outcome;   // absent when it could not be tried
  std::string error;                // why not: it does not fit, or the chip has no such groups
  std::vector<std::string> missed;  // objectives

  bool meets() const { return outcome && missed.empty(); }
};

struct SearchSpace {
  std::vector<int> group_sizes;  // ascending
  int max_chips = 1;             // of all replicas together
  int max_replicas = 1;          // more are no use: there are no more users or requests
};

struct Found {
  std::optional<Layout> best;  // absent: none meets the objectives
  std::vector<Trial> tried;    // in the order in which they were
};

// The fewest chips that meet all objectives; of equally many the layout that costs least for what
// it does (money, or energy where no price is published). For each size of groups the number of
// replicas is doubled until the objectives are met, and then narrowed down by halves, as if what
// meets them with some replicas met them with more; no layout of more chips than the best so far is
// tried. `run` simulates; what it gives with a verdict (kNoCapacity, kUnsupported) is no match for
// any number of replicas. Errors: others of `run`.
Result<Found> FindFewestChips(const SearchSpace& space, const std::vector<Objective>& objectives,
                              const std::function<Result<Outcome>(const Layout&)>& run);

// Why a plan failed is something to show beside others, and no mistake of the flags: it does not
// fit, or the chip cannot compute it.
bool IsVerdict(const Error& error);

}  // namespace millpower::plan
