#include "ledger/memory_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/check.h"
#include "ledger/audit.h"
#include "ledger/units.h"

namespace millpower::ledger {
namespace {

constexpr Account kRevenue{AccountKind::kRevenue, 0};
constexpr Account kPayments{AccountKind::kPayments, 0};

int64_t DayOf(int64_t at) {
  return std::chrono::floor<std::chrono::days>(std::chrono::sys_seconds(std::chrono::seconds(at)))
      .time_since_epoch()
      .count();
}

bool Matches(const UsageQuery& query, const Usage& usage) {
  return usage.posted_at >= query.from && usage.posted_at < query.to &&
         (query.tenant == 0 || query.tenant == usage.tenant) &&
         (query.project == 0 || query.project == usage.project) &&
         (query.key == 0 || query.key == usage.key) &&
         (query.model.empty() || query.model == usage.model) &&
         (query.request_id.empty() || query.request_id == usage.request_id ||
          query.request_id == usage.api_request_id);
}

template <typename T>
std::vector<T> ValuesOf(const auto& map) {
  std::vector<T> values;
  for (const auto& [key, value] : map) values.push_back(value);
  return values;
}

}  // namespace

void MemoryDisk::FailCommits(int count) {
  const std::lock_guard lock(mutex_);
  failures_ = count;
}

void MemoryDisk::Block() {
  const std::lock_guard lock(mutex_);
  is_blocked_ = true;
}

void MemoryDisk::Release() {
  const std::lock_guard lock(mutex_);
  is_blocked_ = false;
  changed_.notify_all();
}

void MemoryDisk::WaitUntilBlocked() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return waiting_ > 0; });
}

void MemoryDisk::CrashAfter(int commits, bool after) {
  const std::lock_guard lock(mutex_);
  commits_left_ = commits;
  keeps_last_ = after;
}

bool MemoryDisk::is_crashed() const {
  const std::lock_guard lock(mutex_);
  return is_crashed_;
}

void MemoryDisk::Restart() {
  const std::lock_guard lock(mutex_);
  is_crashed_ = false;
  commits_left_ = INT64_MAX;
}

void MemoryDisk::Post(PostingKind kind, Account from, Account to, Micros amount, int64_t at,
                      const std::string& reference) {
  if (amount == 0) return;
  if (amount < 0) {
    std::swap(from, to);
    amount = -amount;
  }
  tables.postings.push_back({.number = static_cast<Number>(tables.postings.size()) + 1,
                             .at = at,
                             .kind = kind,
                             .from = from,
                             .to = to,
                             .amount = amount,
                             .reference = reference});
  tables.balances[from] -= amount;
  tables.balances[to] += amount;
}

void MemoryDisk::Apply(const Record& record) {
  const auto credit = [](Number tenant) { return Account{AccountKind::kCredit, tenant}; };
  const auto held = [](Number tenant) { return Account{AccountKind::kHeld, tenant}; };
  const auto add_usage = [&](Usage usage) {
    usage.number = static_cast<Number>(tables.usage.size()) + 1;
    tables.usage_of[usage.request_id] = tables.usage.size();
    tables.usage.push_back(std::move(usage));
  };
  const auto apply = [&]<typename T>(const T& value) {
    if constexpr (std::is_same_v<T, HoldOpened>) {
      const Hold& hold = value.hold;
      if (!tables.holds.emplace(hold.request_id, hold).second) return;
      Post(PostingKind::kHold, credit(hold.tenant), held(hold.tenant), hold.amount,
           hold.admitted_at, hold.request_id);
    } else if constexpr (std::is_same_v<T, HoldExtended>) {
      const auto found = tables.holds.find(value.request_id);
      CHECK(found != tables.holds.end()) << value.request_id;
      found->second.amount += value.more;
      found->second.tokens += value.more_tokens;
      Post(PostingKind::kExtend, credit(value.tenant), held(value.tenant), value.more, value.at,
           value.request_id);
    } else if constexpr (std::is_same_v<T, HoldClosed>) {
      const auto found = tables.holds.find(value.hold.request_id);
      if (found == tables.holds.end()) return;
      const Hold hold = found->second;
      CHECK(hold.amount == value.hold.amount && hold.tokens == value.hold.tokens)
          << hold.request_id << " holds " << hold.amount << ", not " << value.hold.amount;
      tables.holds.erase(found);
      const Micros used = value.usage ? value.usage->amount : 0;
      Post(PostingKind::kPost, held(hold.tenant), kRevenue, used, value.at, hold.request_id);
      Post(PostingKind::kRelease, held(hold.tenant), credit(hold.tenant), hold.amount - used,
           value.at, hold.request_id);
      if (value.usage) add_usage(*value.usage);
    } else if constexpr (std::is_same_v<T, Payment>) {
      if (!tables.payments.insert(value.reference).second) return;
      Post(PostingKind::kPayment, kPayments, credit(value.tenant), value.amount, value.at,
           value.reference);
    } else if constexpr (std::is_same_v<T, LeaseCharged>) {
      tables.leases[value.lease.number] = value.lease;
      if (tables.usage_of.contains(value.usage.request_id)) return;
      const PostingKind kind = value.usage.amount < 0 ? PostingKind::kRefund : PostingKind::kLease;
      Post(kind, credit(value.lease.tenant), kRevenue, value.usage.amount, value.usage.posted_at,
           value.lease.id);
      add_usage(value.usage);
    } else if constexpr (std::is_same_v<T, Tenant>) {
      tables.tenants[value.number] = value;
    } else if constexpr (std::is_same_v<T, Project>) {
      tables.projects[value.number] = value;
    } else if constexpr (std::is_same_v<T, Key>) {
      tables.keys[value.number] = value;
    } else if constexpr (std::is_same_v<T, Price>) {
      tables.prices[value.number] = value;
    } else {
      static_assert(std::is_same_v<T, AuditEntry>);
      tables.audit.push_back(value);
    }
  };
  std::visit(apply, record);
}

