#include "device/arbiter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <span>
#include <vector>

#include "base/rng.h"

namespace millpower::device {
namespace {

constexpr int64_t kMs = 1'000'000;

// Programs that submit their next launch a while after the last one has ended, in virtual time.
struct Client {
  double weight = 1;
  std::vector<Claim> claims{};  // none: one of its own, of `weight`
  LaunchClass launch_class = 0;
  int64_t launch_ns = 10 * kMs;
  int64_t gap_ns = kMs / 10;  // between a launch and the next
  int64_t from_ns = 0;        // first launch
  int64_t until_ns = INT64_MAX;
};

struct Result {
  std::vector<int64_t> device_ns;     // by client
  std::vector<int64_t> longest_wait;  // by client
  int64_t idle_ns = 0;
};

Result Simulate(const std::vector<Client>& clients, int64_t end_ns) {
  Arbiter arbiter;
  Result result;
  std::map<Arbiter::Id, size_t> client_of;
  std::vector<int64_t> next_submit, submitted;
  std::vector<Arbiter::Id> ids;
  for (const Client& client : clients) {
    ids.push_back(arbiter.Join());
    client_of[ids.back()] = ids.size() - 1;
    next_submit.push_back(client.from_ns);
  }
  submitted.resize(clients.size());
  result.device_ns.resize(clients.size());
  result.longest_wait.resize(clients.size());
  int64_t now = 0;
  auto submit_due = [&] {
    for (size_t i = 0; i < clients.size(); ++i)
      if (next_submit[i] <= now && next_submit[i] < clients[i].until_ns) {
        submitted[i] = next_submit[i];
        const Claim own{.caller = 1000 + i, .share = clients[i].weight};
        arbiter.Submit(ids[i], clients[i].launch_class,
                       clients[i].claims.empty() ? std::span(&own, 1)
                                                 : std::span<const Claim>(clients[i].claims),
                       next_submit[i]);
        next_submit[i] = INT64_MAX;
      }
  };
  while (now < end_ns) {
    submit_due();
    const Arbiter::Decision decision = arbiter.Next(now);
    if (decision.next < 0) {
      const int64_t wake =
          std::min({*std::ranges::min_element(next_submit), decision.until_ns, end_ns});
      result.idle_ns += wake - now;
      now = wake;
      continue;
    }
    const size_t i = client_of.at(decision.next);
    result.longest_wait[i] = std::max(result.longest_wait[i], now - submitted[i]);
    now += clients[i].launch_ns;
    submit_due();  // what came meanwhile waits
    result.device_ns[i] += clients[i].launch_ns;
    arbiter.Finish(decision.next, now, clients[i].launch_ns);
    next_submit[i] = now + clients[i].gap_ns;
  }
  return result;
}

double Share(const Result& result, size_t client) {
  int64_t total = 0;
  for (const int64_t ns : result.device_ns) total += ns;
  return static_cast<double>(result.device_ns[client]) / static_cast<double>(total);
}

TEST(Arbiter, SharesTimeByWeight) {
  const Result even = Simulate({{}, {}}, 10'000 * kMs);
  EXPECT_NEAR(Share(even, 0), 0.5, 0.01);
  const Result weighted = Simulate({{.weight = 3}, {.weight = 1}}, 10'000 * kMs);
  EXPECT_NEAR(Share(weighted, 0), 0.75, 0.01);
  const Result three = Simulate({{.weight = 0.5}, {.weight = 1}, {.weight = 2.5}}, 20'000 * kMs);
  EXPECT_NEAR(Share(three, 0), 0.125, 0.01);
  EXPECT_NEAR(Share(three, 1), 0.25, 0.01);
  // Time counts, not launches.
  const Result sizes = Simulate({{.launch_ns = 2 * kMs}, {.launch_ns = 50 * kMs}}, 20'000 * kMs);
  EXPECT_NEAR(Share(sizes, 0), 0.5, 0.02);
  EXPECT_LT(even.idle_ns, 10'000 * kMs / 50);
}

TEST(Arbiter, LowerClassesGoFirst) {
  const Result result = Simulate({{.launch_class = 0}, {.launch_class = 1}}, 10'000 * kMs);
  EXPECT_GT(Share(result, 0), 0.98);
  // But whoever leaves the device alone leaves it to others.
  const Result half =
      Simulate({{.launch_class = 0, .gap_ns = 10 * kMs}, {.launch_class = 2}}, 10'000 * kMs);
  EXPECT_GT(Share(half, 1), 0.4);
  EXPECT_LE(half.longest_wait[0], 10 * kMs);  // one launch, which is not interrupted
}

TEST(Arbiter, NothingWaitsForever) {
  const Result result =
      Simulate({{.launch_class = 0}, {.launch_class = 0}, {.launch_class = 2}}, 20'000 * kMs);
  EXPECT_GE(result.device_ns[2], 10 * 10 * kMs);
  EXPECT_LE(result.longest_wait[2], kAgingNs + 20 * kMs);
}

TEST(Arbiter, OfThoseThatWaitedTooLongTheFirstGoes) {
  Arbiter arbiter;
  const Arbiter::Id a = arbiter.Join(), b = arbiter.Join(), c = arbiter.Join();
  arbiter.Submit(a, 2, {}, 5);
  arbiter.Submit(b, 1, {}, 6);
  arbiter.Submit(c, 0, {}, 7);
  EXPECT_EQ(arbiter.Next(kAgingNs + 6).next, a);
  arbiter.Finish(a, kAgingNs + 6, 0);
  EXPECT_EQ(arbiter.Next(kAgingNs + 6).next, b);
  arbiter.Finish(b, kAgingNs + 6, 0);
  EXPECT_EQ(arbiter.Next(kAgingNs + 6).next, c);
}

// A Program that slept, or was loaded late, does not claim what it did not ask for.
TEST(Arbiter, APauseEarnsNoTime) {
  const Result result = Simulate({{}, {.from_ns = 5'000 * kMs}}, 10'000 * kMs);
  EXPECT_NEAR(static_cast<double>(result.device_ns[0]), 7'500.0 * kMs, 100.0 * kMs);
  EXPECT_LE(result.longest_wait[0], 30 * kMs);
}

// One thread that uses two Programs in turn is not made to wait for what cannot come.
TEST(Arbiter, DoesNotWaitForWhatIsNotPrompt) {
  Arbiter arbiter;
  const Arbiter::Id a = arbiter.Join(), b = arbiter.Join();
  int64_t now = 0, waited = 0;
  for (int i = 0; i < 100; ++i) {
    const Arbiter::Id id = i % 2 == 0 ? a : b;
    arbiter.Submit(id, 0, {}, now);
    Arbiter::Decision decision = arbiter.Next(now);
    if (decision.next < 0) {
      waited += decision.until_ns - now;
      now = decision.until_ns;
      decision = arbiter.Next(now);
    }
    ASSERT_EQ(decision.next, id);
    now += 10 * kMs;
    arbiter.Finish(id, now, 10 * kMs);
  }
  EXPECT_LE(waited, 2 * kGraceNs);
}

TEST(Arbiter, WhoeverLeavesIsForgotten) {
  Arbiter arbiter;
  const Arbiter::Id a = arbiter.Join(), b = arbiter.Join();
  arbiter.Submit(a, 0, {}, 0);
  arbiter.Submit(b, 1, {}, 0);
  arbiter.Leave(a);
  EXPECT_EQ(arbiter.Next(0).next, b);
  arbiter.Finish(b, 1, 1);
  EXPECT_EQ(arbiter.Next(1).next, -1);
  EXPECT_EQ(arbiter.Next(1).until_ns, INT64_MAX);
  EXPECT_NE(arbiter.Join(), a);
}

// --- whose launches they are ---

constexpr Claim Leased(uint64_t caller, double share) { return {.caller = caller, .share = share}; }
constexpr Claim Unleased(uint64_t caller, double rest) {
  return {.caller = caller, .share = rest, .is_split = true};
}

TEST(Arbiter, ALeaseHoldsWhileOthersUseOtherPrograms) {
  for (const double lease : {0.1, 0.3, 0.5, 0.9}) {
    for (const int others : {1, 2, 5}) {
      std::vector<Client> clients = {{.claims = {Leased(0, lease)}}};
      for (int i = 1; i <= others; ++i)
        clients.push_back({.claims = {Unleased(static_cast<uint64_t>(i), 1 - lease)},
                           .launch_ns = (5 + 3 * i) * kMs});
      const Result result = Simulate(clients, 60'000 * kMs);
      EXPECT_NEAR(Share(result, 0), lease, 0.01) << "beside " << others;
      for (size_t i = 1; i < clients.size(); ++i)
        EXPECT_NEAR(Share(result, i), (1 - lease) / others, 0.01) << "of " << others;
    }
  }
}

// A Program that serves several callers has the time of all of them.
TEST(Arbiter, ALaunchHasTheClaimsOfAllItsCallers) {
  const Result result = Simulate({{.claims = {Leased(0, 0.5), Unleased(1, 0.5)}},
                                  {.claims = {Unleased(2, 0.5)}},
                                  {.claims = {Unleased(3, 0.5), Unleased(4, 0.5)}}},
                                 60'000 * kMs);
  EXPECT_NEAR(Share(result, 0), 0.5 + 0.125, 0.01);
  EXPECT_NEAR(Share(result, 1), 0.125, 0.01);
  EXPECT_NEAR(Share(result, 2), 0.25, 0.01);
}

TEST(Arbiter, UsingMoreProgramsEarnsNothing) {
  // A lease in two Programs beside another in a third; two callers without beside one.
  const Result leased = Simulate(
      {{.claims = {Leased(0, 0.5)}}, {.claims = {Leased(0, 0.5)}}, {.claims = {Leased(1, 0.5)}}},
      60'000 * kMs);
  EXPECT_NEAR(Share(leased, 2), 0.5, 0.01);
  const Result unleased = Simulate(
      {{.claims = {Unleased(0, 1)}}, {.claims = {Unleased(0, 1)}}, {.claims = {Unleased(1, 1)}}},
      60'000 * kMs);
  EXPECT_NEAR(Share(unleased, 2), 0.5, 0.01);
}

// The share of whoever wants nothing is everybody's.
TEST(Arbiter, AnIdleLeaseIsGivenAway) {
  const Result result = Simulate({{.claims = {Leased(0, 0.8)}, .until_ns = 1},
                                  {.claims = {Unleased(1, 0.2)}},
                                  {.claims = {Unleased(2, 0.2)}}},
                                 10'000 * kMs);
  EXPECT_NEAR(Share(result, 1), 0.5, 0.01);
  EXPECT_LT(result.idle_ns, 10'000 * kMs / 50);
}

// Any mix of clients: the device is seldom idle while something waits, and all get on.
TEST(Arbiter, RandomClientsAllGetOn) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Rng rng(seed);
    std::vector<Client> clients(2 + rng.Below(5));
    for (Client& client : clients)
      client = {.weight = static_cast<double>(rng.Uniform(0.1f, 4)),
                .launch_class = static_cast<LaunchClass>(rng.Below(kLaunchClasses)),
                .launch_ns = static_cast<int64_t>(1 + rng.Below(40)) * kMs,
                .gap_ns = static_cast<int64_t>(rng.Below(3)) * kMs / 4,
                .from_ns = static_cast<int64_t>(rng.Below(500)) * kMs};
    const int64_t end = 30'000 * kMs;
    const Result result = Simulate(clients, end);
    int64_t most = 0;
    for (const Client& client : clients) most = std::max(most, client.launch_ns);
    for (size_t i = 0; i < clients.size(); ++i) {
      EXPECT_GT(result.device_ns[i], 0) << "seed " << seed << ", client " << i;
      EXPECT_LE(result.longest_wait[i],
                kAgingNs + static_cast<int64_t>(clients.size()) * (most + kGraceNs))
          << "seed " << seed << ", client " << i;
    }
  }
}

}  // namespace
}  // namespace millpower::device
