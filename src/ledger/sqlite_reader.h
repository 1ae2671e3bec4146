// What is asked of a ledger's file, in SQL. Each function reads one consistent state. The file is
// not trusted: a value that stands for nothing is kCorrupt. See sqlite_store.h.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "ledger/sqlite.h"
#include "ledger/store.h"

namespace millpower::ledger {

// One state of the file for several statements, until it goes.
class Snapshot {
 public:
  static Result<Snapshot> Take(Database& database) {
    TRY(database.Execute("BEGIN"));
    return Snapshot(&database);
  }
  Snapshot(Snapshot&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Snapshot& operator=(Snapshot&&) = delete;
  ~Snapshot() {
    // Nothing was written; what an error ended already can't be ended again.
    if (database_) (void)database_->Execute("ROLLBACK");
  }

 private:
  explicit Snapshot(Database* database) : database_(database) {}
  Database* database_;
};

// Calls `each` for every row.
template <typename Each>
Result<void> ForEachRow(Statement& statement, Each each) {
  for (;;) {
    TRY_ASSIGN(const bool has_row, statement.Step());
    if (!has_row) break;
    TRY(each());
  }
  statement.Reset();
  return {};
}

// The value of an enumeration that ends with `last`.
template <typename Enum>
Result<Enum> EnumAt(const Statement& row, int column, Enum last, const char* what) {
  const int64_t value = row.Int(column);
  if (value < 0 || value > static_cast<int64_t>(last))
    return Fail(ErrorCode::kCorrupt, fmt::format("{} is no {}", value, what));
  return static_cast<Enum>(value);
}

Result<StoredState> ReadState(Database& database);
Result<UsageReport> ReadUsageReport(Database& database, const UsageQuery& query);
Result<std::vector<Usage>> ReadUsageRows(Database& database, const UsageQuery& query, int64_t limit,
                                         Number before);
Result<std::vector<InvoiceLine>> ReadInvoiceLines(Database& database, Number tenant, int64_t from,
                                                  int64_t to);
Result<std::vector<Posting>> ReadPostings(Database& database, Number tenant, int64_t from,
                                          int64_t to, int64_t limit);
Result<std::vector<AuditEntry>> ReadAudit(Database& database, Number after, int64_t limit);

}  // namespace millpower::ledger
