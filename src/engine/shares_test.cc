// What callers get of the device, with leases and without: simulated traffic on the Scheduler, and
// once with the engine.
#include <gtest/gtest.h>

#include <algorithm>
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
  for (uint64_t seed = 1; seed <= 60; ++seed) {
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
    for (size_t i = 0; i < leased; ++i)
      EXPECT_NEAR(outcome.share(i), tenants[i].lease, Tolerance(tenants[i].lease))
          << tenants[i].name;
    // Those who always want more get the same.
    for (size_t i = leased + 1; i < always; ++i)
      EXPECT_NEAR(outcome.share(i), outcome.share(leased), 0.01) << tenants[i].name;
  }
}

// Without anything leased, tenants share equally, whatever their requests look like.
TEST(Shares, TenantsWithoutLeasesAreEqual) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Rng rng(seed);
    const auto places = static_cast<int32_t>(1 + rng.Below(12));
    std::vector<Tenant> tenants;
    for (int i = 0; i < 2 + static_cast<int>(rng.Below(4)); ++i)
      tenants.push_back({.name = std::to_string(i),
                         .prompt = rng.Below(2) == 0 ? kShort : kLong,
                         .output = rng.Below(2) == 0 ? kShort : kLong,
                         .at_least = places,
                         .burst = static_cast<int32_t>(1 + rng.Below(100))});
    const Outcome outcome = Simulate(tenants, Roomy(places, places + 40), seed, 120'000, 0, 20);
    for (size_t i = 0; i < tenants.size(); ++i)
      EXPECT_NEAR(outcome.share(i), 1.0 / static_cast<double>(tenants.size()), 0.01)
          << "seed " << seed << ", tenant " << i;
  }
}

// A lease whose holder asks for nothing costs nobody anything: step for step the same.
TEST(Shares, AnIdleLeaseIsGivenAway) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    std::vector<Tenant> tenants = {
        {.name = "a", .prompt = kLong, .output = kShort, .at_least = 9, .burst = 30},
        {.name = "b", .prompt = kShort, .output = kLong, .at_least = 9, .burst = 3}};
    const Outcome without = Simulate(tenants, Roomy(6, 40), seed, 50'000);
    tenants.push_back({.name = "holder", .lease = 0.8, .on = 0, .off = 1});
    const Outcome with = Simulate(tenants, Roomy(6, 40), seed, 50'000);
    EXPECT_EQ(with.steps, without.steps);
    EXPECT_EQ(with.rows[0], without.rows[0]);
    EXPECT_EQ(with.rows[1], without.rows[1]);
    EXPECT_EQ(with.rows[2], 0);
    EXPECT_EQ(with.preemptions, 0);
  }
}

// When everything is leased, the others still get a little; it is not taken from any lease by more
// than the hundredth that it is.
TEST(Shares, WhenAllIsLeasedTheOthersGetAHundredth) {
  const std::vector<Tenant> tenants = {
      {.name = "most", .lease = 0.7, .prompt = kShort, .output = kLong, .at_least = 8},
      {.name = "rest", .lease = 0.3, .prompt = kLong, .output = kShort, .at_least = 8},
      {.name = "none", .prompt = kShort, .output = kShort, .at_least = 8, .burst = 50}};
  const Outcome outcome = Simulate(tenants, Roomy(8, 40), 1, 200'000, 10'000);
  EXPECT_NEAR(outcome.share(0), 0.7 / 1.01, 0.01);
  EXPECT_NEAR(outcome.share(1), 0.3 / 1.01, 0.01);
  EXPECT_NEAR(outcome.share(2), 0.01 / 1.01, 0.005);
}

// One tenant's hundred streams, and another's one: it has the first place that comes free, and its
// prompt goes before those of the others in every step. So it waits for the shortest rest of those
// that run - here an output of 200 at most, or a prompt of 200 in the rows that 7 others leave -
// and for its own prompt, half of the rows at least.
TEST(Shares, AHundredStreamsDoNotStarveOne) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<Tenant> tenants = {
        {.name = "hundred", .prompt = kLong, .output = kLong, .at_least = 92, .burst = 1},
        {.name = "one", .prompt = kLong, .output = {1, 1}, .at_least = 1, .on = 1, .off = 300}};
    const Outcome outcome = Simulate(tenants, Roomy(8, 64), seed, 60'000);
    EXPECT_GT(outcome.rows[1], 0);
    EXPECT_LE(outcome.longest_wait[1], 200 / ((64 - 7) / 2) + 200 / ((64 - 7) / 8) + 200) << seed;
    // In truth a place comes free after a few dozen steps.
    EXPECT_LE(outcome.longest_wait[1], 120) << seed;
  }
}

