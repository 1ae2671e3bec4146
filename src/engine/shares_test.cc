// What callers get of the device, with leases and without: simulated traffic on the Scheduler, and
// once with the engine.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "base/rng.h"
#include "engine/scheduler.h"
#include "engine/test_engine.h"
#include "engine/test_steps.h"

namespace millpower::engine {
namespace {

// Sends requests of random sizes: `burst` of them whenever fewer than `at_least` wait.
struct Tenant {
  std::string name;
  double lease = 0;
  std::pair<int32_t, int32_t> prompt{1, 1};  // tokens, from and to
  std::pair<int32_t, int32_t> output{1, 1};
  int32_t at_least = 1;
  int32_t burst = 1;
  int64_t on = 1, off = 0;  // steps in which it sends, and in which it does not, in turn
  Priority priority = Priority::kStandard;
};

struct Outcome {
  std::vector<int64_t> rows;  // by tenant
  std::vector<double> device_ns;
  std::vector<int64_t> longest_wait;  // steps from arrival to the first token
  int64_t total_rows = 0, steps = 0, preemptions = 0;
  double share(size_t tenant) const {  // of the device's time
    double total = 0;
    for (const double ns : device_ns) total += ns;
    return device_ns[tenant] / total;
  }
};

// Counts from the moment when `warm_up` rows have been given until `rows` more have.
Outcome Simulate(const std::vector<Tenant>& tenants, const SchedulerLimits& limits, uint64_t seed,
                 int64_t rows, int64_t warm_up = 0, double step_cost_rows = 0) {
  Rng rng(seed);
  const auto pick = [&](std::pair<int32_t, int32_t> range) {
    return range.first +
           static_cast<int32_t>(rng.Below(static_cast<uint64_t>(range.second - range.first + 1)));
  };
  Steps steps(limits);
  steps.step_cost_rows = step_cost_rows;
  std::vector<CallerShare> leases;
  for (const Tenant& tenant : tenants)
    if (tenant.lease > 0) leases.push_back({tenant.name, tenant.lease});
  steps.scheduler.SetShares(leases);
  Outcome outcome;
  outcome.rows.resize(tenants.size());
  outcome.device_ns.resize(tenants.size());
  outcome.longest_wait.resize(tenants.size());
  struct Sent {
    size_t tenant;
    int64_t step;
  };
  std::map<int64_t, Sent> live;
  std::vector<int32_t> waiting(tenants.size());
  std::set<int64_t> started;
  int64_t given = 0;
  for (int64_t step = 0; given < warm_up + rows; ++step) {
    for (size_t i = 0; i < tenants.size(); ++i) {
      const Tenant& tenant = tenants[i];
      if (step % (tenant.on + tenant.off) >= tenant.on || waiting[i] >= tenant.at_least) continue;
      for (int32_t n = 0; n < tenant.burst; ++n) {
        const Sequence* const added = steps.Add({.prompt = pick(tenant.prompt),
                                                 .max_tokens = pick(tenant.output),
                                                 .caller = tenant.name,
                                                 .priority = tenant.priority});
        live[added->order] = {i, step};
        ++waiting[i];
      }
    }
    const Planned planned = steps.Run();
    const bool counts = given >= warm_up;
    int64_t of_step = 0;
    for (const auto& [order, count, picked] : planned) of_step += count;
    if (counts) ++outcome.steps;
    given += of_step;
    for (const auto& [order, count, picked] : planned) {
      const auto [tenant, arrived] = live.at(order);
      if (started.insert(order).second) --waiting[tenant];
      if (picked > 0 && arrived >= 0) {
        outcome.longest_wait[tenant] = std::max(outcome.longest_wait[tenant], step - arrived);
        live[order].step = -1;
      }
      if (!counts) continue;
      outcome.rows[tenant] += count;
      outcome.total_rows += count;
      outcome.device_ns[tenant] += static_cast<double>(count) *
                                   (step_cost_rows + static_cast<double>(of_step)) /
                                   static_cast<double>(of_step);
    }
    for (; !steps.finished.empty(); steps.finished.pop_back()) {
      live.erase(steps.finished.back());
      started.erase(steps.finished.back());
    }
    if (planned.empty() && step > 1'000'000) {
      ADD_FAILURE() << "stands still";
      break;
    }
  }
  outcome.preemptions = steps.scheduler.preemptions();
  return outcome;
}

SchedulerLimits Roomy(int32_t sequences, int32_t rows) {
  SchedulerLimits limits = Limits(sequences, rows, 20000, /*picked=*/999);
  limits.max_page_entries = 999'999;
  limits.prefix_cache = true;
  return limits;
}

constexpr std::pair<int32_t, int32_t> kShort{1, 20}, kLong{60, 200};

// Relative to a share of a fifth and more, else one point of the device.
double Tolerance(double share) { return share >= 0.2 ? 0.05 * share : 0.01; }

TEST(Shares, LeasesHoldUnderContentionOnRandomTraffic) {
  const uint64_t seeds = getenv("SEEDS") ? strtoull(getenv("SEEDS"), nullptr, 10) : 60;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    Rng rng(seed);
    const auto coin = [&] { return rng.Below(2) == 0; };
    const auto places = static_cast<int32_t>(1 + rng.Below(16));
    std::vector<Tenant> tenants;
    const auto random = [&](const std::string& name) {
      return Tenant{.name = name,
                    .prompt = coin() ? kShort : kLong,
                    .output = coin() ? kShort : kLong,
                    .at_least = places,
                    .burst = static_cast<int32_t>(1 + rng.Below(20))};
    };
    double left = 0.9;
    const uint64_t holders = 1 + rng.Below(3);
    for (uint64_t i = 0; i < holders && left >= 0.1; ++i) {
      tenants.push_back(random("lease" + std::to_string(i)));
      tenants.back().lease = static_cast<double>(rng.Uniform(0.1f, static_cast<float>(left)));
      left -= tenants.back().lease;
    }
    const size_t leased = tenants.size();
    const size_t always = leased + 1 + rng.Below(3);
    while (tenants.size() < always)
      tenants.push_back(random("other" + std::to_string(tenants.size())));
    for (uint64_t i = rng.Below(3); i > 0; --i) {
      tenants.push_back(random("sometimes" + std::to_string(i)));
      tenants.back().on = static_cast<int64_t>(20 + rng.Below(400));
      tenants.back().off = static_cast<int64_t>(20 + rng.Below(400));
    }
    const SchedulerLimits limits =
        Roomy(places, places + static_cast<int32_t>(rng.Below(coin() ? 200 : 20)));
    const int64_t rows = 120'000;
    const double step_cost_rows = coin() ? 0 : rng.Uniform(1, 100);
    const Outcome outcome = Simulate(tenants, limits, seed, rows, 10'000, step_cost_rows);
    std::string what = "seed " + std::to_string(seed) + ", " + std::to_string(places) +
                       " places, " + std::to_string(limits.max_batch_tokens) + " rows, " +
                       std::to_string(outcome.steps) + " steps, " +
                       std::to_string(outcome.preemptions) + " preemptions";
    for (size_t i = 0; i < tenants.size(); ++i)
      what += "\n  " + tenants[i].name + " lease " + std::to_string(tenants[i].lease) + " got " +
              std::to_string(outcome.share(i)) + ", prompts to " +
              std::to_string(tenants[i].prompt.second) + ", outputs to " +
              std::to_string(tenants[i].output.second) + " atleast " +
              std::to_string(tenants[i].at_least);
    SCOPED_TRACE(what);
    if (getenv("SHOW")) printf("%s\n", what.c_str());
    for (size_t i = 0; i < leased; ++i)
      EXPECT_NEAR(outcome.share(i), tenants[i].lease, Tolerance(tenants[i].lease))
          << tenants[i].name;
    // Those who always want more get the same.
    for (size_t i = leased + 1; i < always; ++i)
      EXPECT_NEAR(outcome.share(i), outcome.share(leased), 0.01) << tenants[i].name;
  }
}

}  // namespace
}  // namespace millpower::engine
