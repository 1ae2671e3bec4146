#include "device/arbiter.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "base/check.h"

namespace millpower::device {

Arbiter::Id Arbiter::Join() {
  members_[next_id_] = {};
  return next_id_++;
}

void Arbiter::Leave(Id id) {
  CHECK(members_.contains(id) && !members_[id].runs) << id;
  members_.erase(id);
}

void Arbiter::Submit(Id id, LaunchClass launch_class, std::span<const Claim> claims,
                     int64_t now_ns) {
  CHECK(launch_class >= 0 && launch_class < kLaunchClasses) << launch_class;
  Member& member = members_.at(id);
  CHECK(!member.waits && !member.runs) << id;
  member.waits = true;
  member.launch_class = launch_class;
  member.claims.assign(claims.begin(), claims.end());
  member.submitted_ns = now_ns;
  member.prompt = now_ns - member.finished_ns <= kGraceNs;
  member.tag = std::max(member.tag, started_[static_cast<size_t>(launch_class)]);
}

// Against the launches of its class that wait beside it.
double Arbiter::WeightOf(const Member& member) const {
  if (member.claims.empty()) return 1;
  const auto beside = [&](const Member& other) {
    return other.launch_class == member.launch_class && (other.waits || &other == &member);
  };
  const auto makers = [&](uint64_t caller) {
    double count = 0;
    for (const auto& [id, other] : members_)
      if (beside(other)) count += std::ranges::count(other.claims, caller, &Claim::caller) > 0;
    return count;
  };
  double splitters = 0;
  for (const auto& [id, other] : members_) {
    if (!beside(other)) continue;
    for (const Claim& claim : other.claims)
      if (claim.is_split) splitters += 1 / makers(claim.caller);
  }
  double weight = 0;
  for (const Claim& claim : member.claims)
    weight += claim.share / (claim.is_split ? splitters : 1) / makers(claim.caller);
  return weight;
}

bool Arbiter::Before(const Member& a, const Member& b, int64_t now_ns) {
  const bool a_aged = a.waits && now_ns - a.submitted_ns >= kAgingNs;
  const bool b_aged = b.waits && now_ns - b.submitted_ns >= kAgingNs;
  if (a_aged != b_aged) return a_aged;
  if (a_aged) return a.submitted_ns < b.submitted_ns;
  return std::tie(a.launch_class, a.tag) < std::tie(b.launch_class, b.tag);
}

Arbiter::Decision Arbiter::Next(int64_t now_ns) {
  auto best = members_.end();
  for (auto it = members_.begin(); it != members_.end(); ++it)
    if (it->second.waits && (best == members_.end() || Before(it->second, best->second, now_ns)))
      best = it;
  if (best == members_.end()) return {-1, std::numeric_limits<int64_t>::max()};
  int64_t until = now_ns;
  for (const auto& [id, member] : members_)
    if (!member.waits && member.prompt && Before(member, best->second, now_ns))
      until = std::max(until, member.expected_until_ns);
  if (until > now_ns) return {-1, until};
  Member& chosen = best->second;
  chosen.waits = false;
  chosen.runs = true;
  double& started = started_[static_cast<size_t>(chosen.launch_class)];
  started = std::max(started, chosen.tag);
  return {best->first, 0};
}

void Arbiter::Finish(Id id, int64_t now_ns, int64_t device_ns) {
  Member& member = members_.at(id);
  CHECK(member.runs) << id;
  member.runs = false;
  member.tag += static_cast<double>(device_ns) / WeightOf(member);
  member.finished_ns = now_ns;
  member.expected_until_ns = now_ns + std::min(kGraceNs, device_ns / 2);
}

}  // namespace millpower::device
