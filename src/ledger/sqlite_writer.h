// Writes batches of records into a ledger's file, one transaction each. See sqlite_store.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/result.h"
#include "ledger/records.h"
#include "ledger/sqlite.h"

namespace millpower::ledger {

// Owns the one connection that writes. One thread at a time.
class SqliteWriter {
 public:
  // `database` has the schema. Errors: what SQLite says of a file whose tables are not ours.
  static Result<std::unique_ptr<SqliteWriter>> Open(Database database);

  // As Store's.
  Result<void> Commit(std::span<const Record> records);
  Result<bool> WasPosted(const std::string& request_id);
  Result<bool> WasPaid(const std::string& reference);

 private:
  // Prepared once: preparing costs more than running.
  struct Statements {
    Statement begin, commit, rollback;
    Statement add_request, find_request, was_posted, was_paid;
    Statement add_hold, extend_hold, close_hold;
    Statement add_usage, add_line, add_payment, add_posting;
    Statement add_to_balance, add_to_spent;
    Statement put_tenant, put_project, put_key, put_lease, add_price, add_audit;
    Statement clear_caps, add_cap, clear_scopes, add_scope;
  };
  // Sums of a batch, written once for each row that they change.
  struct Sums {
    std::map<int64_t, Micros> balances;                                      // by account
    std::map<std::pair<Number, int64_t>, std::pair<Micros, int64_t>> spent;  // by key and day
  };
  // A request's number, and whether it was seen before.
  struct Request {
    Number number = 0;
    bool is_new = true, is_posted = false, is_held = false;
  };

  explicit SqliteWriter(Database database) : database_(std::move(database)) {}

  Result<void> Rollback();
  Result<void> WriteSums();
  Result<Request> AddRequest(const std::string& request_id);
  Result<void> AddPosting(PostingKind kind, int64_t at, const Account& from, const Account& to,
                          Micros amount, Number request, Number payment);
  Result<void> AddUsage(Number request, const Usage& usage);
  Result<void> PutBounds(int64_t owner_kind, Number owner, const Bounds& bounds);
  Result<void> PutScopes(Number key, int64_t kind, const std::vector<std::string>& names);

  Result<void> Write(const HoldOpened& record);
  Result<void> Write(const HoldExtended& record);
  Result<void> Write(const HoldClosed& record);
  Result<void> Write(const Payment& record);
  Result<void> Write(const LeaseCharged& record);
  Result<void> Write(const Tenant& tenant);
  Result<void> Write(const Project& project);
  Result<void> Write(const Key& key);
  Result<void> Write(const Price& price);
  Result<void> Write(const AuditEntry& entry);

  Database database_;
  Statements sql_;  // after what they belong to, so that they go first
  Sums sums_;       // of the batch being written
};

}  // namespace millpower::ledger
