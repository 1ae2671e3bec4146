// Who may do what, and what it costs: an immutable picture, replaced as a whole when anything
// changes, so that a request sees one state of it from start to end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ledger/records.h"

namespace millpower::ledger {

class Directory {
 public:
  Directory(std::string currency, std::vector<Tenant> tenants, std::vector<Project> projects,
            std::vector<Key> keys, std::vector<Price> prices, std::vector<Lease> leases);

  const std::string& currency() const { return currency_; }
  // In the order in which they were made.
  const std::vector<Tenant>& tenants() const { return tenants_; }
  const std::vector<Project>& projects() const { return projects_; }
  const std::vector<Key>& keys() const { return keys_; }
  const std::vector<Price>& prices() const { return prices_; }
  const std::vector<Lease>& leases() const { return leases_; }

  // Null where there is none. `id` may also be a tenant's name.
  const Tenant* FindTenant(Number number) const;
  const Tenant* FindTenant(std::string_view id) const;
  const Project* FindProject(Number number) const;
  const Project* FindProject(std::string_view id) const;
  const Key* FindKey(Number number) const;
  const Key* FindKey(std::string_view id) const;
  const Price* FindPrice(Number number) const;
  const Lease* FindLease(std::string_view id) const;

  // The key of a secret (key_secret.h): found by its visible prefix, compared in constant time.
  // Whether it may be used now is for the caller to look at.
  const Key* FindSecret(std::string_view secret) const;

  // The price in effect at a time; null: it is not for sale. A model with a price of its own at any
  // tier but kLease has nothing at the prices of "*", so that nothing is free by being forgotten;
  // at kLease "*" stands in for what it lacks. Where a tier has none, kPriority and kBatch cost
  // what kOnDemand does, and a cached token what an input token does. Of several versions the one
  // that took effect last counts, of those the one made last.
  const Price* FindPrice(std::string_view model, Tier tier, Unit unit, int64_t at) const;

  // The lease of a tenant that runs at a time, or null; several add up (ShareOf).
  const Lease* FindLease(Number tenant, int64_t at) const;
  int64_t SharePpm(Number tenant, int64_t at) const;

 private:
  const Price* FindVersion(std::string_view model, Tier tier, Unit unit, int64_t at) const;

  std::string currency_;
  std::vector<Tenant> tenants_;
  std::vector<Project> projects_;
  std::vector<Key> keys_;
  std::vector<Price> prices_;
  std::vector<Lease> leases_;
  std::unordered_map<std::string, size_t> keys_by_prefix_;  // index into keys_, so copies are whole
};

}  // namespace millpower::ledger