// One that leaves with each answer, and comes back with its next request, is still ahead.
TEST(Shares, LeavingForgetsNothing) {
  Steps steps(Roomy(1, 40));
  steps.scheduler.SetShares({{"holder", 0.9}});
  int64_t rows = 0, of_returning = 0;
  std::set<int64_t> returning;
  const Sequence* live = nullptr;
  int back_at = 0;
  for (int i = 0; i < 4000; ++i) {
    if (steps.scheduler.waiting() < 4)
      for (int n = 0; n < 9; ++n) steps.Add({.prompt = 5, .max_tokens = 20, .caller = "holder"});
    if (live == nullptr && i >= back_at) {
      live = steps.Add({.prompt = 5, .max_tokens = 20, .caller = "returning"});
      returning.insert(live->order);
    }
    for (const auto& [order, count, picked] : steps.Run()) {
      rows += count;
      if (returning.contains(order)) of_returning += count;
    }
    if (!steps.finished.empty() && returning.contains(steps.finished.back())) {
      live = nullptr;
      back_at = i + 3;
    }
    steps.finished.clear();
  }
  EXPECT_NEAR(static_cast<double>(of_returning) / static_cast<double>(rows), 0.1, 0.02);
}

// --- taking back ---

TEST(Shares, AHolderThatComesTakesItsPlacesAndNoMore) {
  Steps steps(Roomy(8, 64));
  steps.scheduler.SetShares({{"holder", 0.5}});
  for (int i = 0; i < 20; ++i) steps.Add({.prompt = 4, .max_tokens = 500, .caller = "other"});
  for (int i = 0; i < 50; ++i) steps.Run();
  for (int i = 0; i < 20; ++i) steps.Add({.prompt = 4, .max_tokens = 500, .caller = "holder"});
  const Planned planned = steps.Run();
  // The last come of the other gave way; what it had computed is found again.
  EXPECT_EQ(std::ranges::count_if(planned, [](const auto& share) { return share[0] >= 20; }), 4);
  EXPECT_EQ(std::ranges::count_if(planned, [](const auto& share) { return share[0] < 4; }), 4);
  EXPECT_EQ(steps.scheduler.preemptions(), 4);
  for (int i = 0; i < 400; ++i) steps.Run();
  EXPECT_EQ(steps.scheduler.preemptions(), 4);
}

// Whoever has its part keeps it: two holders and others take nothing back and forth.
TEST(Shares, NothingIsTakenBackAndForth) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    std::vector<Tenant> tenants = {
        {.name = "a", .lease = 0.3}, {.name = "b", .lease = 0.4}, {.name = "c"}};
    for (Tenant& tenant : tenants) {
      tenant.prompt = kShort;
      tenant.output = rng.Below(2) == 0 ? kLong : std::pair(400, 900);
      tenant.at_least = 1;
      tenant.burst = static_cast<int32_t>(1 + rng.Below(30));
    }
    const Outcome outcome = Simulate(tenants, Roomy(10, 60), seed, 100'000);
    // Less than one in a hundred steps, and than one for two sequences.
    EXPECT_LE(outcome.preemptions, outcome.steps / 100) << "seed " << seed;
  }
}

// A lease of less than a place, and others whose sequences never end: it still gets its time.
TEST(Shares, EndlessSequencesDoNotOutlastASmallLease) {
  for (const double lease : {0.1, 0.2}) {
    const std::vector<Tenant> tenants = {
        {.name = "holder", .lease = lease, .prompt = kShort, .output = kShort, .at_least = 4},
        {.name = "endless", .prompt = kShort, .output = {100'000, 200'000}, .at_least = 4}};
    const Outcome outcome = Simulate(tenants, Roomy(4, 40), 1, 80'000, 10'000);
    EXPECT_NEAR(outcome.share(0), lease, Tolerance(lease));
    // Each is paid for with two sequences' time.
    EXPECT_LE(outcome.preemptions, outcome.rows[0] / 20);
  }
}

