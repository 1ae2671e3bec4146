// Who owes what, exactly. Work is paid for as with a card: a hold before it starts, slices more
// while it goes on, a posting of what it did cost when it ends, and the rest given back. So a cap
// can't be exceeded by races, streams or restarts. See docs/ledger.md.
//
// Decisions are made in memory, under one lock; a writer thread makes them durable, all that have
// come meanwhile in one transaction (group commit). What adds to a balance or frees a hold counts
// only once it is durable; what takes counts at once, and is taken back if it can't be written. So
// memory is never more generous than the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "ledger/directory.h"
#include "ledger/records.h"
#include "ledger/reports.h"
#include "ledger/store.h"

namespace millpower::ledger {

struct HoldRequest {
  std::string request_id{};  // unique for ever
  std::string api_request_id{};
  Number key = 0;
  std::string model{}, endpoint{};
  Tier tier = Tier::kOnDemand;  // kLease is for the ledger to find, from kOnDemand
  // What is held at first, an upper bound of what it will have used until Extend. Input tokens are
  // held at the higher of the input and the cached price.
  Quantities most{};
};

struct LedgerOptions {
  // How long a write that fails is tried again before those who wait for it are told.
  int64_t retry_ns = 10'000'000'000;
  int64_t retry_pause_ns = 50'000'000;
};

// What somebody has left, for those who look.
struct CapState {
  Cap cap;
  int64_t used = 0;  // posted
  int64_t held = 0;
};
struct LedgerStats {
  int64_t commits = 0, records = 0;  // since the start
  int64_t failed_commits = 0;
  int64_t open_holds = 0;
  int64_t recovered_holds = 0;  // voided at start
  bool healthy = true;          // the last commit went well
};

// Functions are thread-safe. Callbacks come on the writer's thread, once, in the order of the calls
// (but for what is refused, which may be told sooner), and must return quickly; they may call the
// ledger's asynchronous functions.
class Ledger {
 public:
  using Done = std::function<void(Result<void>)>;
  using Granted = std::function<void(Result<int64_t>)>;

  // Reads what the store has, and voids the holds of a process that died. `clock` outlives it.
  // Errors: the store's; kCorrupt.
  static Result<std::unique_ptr<Ledger>> Open(std::unique_ptr<Store> store, const Clock& clock,
                                              const LedgerOptions& options = {});
  // Writes what is queued. Callbacks come, and may still call, until it returns.
  ~Ledger();

  std::shared_ptr<const Directory> directory() const;

  // ---- Work. Hold: all or none of the requests, which share one tenant. `done` when durable.
  // Errors: kQuotaExceeded (a cap, or the credit: the message says which and what is left);
  // kUnavailable (no price is set; the store can't be written); kForbidden (suspended, revoked);
  // kAlreadyExists (a request id that is under way or was posted; one that was voided is free).
  void Hold(std::vector<HoldRequest> requests, Done done);

  // Up to `wanted` more output tokens, as many as caps and credit allow. Errors: kQuotaExceeded
  // (not one more), kNotFound, kUnavailable.
  void Extend(const std::string& request_id, int64_t wanted, Granted granted);

  // The request is over and used this, at most what was held. `done` when usage and postings are
  // durable; an error means that they never will be: it is voided instead. Posting what is posted
  // already is fine. Errors: kNotFound, kUnavailable.
  void Post(const std::string& request_id, const Quantities& used, std::string reason, Done done,
            const Energy& energy = {});

  // Gives back all that is held. Unknown ids are ignored.
  void Void(const std::string& request_id, Done done);

  // ---- Administration. Each waits until it is durable, and writes an audit entry in the same
  // transaction. `actor`: who asks. Errors: kNotFound, kAlreadyExists (a name), kInvalidArgument
  // (param names the field), kUnavailable. Never from a callback.
  Result<Tenant> CreateTenant(const std::string& actor,
                              Tenant tenant);  // name, bounds, credit_line
  Result<Tenant> UpdateTenant(const std::string& actor, const Tenant& tenant);  // by number
  Result<Project> CreateProject(const std::string& actor, Project project);
  Result<Project> UpdateProject(const std::string& actor, const Project& project);
  struct MadeKey {
    Key key;
    std::string secret;
  };
  Result<MadeKey> CreateKey(const std::string& actor, Key key);  // name, project, scopes, bounds
  Result<Key> UpdateKey(const std::string& actor, const Key& key);
  Result<Key> RevokeKey(const std::string& actor, Number key);
  // A new secret with the same rights; the old one ends `overlap_s` from now.
  Result<MadeKey> RotateKey(const std::string& actor, Number key, int64_t overlap_s);
  Result<Price> AddPrice(const std::string& actor, Price price);  // not in the past
  // Charges the tenant in advance, at the price of a share-hour of model "*" and tier lease. Errors
  // besides: kQuotaExceeded (credit, caps), kNoCapacity (shares add up to more than the device).
  Result<Lease> CreateLease(const std::string& actor, Lease lease);
  Result<Lease> CancelLease(const std::string& actor, Number lease);
  // The balance after it. Negative amounts pay back. A `reference` that was told before changes
  // nothing.
  Result<Micros> AddCredit(const std::string& actor, Number tenant, Micros amount,
                           const std::string& reference);

  // ---- Looking.
  Micros Balance(Account account) const;
  using Subject = ledger::Subject;
  std::vector<CapState> Caps(Subject subject, Number number) const;
  // Posted and held today, this month, and ever, whether or not there is a cap.
  CapState SpentIn(Subject subject, Number number, Period period, Measure measure) const;
  LedgerStats stats() const;
  Result<Invoice> MakeInvoice(Number tenant, const Month& month) const;
  // Empty: the books balance.
  Result<std::vector<std::string>> Verify() const;
  Store& store() const;  // its reading functions, and Backup

 private:
  struct Impl;
  explicit Ledger(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::ledger
