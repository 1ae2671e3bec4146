#include "plan/search.h"

#include <algorithm>
#include <utility>

namespace millpower::plan {
namespace {

class Search {
 public:
  Search(const SearchSpace& space, const std::vector<Objective>& objectives,
         const std::function<Result<Outcome>(const Layout&)>& run)
      : space_(space), objectives_(objectives), run_(run) {}

  Result<void> TryGroups(int size) {
    const int chips = best_ ? best_->layout.chips() : space_.max_chips;
    const int most = std::min(chips / size, space_.max_replicas);
    int misses = 0;  // so many replicas do
    for (int replicas = 1; misses < most; replicas = std::min(2 * replicas, most)) {
      TRY_ASSIGN(const Verdict verdict, Try({replicas, size}));
      if (verdict == Verdict::kImpossible) return {};
      if (verdict == Verdict::kMeets) return Narrow(misses, replicas, size);
      misses = replicas;
    }
    return {};
  }

  Found Take() && {
    Found found;
    if (best_) found.best = best_->layout;
    found.tried = std::move(tried_);
    return found;
  }

 private:
  enum class Verdict { kImpossible, kMisses, kMeets };

  Result<void> Narrow(int misses, int meets, int size) {
    while (meets - misses > 1) {
      const int middle = misses + (meets - misses) / 2;
      TRY_ASSIGN(const Verdict verdict, Try({middle, size}));
      (verdict == Verdict::kMeets ? meets : misses) = middle;
    }
    return {};
  }

  Result<Verdict> Try(const Layout& layout) {
    Trial trial{layout, {}, "", {}};
    Result<Outcome> outcome = run_(layout);
    if (!outcome) {
      if (!IsVerdict(outcome.error())) return std::unexpected(outcome.error());
      trial.error = outcome.error().message;
      tried_.push_back(std::move(trial));
      return Verdict::kImpossible;
    }
    trial.missed = Missed(objectives_, outcome->latencies);
    trial.outcome = *std::move(outcome);
    if (trial.meets() && (!best_ || IsBetter(trial, *best_))) best_ = trial;
    const bool meets = trial.meets();
    tried_.push_back(std::move(trial));
    return meets ? Verdict::kMeets : Verdict::kMisses;
  }

  static bool IsBetter(const Trial& a, const Trial& b) {
    const auto order = [](const Trial& trial) {
      return std::tuple(trial.layout.chips(), trial.outcome->usd_per_million,
                        trial.outcome->joules_each);
    };
    return order(a) < order(b);
  }

  const SearchSpace& space_;
  const std::vector<Objective>& objectives_;
  const std::function<Result<Outcome>(const Layout&)>& run_;
  std::optional<Trial> best_;
  std::vector<Trial> tried_;
};

}  // namespace

Result<Found> FindFewestChips(const SearchSpace& space, const std::vector<Objective>& objectives,
                              const std::function<Result<Outcome>(const Layout&)>& run) {
  Search search(space, objectives, run);
  for (const int size : space.group_sizes) TRY(search.TryGroups(size));
  return std::move(search).Take();
}

bool IsVerdict(const Error& error) {
  return error.code == ErrorCode::kNoCapacity || error.code == ErrorCode::kUnsupported;
}

}  // namespace millpower::plan