// Memory is what is short: pages are taken back as places are.
TEST(Shares, LeasesHoldWhenMemoryIsShort) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    const double lease = static_cast<double>(rng.Uniform(0.2f, 0.7f));
    const std::vector<Tenant> tenants = {
        {.name = "holder", .lease = lease, .prompt = kLong, .output = kLong, .at_least = 16},
        {.name = "other", .prompt = kLong, .output = kLong, .at_least = 16, .burst = 9},
        {.name = "third", .prompt = kShort, .output = kLong, .at_least = 16, .burst = 9}};
    SchedulerLimits limits = Roomy(16, 80);
    limits.pages = static_cast<int32_t>(60 + rng.Below(100));  // 25 are a whole context
    const Outcome outcome = Simulate(tenants, limits, seed, 150'000, 10'000, 20);
    EXPECT_NEAR(outcome.share(0), lease, Tolerance(lease))
        << "seed " << seed << ", " << limits.pages << " pages";
  }
}

// Others' prompts do not leave a holder behind whose sequences only need their next tokens.
TEST(Shares, PromptsAreHeldDownWhileAHolderWaits) {
  Steps steps(Roomy(4, 100));
  steps.scheduler.SetShares({{"holder", 0.5}});
  for (int i = 0; i < 9; ++i) steps.Add({.prompt = 1, .max_tokens = 400, .caller = "holder"});
  for (int i = 0; i < 9; ++i) steps.Add({.prompt = 4000, .max_tokens = 1, .caller = "other"});
  for (int i = 0; i < 20; ++i) steps.Run();
  int64_t rows[2] = {0, 0};
  for (int i = 0; i < 100; ++i)
    for (const auto& [order, count, picked] : steps.Run()) rows[order < 9 ? 0 : 1] += count;
  EXPECT_NEAR(static_cast<double>(rows[1]), static_cast<double>(rows[0]), 20.0);
  // When it does not wait, they are not.
  for (int i = 2; i < 9; ++i)
    if (Sequence* const sequence = steps.scheduler.Find(std::to_string(i)))
      if (sequence->pages.empty()) steps.scheduler.Remove(sequence);
  int64_t of_step = 0;
  for (const auto& [order, count, picked] : steps.Run()) of_step += count;
  EXPECT_EQ(of_step, 100);
}

// Higher classes come first, but not before what is leased.
TEST(Shares, ALeaseHoldsAgainstAHigherClass) {
  const std::vector<Tenant> tenants = {
      {.name = "holder", .lease = 0.5, .prompt = kLong, .output = kLong, .at_least = 8},
      {.name = "urgent",
       .prompt = kLong,
       .output = kLong,
       .at_least = 8,
       .priority = Priority::kInteractive},
      {.name = "standard", .prompt = kLong, .output = kLong, .at_least = 8}};
  const Outcome outcome = Simulate(tenants, Roomy(8, 40), 1, 60'000, 10'000);
  EXPECT_NEAR(outcome.share(0), 0.5, 0.05);
  EXPECT_LE(outcome.share(2), 0.01);
}

TEST(Shares, BatchStaysBelowAll) {
  const std::vector<Tenant> tenants = {
      {.name = "holder",
       .lease = 0.9,
       .prompt = kLong,
       .output = kLong,
       .at_least = 8,
       .priority = Priority::kBatch},
      {.name = "other", .prompt = kShort, .output = kLong, .at_least = 8}};
  const Outcome outcome = Simulate(tenants, Roomy(8, 40), 1, 30'000, 5'000);
  EXPECT_EQ(outcome.rows[0], 0);
}