Result<void> MemoryStore::Commit(std::span<const Record> records) {
  MemoryDisk& disk = *disk_;
  std::unique_lock lock(disk.mutex_);
  ++disk.waiting_;
  disk.changed_.notify_all();
  disk.changed_.wait(lock, [&] { return !disk.is_blocked_; });
  --disk.waiting_;
  const auto fail = [](const char* why) { return Fail(ErrorCode::kIo, why); };
  if (disk.is_crashed_) return fail("the process is dead");
  if (disk.failures_ > 0) {
    --disk.failures_;
    return fail("the disk was told to fail");
  }
  const bool crashes = disk.commits_left_-- == 0;
  disk.is_crashed_ = crashes;
  if (crashes && !disk.keeps_last_) return fail("the process died before the commit");
  for (const Record& record : records) disk.Apply(record);
  if (crashes) return fail("the process died after the commit");
  return {};
}

Result<StoredState> MemoryStore::Load() {
  const std::lock_guard lock(disk_->mutex_);
  const MemoryDisk::Tables& tables = disk_->tables;
  StoredState state;
  state.currency = disk_->currency_;
  state.tenants = ValuesOf<Tenant>(tables.tenants);
  state.projects = ValuesOf<Project>(tables.projects);
  state.keys = ValuesOf<Key>(tables.keys);
  state.prices = ValuesOf<Price>(tables.prices);
  state.leases = ValuesOf<Lease>(tables.leases);
  state.holds = ValuesOf<Hold>(tables.holds);
  state.balances = tables.balances;
  std::map<std::pair<Number, int64_t>, Spent> spent;
  for (const Usage& usage : tables.usage) {
    const int64_t day = DayOf(usage.admitted_at);
    Spent& sum = spent[{usage.key, day}];
    sum.key = usage.key;
    sum.day = day;
    sum.money += usage.amount;
    sum.tokens += TokensOf(usage.quantities);
  }
  state.spent = ValuesOf<Spent>(spent);
  if (!tables.audit.empty()) state.last_audit = tables.audit.back();
  const auto above = [&](const auto& map) {
    if (!map.empty()) state.next_number = std::max(state.next_number, map.rbegin()->first + 1);
  };
  above(tables.tenants);
  above(tables.projects);
  above(tables.keys);
  above(tables.prices);
  above(tables.leases);
  return state;
}

Result<bool> MemoryStore::WasPosted(const std::string& request_id) {
  const std::lock_guard lock(disk_->mutex_);
  return disk_->tables.usage_of.contains(request_id);
}

Result<bool> MemoryStore::WasPaid(const std::string& reference) {
  const std::lock_guard lock(disk_->mutex_);
  return disk_->tables.payments.contains(reference);
}

Result<UsageReport> MemoryStore::ReadUsage(const UsageQuery& query) {
  const std::lock_guard lock(disk_->mutex_);
  using Place = std::tuple<Number, Number, Number, std::string, int64_t, Tier>;
  std::map<Place, UsageGroup> groups;
  for (const Usage& usage : disk_->tables.usage) {
    if (!Matches(query, usage)) continue;
    UsageGroup group;
    for (const GroupBy by : query.group_by) {
      if (by == GroupBy::kTenant) group.tenant = usage.tenant;
      if (by == GroupBy::kProject) group.project = usage.project;
      if (by == GroupBy::kKey) group.key = usage.key;
      if (by == GroupBy::kModel) group.model = usage.model;
      if (by == GroupBy::kDay) group.day = DayOf(usage.posted_at);
      if (by == GroupBy::kTier) group.tier = usage.tier;
    }
    const Place place{group.tenant, group.project, group.key, group.model, group.day, group.tier};
    UsageGroup& sum = groups.emplace(place, group).first->second;
    ++sum.requests;
    for (int i = 0; i < kUnitCount; ++i) sum.quantities[i] += usage.quantities[i];
    sum.amount += usage.amount;
    sum.energy_uj += usage.energy_uj;
    sum.co2e_ug += usage.co2e_ug;
  }
  return UsageReport{query.group_by, ValuesOf<UsageGroup>(groups)};
}

