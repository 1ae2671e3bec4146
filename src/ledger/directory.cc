#include "ledger/directory.h"

#include <algorithm>
#include <utility>

#include "ledger/key_secret.h"

namespace millpower::ledger {
namespace {

// Numbers are given in the order of making, so sorting by number is that order, and finding by
// number is a binary search.
template <typename T>
std::vector<T> ByNumber(std::vector<T> all) {
  std::ranges::stable_sort(all, {}, &T::number);
  return all;
}

template <typename T>
const T* FindByNumber(const std::vector<T>& all, Number number) {
  const auto found = std::ranges::lower_bound(all, number, {}, &T::number);
  return found != all.end() && found->number == number ? &*found : nullptr;
}

template <typename T>
const T* FindBy(const std::vector<T>& all, std::string T::* field, std::string_view value) {
  const auto found = std::ranges::find(all, value, field);
  return found == all.end() ? nullptr : &*found;
}

bool RunsAt(const Lease& lease, Number tenant, int64_t at) {
  return lease.tenant == tenant && lease.starts_at <= at && at < lease.ends_at &&
         (lease.cancelled_at == 0 || at < lease.cancelled_at);
}

}  // namespace

Directory::Directory(std::string currency, std::vector<Tenant> tenants,
                     std::vector<Project> projects, std::vector<Key> keys,
                     std::vector<Price> prices, std::vector<Lease> leases)
    : currency_(std::move(currency)),
      tenants_(ByNumber(std::move(tenants))),
      projects_(ByNumber(std::move(projects))),
      keys_(ByNumber(std::move(keys))),
      prices_(ByNumber(std::move(prices))),
      leases_(ByNumber(std::move(leases))) {
  for (size_t i = 0; i < keys_.size(); ++i) keys_by_prefix_.emplace(keys_[i].prefix, i);
}

const Tenant* Directory::FindTenant(Number number) const { return FindByNumber(tenants_, number); }

const Tenant* Directory::FindTenant(std::string_view id) const {
  const Tenant* found = FindBy(tenants_, &Tenant::id, id);
  return found ? found : FindBy(tenants_, &Tenant::name, id);
}

const Project* Directory::FindProject(Number number) const {
  return FindByNumber(projects_, number);
}

const Project* Directory::FindProject(std::string_view id) const {
  return FindBy(projects_, &Project::id, id);
}

const Key* Directory::FindKey(Number number) const { return FindByNumber(keys_, number); }

const Key* Directory::FindKey(std::string_view id) const { return FindBy(keys_, &Key::id, id); }

const Price* Directory::FindPrice(Number number) const { return FindByNumber(prices_, number); }

const Lease* Directory::FindLease(std::string_view id) const {
  return FindBy(leases_, &Lease::id, id);
}

const Key* Directory::FindSecret(std::string_view secret) const {
  const std::string_view prefix = PrefixOf(secret);
  if (prefix.empty()) return nullptr;
  const auto found = keys_by_prefix_.find(std::string(prefix));
  if (found == keys_by_prefix_.end()) return nullptr;
  const Key& key = keys_[found->second];
  return IsSame(Sha256(secret), key.hash) ? &key : nullptr;
}

const Price* Directory::FindVersion(std::string_view model, Tier tier, Unit unit,
                                    int64_t at) const {
  const Price* best = nullptr;
  for (const Price& price : prices_)
    if (price.model == model && price.tier == tier && price.unit == unit &&
        price.effective_at <= at && (!best || price.effective_at >= best->effective_at))
      best = &price;  // among equals the later in the list, which is the one made last
  return best;
}

const Price* Directory::FindPrice(std::string_view model, Tier tier, Unit unit, int64_t at) const {
  const bool has_own = std::ranges::any_of(prices_, [&](const Price& price) {
    return price.model == model && price.tier != Tier::kLease && price.effective_at <= at;
  });
  std::vector<std::string_view> models = {model};
  if (tier == Tier::kLease || !has_own) models.push_back("*");
  std::vector<Tier> tiers = {tier};
  if (tier == Tier::kPriority || tier == Tier::kBatch) tiers.push_back(Tier::kOnDemand);
  std::vector<Unit> units = {unit};
  if (unit == Unit::kCachedToken) units.push_back(Unit::kInputToken);
  for (const std::string_view of : models)
    for (const Tier at_tier : tiers)
      for (const Unit of_unit : units)
        if (const Price* price = FindVersion(of, at_tier, of_unit, at)) return price;
  return nullptr;
}

const Lease* Directory::FindLease(Number tenant, int64_t at) const {
  const auto found =
      std::ranges::find_if(leases_, [&](const Lease& lease) { return RunsAt(lease, tenant, at); });
  return found == leases_.end() ? nullptr : &*found;
}

int64_t Directory::SharePpm(Number tenant, int64_t at) const {
  int64_t share_ppm = 0;
  for (const Lease& lease : leases_) {
    if (RunsAt(lease, tenant, at)) share_ppm += lease.share_ppm;
  }
  return share_ppm;
}

}  // namespace millpower::ledger