// Shares that change while requests live, and that are no shares.
TEST(Shares, SharesMayChangeAtAnyTime) {
  Steps steps(Roomy(4, 30));
  Rng rng(3);
  std::vector<CallerShare> shares = {{"a", -1}, {"b", NAN}, {"c", INFINITY}, {"a", 0}};
  steps.scheduler.SetShares(shares);
  EXPECT_EQ(steps.scheduler.rest(), 1);
  for (int i = 0; i < 400; ++i) {
    if (i % 7 == 0) {
      shares.clear();
      for (const char* name : {"a", "b", "c"})
        if (rng.Below(2) == 0) shares.push_back({name, static_cast<double>(rng.Uniform(0, 1))});
      steps.scheduler.SetShares(shares);
      EXPECT_GE(steps.scheduler.rest(), kLeastRest);
    }
    if (i < 300)
      steps.Add({.prompt = static_cast<int32_t>(1 + rng.Below(40)),
                 .max_tokens = static_cast<int32_t>(1 + rng.Below(40)),
                 .caller = std::string(1, static_cast<char>('a' + rng.Below(4))),
                 .priority = static_cast<Priority>(rng.Below(3))});
    steps.Run();
  }
  for (int i = 0; !steps.scheduler.Live().empty(); ++i) {
    ASSERT_LT(i, 20000);
    steps.Run();
  }
  EXPECT_EQ(steps.finished.size(), 300u);
  EXPECT_EQ(steps.scheduler.pages().used(), 0);
}

// --- the engine ---

TEST(Shares, TheEnginesDeviceTimeIsSharedAsLeased) {
  constexpr int64_t kSteps = 6000;
  const std::vector<std::pair<std::string, double>> callers = {
      {"half", 0.5}, {"fifth", 0.2}, {"x", 0}, {"y", 0}};
  std::map<std::string, int64_t> device_ns;  // by caller, on the engine's thread
  std::map<std::string, int64_t> waiting;
  std::atomic<Engine*> engine = nullptr;
  Rng rng(5);
  int64_t sent = 0;
  bool is_over = false;
  const auto send = [&](const std::string& caller) {
    std::vector<int32_t> prompt(1 + rng.Below(caller == "x" ? 60 : 12));
    for (int32_t& token : prompt) token = static_cast<int32_t>(rng.Below(device::kTestVocab));
    Request request =
        Ask(std::to_string(sent++), prompt, Greedy(static_cast<int32_t>(1 + rng.Below(18))));
    request.caller = caller;
    ++waiting[caller];
    const auto sink = [&, caller, before = int64_t{0}](const Delta& delta) mutable {
      if (before == 0) --waiting[caller];
      if (!is_over) device_ns[caller] += delta.usage.device_ns - before;
      before = delta.usage.device_ns;
      return Verdict::kContinue;
    };
    ASSERT_TRUE(engine.load()->Submit(request, sink));
  };
  int64_t rows = 0;
  std::vector<size_t> claims;
  std::atomic<bool> done = false;
  const auto submit = [&](int64_t step, const device::Launch& launch) -> Result<void> {
    rows = launch.registers[0];
    claims.push_back(launch.claims.size());
    is_over = step >= kSteps;
    if (is_over) done = true;
    for (const auto& [caller, lease] : callers)
      while (!is_over && waiting[caller] < 8) send(caller);
    for (const device::Claim& claim : launch.claims) {
      EXPECT_GT(claim.share, 0);
      if (claim.is_split) {
        EXPECT_NEAR(claim.share, 0.3, 1e-9);
      }
    }
    return {};
  };
  const auto complete = [&](int64_t) -> Result<int64_t> { return 5000 + 1000 * rows; };
  Served served = Serve({}, 60, {.submit = submit, .complete = complete});
  engine = served.engine.get();
  served.engine->SetShares({{"half", 0.5}, {"fifth", 0.2}});
  send("x");
  while (!done) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  served.engine->Drain(60 * kSecond);
  served.engine = nullptr;
  int64_t total = 0;
  for (const auto& [caller, ns] : device_ns) total += ns;
  for (const auto& [caller, lease] : callers)
    EXPECT_NEAR(static_cast<double>(device_ns[caller]) / static_cast<double>(total),
                lease > 0 ? lease : 0.15, Tolerance(lease > 0 ? lease : 0.15))
        << caller;
  EXPECT_GE(*std::ranges::max_element(claims), 3u);
}

}  // namespace
}  // namespace millpower::engine