Result<std::vector<Usage>> MemoryStore::ListUsage(const UsageQuery& query, int64_t limit,
                                                  Number before) {
  const std::lock_guard lock(disk_->mutex_);
  std::vector<Usage> found;
  const std::vector<Usage>& all = disk_->tables.usage;
  for (auto usage = all.rbegin(); usage != all.rend(); ++usage) {
    if (static_cast<int64_t>(found.size()) >= limit) break;
    if ((before == 0 || usage->number < before) && Matches(query, *usage)) found.push_back(*usage);
  }
  return found;
}

Result<std::vector<InvoiceLine>> MemoryStore::ReadInvoiceLines(Number tenant, int64_t from,
                                                               int64_t to) {
  const std::lock_guard lock(disk_->mutex_);
  using Place = std::tuple<Number, std::string, Tier, Unit, Number>;
  std::map<Place, InvoiceLine> lines;
  for (const Usage& usage : disk_->tables.usage) {
    if (usage.tenant != tenant || usage.posted_at < from || usage.posted_at >= to) continue;
    for (const UsageLine& line : usage.lines) {
      InvoiceLine& sum = lines[{usage.project, usage.model, usage.tier, line.unit, line.price}];
      sum.project = usage.project;
      sum.model = usage.model;
      sum.tier = usage.tier;
      sum.unit = line.unit;
      sum.price = line.price;
      sum.rate = disk_->tables.prices[line.price].rate;
      sum.quantity += line.quantity;
      sum.amount += line.amount;
      ++sum.requests;
      if (sum.first_request_id.empty()) sum.first_request_id = usage.request_id;
      sum.last_request_id = usage.request_id;
    }
  }
  return ValuesOf<InvoiceLine>(lines);
}

Result<std::vector<Posting>> MemoryStore::ListPostings(Number tenant, int64_t from, int64_t to,
                                                       int64_t limit) {
  const std::lock_guard lock(disk_->mutex_);
  std::vector<Posting> found;
  for (const Posting& posting : disk_->tables.postings) {
    if (static_cast<int64_t>(found.size()) >= limit) break;
    const bool is_of_it =
        tenant == 0 || posting.from.tenant == tenant || posting.to.tenant == tenant;
    if (is_of_it && posting.at >= from && posting.at < to) found.push_back(posting);
  }
  return found;
}

Result<std::vector<AuditEntry>> MemoryStore::ListAudit(Number after, int64_t limit) {
  const std::lock_guard lock(disk_->mutex_);
  std::vector<AuditEntry> found;
  for (const AuditEntry& entry : disk_->tables.audit) {
    if (entry.number > after && static_cast<int64_t>(found.size()) < limit) found.push_back(entry);
  }
  return found;
}

Result<std::vector<std::string>> MemoryStore::Verify(
    const std::function<bool(const std::string& request_id)>& is_live) {
  std::vector<std::string> faults, held;
  {
    const std::lock_guard lock(disk_->mutex_);
    const MemoryDisk::Tables& tables = disk_->tables;
    std::map<Account, Micros> sums;
    for (const Posting& posting : tables.postings) {
      sums[posting.from] -= posting.amount;
      sums[posting.to] += posting.amount;
    }
    for (const auto& [account, balance] : tables.balances) {
      if (sums[account] != balance)
        faults.push_back(fmt::format("account {} of tenant {} has {}, its postings {}",
                                     static_cast<int>(account.kind), account.tenant, balance,
                                     sums[account]));
    }
    Micros earned = 0;
    for (const Usage& usage : tables.usage) earned += usage.amount;
    if (const Micros revenue = sums[kRevenue]; revenue != earned)
      faults.push_back(fmt::format("revenue is {}, usage {}", revenue, earned));
    std::string hash;
    Number number = 0;
    for (const AuditEntry& entry : tables.audit) {
      if (entry.number != ++number || entry.hash != AuditHash(hash, entry))
        faults.push_back(
            fmt::format("audit entry {} does not follow {}", entry.number, number - 1));
      hash = entry.hash;
    }
    for (const auto& [id, hold] : tables.holds) held.push_back(id);
  }
  // Without the lock: who is asked may be about to write.
  for (const std::string& id : held) {
    if (is_live(id)) continue;
    const std::lock_guard lock(disk_->mutex_);
    if (disk_->tables.holds.contains(id))
      faults.push_back(fmt::format("the hold of request '{}' is nobody's", id));
  }
  return faults;
}

Result<void> MemoryStore::Backup(const std::filesystem::path&) {
  return Fail(ErrorCode::kUnsupported, "there is no file to copy");
}

}  // namespace millpower::ledger
