// What the ledger keeps, as plain data. Times are Unix seconds, UTC; 0 means "never" or "open".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ledger/money.h"
#include "ledger/units.h"

namespace millpower::ledger {

// Short numbers for rows and memory; the world sees the ids ("ten_...", "proj_...", "key_...").
using Number = int64_t;

// Per minute and at a time; 0: no limit. A request needs room in those of its key, its project and
// its tenant.
struct RateLimits {
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;
  int64_t concurrent_requests = 0;
  bool operator==(const RateLimits&) const = default;
};

enum class Period : uint8_t { kDay = 0, kMonth = 1, kTotal = 2 };  // of the calendar, UTC
enum class Measure : uint8_t { kMoney = 0, kTokens = 1 };          // tokens: input, cached, output
// At most `limit` in each period: micro-units or tokens. Counted to the period in which a request
// was admitted, however long it runs.
struct Cap {
  Period period = Period::kMonth;
  Measure measure = Measure::kMoney;
  int64_t limit = 0;
  bool operator==(const Cap&) const = default;
};

// The caps and limits that tenants, projects and keys alike may have; each at most once by period
// and measure.
struct Bounds {
  std::vector<Cap> caps{};
  RateLimits limits{};
  bool operator==(const Bounds&) const = default;
};

// Who has caps and limits.
enum class Subject : uint8_t { kTenant = 0, kProject = 1, kKey = 2 };

struct Tenant {
  Number number = 0;
  std::string id{};    // "ten_" and 24 hexadecimal digits
  std::string name{};  // unique
  int64_t created_at = 0;
  bool suspended = false;
  // How far its credit may go below zero; absent: no bound (it pays later, or is ourselves).
  std::optional<Micros> credit_line = 0;
  Bounds bounds{};
};

struct Project {
  Number number = 0;
  std::string id{};    // "proj_..."
  std::string name{};  // unique within its tenant
  Number tenant = 0;
  int64_t created_at = 0;
  Bounds bounds{};
};

struct Key {
  Number number = 0;
  std::string id{};  // "key_..."
  std::string name{};
  Number tenant = 0, project = 0;
  std::string prefix{};  // the visible part of the secret; unique
  std::string hash{};    // SHA-256 of the secret, 32 bytes
  int64_t created_at = 0;
  int64_t expires_at = 0;  // from then on refused
  int64_t revoked_at = 0;
  // The key that this one comes from by rotations, the first of them; 0: it is none's. They share
  // what is counted to their caps and limits: a new secret is no new allowance.
  Number root = 0;
  // Scopes; empty: all. Endpoints are the names that docs/rental.md lists ("chat", "batches").
  std::vector<std::string> models{}, endpoints{};
  Bounds bounds{};
};
// Whose caps and limits a key's work counts to.
inline Number RootOf(const Key& key) { return key.root != 0 ? key.root : key.number; }

// From `effective_at` on, for `model` ("*": every model without a price of its own), what a unit
// costs at a tier. Versions are kept: one that took effect is never changed.
struct Price {
  Number number = 0;
  std::string model{};
  Tier tier = Tier::kOnDemand;
  Unit unit = Unit::kInputToken;
  Micros rate = 0;  // micro-units for a million quanta
  int64_t effective_at = 0;
  int64_t created_at = 0;
};

// A share of the device's time for a period, charged in advance when it is made; what is not used
// when it is cancelled is given back.
struct Lease {
  Number number = 0;
  std::string id{};  // "lease_..."
  Number tenant = 0;
  int64_t share_ppm = 0;  // millionths of the device's time
  int64_t starts_at = 0, ends_at = 0;
  int64_t cancelled_at = 0;
  Micros rate = 0;    // for a share-hour, when it was made
  Micros amount = 0;  // charged, less what was given back
  int64_t created_at = 0;
};

// One priced quantity of a usage row.
struct UsageLine {
  Unit unit = Unit::kInputToken;
  int64_t quantity = 0;
  Number price = 0;
  Micros amount = 0;
};

enum class Origin : uint8_t { kNone = 0, kModelled = 1, kMeasured = 2 };  // of energy figures

struct Energy {
  int64_t uj = 0;       // microjoules
  int64_t co2e_ug = 0;  // micrograms of CO2 equivalent
  Origin origin = Origin::kNone;
};

// What one unit of work used and cost; immutable. Negative quantities and amounts give back.
struct Usage {
  Number number = 0;
  std::string request_id{};                 // of the engine; unique: the idempotency key
  std::string api_request_id{};             // of the API request it was part of ("chatcmpl-...")
  Number tenant = 0, project = 0, key = 0;  // project and key 0: a lease
  std::string model{};                      // "" of a lease
  std::string endpoint{};                   // "chat"
  Tier tier = Tier::kOnDemand;
  int64_t admitted_at = 0;  // counts to the periods of this time
  int64_t posted_at = 0;
  Quantities quantities{};  // all that was measured, priced or not
  std::vector<UsageLine> lines{};
  Micros amount = 0;     // sum of the lines
  std::string reason{};  // how it ended ("stop", "cancelled")
  int64_t energy_uj = 0, co2e_ug = 0;
  Origin energy_origin = Origin::kNone;
};

// Accounts of the double entry. Each tenant has a credit and a held account.
enum class AccountKind : uint8_t {
  kCredit = 0,    // of a tenant: what it has paid in and not used
  kHeld = 1,      // of a tenant: held for requests under way
  kRevenue = 2,   // ours: what was earned
  kPayments = 3,  // ours: what came in from outside
};
struct Account {
  AccountKind kind = AccountKind::kRevenue;
  Number tenant = 0;  // 0 for ours
  auto operator<=>(const Account&) const = default;
};

// One posting: `amount` leaves `from` and reaches `to`. Every one has two sides, so that the sum of
// all accounts is always zero; `verify` adds them up. Immutable.
enum class PostingKind : uint8_t {
  kPayment = 0,  // payments -> credit; negative amounts pay back
  kHold = 1,     // credit -> held
  kExtend = 2,   // credit -> held
  kPost = 3,     // held -> revenue
  kRelease = 4,  // held -> credit: what was held and not used, or all of it
  kLease = 5,    // credit -> revenue
  kRefund = 6,   // revenue -> credit
};
struct Posting {
  Number number = 0;
  int64_t at = 0;
  PostingKind kind = PostingKind::kHold;
  Account from{}, to{};
  Micros amount = 0;        // > 0
  std::string reference{};  // request id, lease id, or the payment's own reference
};

// A request under way. Gone when it is posted or voided.
struct Hold {
  std::string request_id{};
  Number tenant = 0, project = 0, key = 0;
  std::string model{};
  std::string endpoint{};
  Tier tier = Tier::kOnDemand;
  int64_t admitted_at = 0;
  Micros amount = 0;
  int64_t tokens = 0;
};

struct AuditEntry {
  Number number = 0;  // from 1, without gaps
  int64_t at = 0;
  std::string actor{};    // "admin", "server", "millpower admin"
  std::string action{};   // "key.create"
  std::string subject{};  // an id
  std::string details{};  // JSON of what was asked, never a secret
  std::string hash{};     // SHA-256 over the hash before it and all fields, 32 bytes
};

// One durable change. A Store writes a batch of these in one transaction.
struct HoldOpened {
  Hold hold;
};
struct HoldExtended {
  std::string request_id{};
  Micros more = 0;  // of money
  int64_t more_tokens = 0;
  Number tenant = 0;
  int64_t at = 0;
};
// Posted if there is a usage, else voided.
struct HoldClosed {
  Hold hold;  // as it was
  std::optional<Usage> usage;
  int64_t at = 0;
};
struct Payment {
  Number tenant = 0;
  Micros amount = 0;
  std::string reference{};  // unique: the same payment told twice counts once
  int64_t at = 0;
};
struct LeaseCharged {  // also a lease given back: negative amounts
  Lease lease;         // written over the one of its number
  Usage usage;
};
using Record = std::variant<HoldOpened, HoldExtended, HoldClosed, Payment, LeaseCharged, Tenant,
                            Project, Key, Price, AuditEntry>;  // Tenant, Project, Key: new, or
                                                               // written over

}  // namespace millpower::ledger
