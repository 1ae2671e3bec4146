// A Store without a disk, for tests: it can be made to fail, to block, and to lose its process
// between any two commits.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "ledger/records.h"
#include "ledger/store.h"

namespace millpower::ledger {

// What stays when the process dies. Thread-safe but for `tables`, which is for tests to look at
// when nobody writes.
class MemoryDisk {
 public:
  struct Tables {
    std::map<Number, Tenant> tenants;
    std::map<Number, Project> projects;
    std::map<Number, Key> keys;
    std::map<Number, Price> prices;
    std::map<Number, Lease> leases;
    std::map<std::string, Hold> holds;
    std::vector<Usage> usage;  // number: position + 1
    std::map<std::string, size_t> usage_of;
    std::vector<Posting> postings;
    std::map<Account, Micros> balances;
    std::set<std::string> payments;
    std::vector<AuditEntry> audit;
  };

  explicit MemoryDisk(std::string currency = "USD") : currency_(std::move(currency)) {}

  // The next `count` commits fail and leave nothing behind.
  void FailCommits(int count);
  // Commits wait until Release. WaitUntilBlocked returns when one does.
  void Block();
  void Release();
  void WaitUntilBlocked();
  // The process that has the disk open dies after `commits` more commits; the next one is lost, or,
  // with `after`, is kept but its outcome is never told. Whatever it tries then fails.
  void CrashAfter(int commits, bool after);
  bool is_crashed() const;
  // A new process may open it.
  void Restart();

  Tables tables;

 private:
  friend class MemoryStore;
  void Apply(const Record& record);
  void Post(PostingKind kind, Account from, Account to, Micros amount, int64_t at,
            const std::string& reference);

  const std::string currency_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int failures_ = 0;
  bool is_blocked_ = false;
  int waiting_ = 0;
  int64_t commits_left_ = INT64_MAX;
  bool keeps_last_ = false;
  bool is_crashed_ = false;
};

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(std::shared_ptr<MemoryDisk> disk) : disk_(std::move(disk)) {}

  Result<StoredState> Load() override;
  Result<void> Commit(std::span<const Record> records) override;
  Result<bool> WasPosted(const std::string& request_id) override;
  Result<bool> WasPaid(const std::string& reference) override;
  Result<UsageReport> ReadUsage(const UsageQuery& query) override;
  Result<std::vector<Usage>> ListUsage(const UsageQuery& query, int64_t limit,
                                       Number before) override;
  Result<std::vector<InvoiceLine>> ReadInvoiceLines(Number tenant, int64_t from,
                                                    int64_t to) override;
  Result<std::vector<Posting>> ListPostings(Number tenant, int64_t from, int64_t to,
                                            int64_t limit) override;
  Result<std::vector<AuditEntry>> ListAudit(Number after, int64_t limit) override;
  Result<std::vector<std::string>> Verify(
      const std::function<bool(const std::string& request_id)>& is_live) override;
  Result<void> Backup(const std::filesystem::path& to) override;

 private:
  const std::shared_ptr<MemoryDisk> disk_;
};

}  // namespace millpower::ledger
