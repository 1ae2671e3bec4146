// Where the ledger's records are kept: SQLite today (sqlite_store.h), another database when one
// machine is not enough. It decides nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "ledger/records.h"
#include "ledger/reports.h"

namespace millpower::ledger {

// What was posted under a key on a day.
struct Spent {
  Number key = 0;
  int64_t day = 0;  // days since 1970-01-01 UTC
  Micros money = 0;
  int64_t tokens = 0;
};

// All that is kept, but for usage and postings.
struct StoredState {
  std::string currency;
  std::vector<Tenant> tenants;
  std::vector<Project> projects;
  std::vector<Key> keys;
  std::vector<Price> prices;
  std::vector<Lease> leases;
  std::vector<Hold> holds;  // open when it was last used
  std::map<Account, Micros> balances;
  std::vector<Spent> spent;  // of every key and day
  AuditEntry last_audit;     // number 0: none
  Number next_number = 1;    // above all numbers given to tenants, projects, keys, prices, leases
};

// Commit, WasPosted and WasPaid come from one thread; everything else from any.
class Store {
 public:
  virtual ~Store() = default;

  virtual Result<StoredState> Load() = 0;

  // All of them, in order, in one transaction; durable when it returns. An error leaves nothing
  // behind, and the same batch may be tried again. A record that was written before (the same
  // request posted, the same payment told again) changes nothing.
  // Errors: kIo, kNoCapacity (disk full).
  virtual Result<void> Commit(std::span<const Record> records) = 0;

  // Whether there is a usage row of this request, and whether a payment was told with this
  // reference. Asked for every hold: must not wait for a report that is being read.
  virtual Result<bool> WasPosted(const std::string& request_id) = 0;
  virtual Result<bool> WasPaid(const std::string& reference) = 0;

  // ---- Reading; what was committed.
  virtual Result<UsageReport> ReadUsage(const UsageQuery& query) = 0;
  // Usage rows, newest first.
  virtual Result<std::vector<Usage>> ListUsage(const UsageQuery& query, int64_t limit,
                                               Number before) = 0;
  // Lines of a tenant's usage posted in [from, to), grouped by what an invoice shows.
  virtual Result<std::vector<InvoiceLine>> ReadInvoiceLines(Number tenant, int64_t from,
                                                            int64_t to) = 0;
  virtual Result<std::vector<Posting>> ListPostings(Number tenant, int64_t from, int64_t to,
                                                    int64_t limit) = 0;
  virtual Result<std::vector<AuditEntry>> ListAudit(Number after, int64_t limit) = 0;
  // Adds everything up and compares; each fault is a line. `is_live`: whether a hold is of a
  // request that is still under way; where it is not, it may have been closed since it was read, so
  // only one that is still there afterwards is a fault.
  virtual Result<std::vector<std::string>> Verify(
      const std::function<bool(const std::string& request_id)>& is_live) = 0;
  // A consistent copy while the ledger is in use. Errors: kIo; kAlreadyExists.
  virtual Result<void> Backup(const std::filesystem::path& to) = 0;
};

}  // namespace millpower::ledger
