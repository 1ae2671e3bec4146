// The tables of a ledger's SQLite file, and the numbers that tell it from other files.
// docs/ledger.md explains them.
#pragma once

#include <cstdint>

#include "ledger/records.h"

namespace millpower::ledger {

inline constexpr int64_t kApplicationId = 0x4d507772;  // "MPwr"
inline constexpr int64_t kFormatVersion = 1;  // PRAGMA user_version; up by one with a change

// Accounts are numbered by what they are, so that postings name them without a look-up: four kinds
// to a tenant (tenants count from 1), the ledger's own under tenant 0.
inline int64_t AccountNumber(const Account& account) {
  return account.tenant * 4 + static_cast<int64_t>(account.kind);
}
inline Account AccountOfNumber(int64_t number) {
  return {static_cast<AccountKind>(number & 3), number >> 2};
}

// Whose caps a row of `caps` holds.
enum class OwnerKind : int64_t { kTenant = 0, kProject = 1, kKey = 2 };
// What a row of `scopes` names.
inline constexpr int64_t kModelScope = 0, kEndpointScope = 1;

// STRICT: a sum that would leave int64 is refused instead of turning into a floating-point number.
// References are declared for `verify` to check; writing does not look them up. What is history
// can't be changed or deleted, not even by hand.
inline constexpr const char* kSchema = R"sql(
CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE tenants (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  suspended INTEGER NOT NULL,
  credit_line INTEGER,                    -- NULL: no bound
  requests_per_minute INTEGER NOT NULL,
  tokens_per_minute INTEGER NOT NULL,
  concurrent_requests INTEGER NOT NULL
) STRICT;

CREATE TABLE projects (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  tenant INTEGER NOT NULL REFERENCES tenants,
  created_at INTEGER NOT NULL,
  requests_per_minute INTEGER NOT NULL,
  tokens_per_minute INTEGER NOT NULL,
  concurrent_requests INTEGER NOT NULL,
  UNIQUE (tenant, name)
) STRICT;

CREATE TABLE keys (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  tenant INTEGER NOT NULL REFERENCES tenants,
  project INTEGER NOT NULL REFERENCES projects,
  prefix TEXT NOT NULL UNIQUE,
  hash BLOB NOT NULL,                     -- SHA-256 of the secret
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,            -- 0: never
  revoked_at INTEGER NOT NULL,            -- 0: not
  requests_per_minute INTEGER NOT NULL,
  tokens_per_minute INTEGER NOT NULL,
  concurrent_requests INTEGER NOT NULL,
  root INTEGER NOT NULL                   -- the first key it was rotated from; 0: none
) STRICT;

-- What a key may be used for; without a row of a kind: everything.
CREATE TABLE scopes (
  key INTEGER NOT NULL REFERENCES keys,
  kind INTEGER NOT NULL,                  -- 0: model, 1: endpoint
  position INTEGER NOT NULL,
  name TEXT NOT NULL,
  PRIMARY KEY (key, kind, position)
) WITHOUT ROWID, STRICT;

CREATE TABLE caps (
  owner_kind INTEGER NOT NULL,            -- 0: tenant, 1: project, 2: key
  owner INTEGER NOT NULL,
  position INTEGER NOT NULL,
  period INTEGER NOT NULL,                -- 0: day, 1: month, 2: total
  measure INTEGER NOT NULL,               -- 0: money, 1: tokens
  most INTEGER NOT NULL,
  PRIMARY KEY (owner_kind, owner, position)
) WITHOUT ROWID, STRICT;

CREATE TABLE prices (
  number INTEGER PRIMARY KEY,
  model TEXT NOT NULL,                    -- '*': any without a price of its own
  tier INTEGER NOT NULL,
  unit INTEGER NOT NULL,
  rate INTEGER NOT NULL,                  -- micro-units for a million quanta
  effective_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE leases (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant INTEGER NOT NULL REFERENCES tenants,
  share_ppm INTEGER NOT NULL,
  starts_at INTEGER NOT NULL,
  ends_at INTEGER NOT NULL,
  cancelled_at INTEGER NOT NULL,
  rate INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

-- Every request that was ever held or charged. Its text stands here once; all else has the number.
CREATE TABLE requests (
  number INTEGER PRIMARY KEY,
  request_id TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE holds (                      -- of requests under way
  request INTEGER PRIMARY KEY REFERENCES requests,
  tenant INTEGER NOT NULL REFERENCES tenants,
  project INTEGER NOT NULL,
  key INTEGER NOT NULL,
  model TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  tier INTEGER NOT NULL,
  admitted_at INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  tokens INTEGER NOT NULL
) STRICT;

CREATE TABLE usage (
  number INTEGER PRIMARY KEY,
  request INTEGER NOT NULL UNIQUE REFERENCES requests,
  api_request_id TEXT NOT NULL,
  tenant INTEGER NOT NULL REFERENCES tenants,
  project INTEGER NOT NULL,               -- 0: a lease
  key INTEGER NOT NULL,                   -- 0: a lease
  model TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  tier INTEGER NOT NULL,
  admitted_at INTEGER NOT NULL,
  posted_at INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  inferences INTEGER NOT NULL,
  candidates INTEGER NOT NULL,
  chip_us INTEGER NOT NULL,
  work_uj INTEGER NOT NULL,               -- sold by the joule; energy_uj is what it is said to need
  share_ppm_hours INTEGER NOT NULL,
  reason TEXT NOT NULL,
  energy_uj INTEGER NOT NULL,
  co2e_ug INTEGER NOT NULL,
  energy_origin INTEGER NOT NULL          -- 0: none, 1: modelled, 2: measured
) STRICT;
CREATE INDEX usage_of_tenant ON usage (tenant, posted_at);

CREATE TABLE usage_lines (
  usage INTEGER NOT NULL REFERENCES usage,
  position INTEGER NOT NULL,
  unit INTEGER NOT NULL,
  quantity INTEGER NOT NULL,
  price INTEGER NOT NULL REFERENCES prices,
  amount INTEGER NOT NULL,
  PRIMARY KEY (usage, position)
) WITHOUT ROWID, STRICT;

CREATE TABLE payments (
  number INTEGER PRIMARY KEY,
  tenant INTEGER NOT NULL REFERENCES tenants,
  at INTEGER NOT NULL,
  amount INTEGER NOT NULL,                -- negative: paid back
  reference TEXT NOT NULL UNIQUE
) STRICT;

-- Accounts are tenant * 4 + kind (0: credit, 1: held, 2: revenue, 3: payments; ours: tenant 0).
CREATE TABLE postings (
  number INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  source INTEGER NOT NULL,
  target INTEGER NOT NULL,
  amount INTEGER NOT NULL,                -- > 0, from source to target
  request INTEGER REFERENCES requests,    -- of work and leases
  payment INTEGER REFERENCES payments     -- of payments
) STRICT;

CREATE TABLE balances (                   -- of accounts: the sum of their postings
  account INTEGER PRIMARY KEY,
  amount INTEGER NOT NULL
) STRICT;

CREATE TABLE spent (                      -- the sum of usage admitted on a day (since 1970)
  key INTEGER NOT NULL,
  day INTEGER NOT NULL,
  money INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  PRIMARY KEY (key, day)
) WITHOUT ROWID, STRICT;

CREATE TABLE audit (
  number INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  details TEXT NOT NULL,
  hash BLOB NOT NULL
) STRICT;
)sql";

// Tables whose rows stay as they were written; each gets triggers that say so.
inline constexpr const char* kImmutableTables[] = {"prices",   "requests", "usage", "usage_lines",
                                                   "payments", "postings", "audit"};

}  // namespace millpower::ledger
