#include "ledger/sqlite_writer.h"

#include <variant>
#include <vector>

#include "base/check.h"
#include "ledger/schema.h"

namespace millpower::ledger {
namespace {

constexpr int64_t kSecondsPerDay = 86400;

void AddTo(int64_t& sum, int64_t more) {
  CHECK(!__builtin_add_overflow(sum, more, &sum)) << "a sum of money left 64 bits";
}

Account CreditOf(Number tenant) { return {AccountKind::kCredit, tenant}; }
Account HeldOf(Number tenant) { return {AccountKind::kHeld, tenant}; }
constexpr Account kRevenue{AccountKind::kRevenue, 0};
constexpr Account kPayments{AccountKind::kPayments, 0};

}  // namespace

Result<std::unique_ptr<SqliteWriter>> SqliteWriter::Open(Database database) {
  std::unique_ptr<SqliteWriter> writer(new SqliteWriter(std::move(database)));
  Statements& sql = writer->sql_;
  const std::pair<Statement*, const char*> all[] = {
      {&sql.begin, "BEGIN IMMEDIATE"},
      {&sql.commit, "COMMIT"},
      {&sql.rollback, "ROLLBACK"},
      {&sql.add_request, "INSERT INTO requests (request_id) VALUES (?) ON CONFLICT DO NOTHING"},
      {&sql.find_request,
       "SELECT number, EXISTS (SELECT 1 FROM usage WHERE request = requests.number),"
       " EXISTS (SELECT 1 FROM holds WHERE request = requests.number)"
       " FROM requests WHERE request_id = ?"},
      {&sql.was_posted,
       "SELECT 1 FROM usage WHERE request = (SELECT number FROM requests WHERE request_id = ?)"},
      {&sql.was_paid, "SELECT 1 FROM payments WHERE reference = ?"},
      {&sql.add_hold,
       "INSERT INTO holds (request, tenant, project, key, model, endpoint, tier, admitted_at,"
       " amount, tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"},
      {&sql.extend_hold,
       "UPDATE holds SET amount = amount + ?2, tokens = tokens + ?3"
       " WHERE request = (SELECT number FROM requests WHERE request_id = ?1)"
       " RETURNING request, tenant"},
      {&sql.close_hold,
       "DELETE FROM holds"
       " WHERE request = (SELECT number FROM requests WHERE request_id = ?)"
       " RETURNING request, tenant, amount"},
      {&sql.add_usage,
       "INSERT INTO usage (request, api_request_id, tenant, project, key, model, endpoint, tier,"
       " admitted_at, posted_at, amount, reason, energy_uj, co2e_ug, energy_origin,"
       " input_tokens, cached_tokens, output_tokens, inferences, candidates, chip_us, work_uj,"
       " share_ppm_hours)"
       " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"},
      {&sql.add_line,
       "INSERT INTO usage_lines (usage, position, unit, quantity, price, amount)"
       " VALUES (?, ?, ?, ?, ?, ?)"},
      {&sql.add_payment,
       "INSERT INTO payments (tenant, at, amount, reference) VALUES (?, ?, ?, ?)"
       " ON CONFLICT DO NOTHING"},
      {&sql.add_posting,
       "INSERT INTO postings (at, kind, source, target, amount, request, payment)"
       " VALUES (?, ?, ?, ?, ?, ?, ?)"},
      {&sql.add_to_balance,
       "INSERT INTO balances (account, amount) VALUES (?, ?)"
       " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"},
      {&sql.add_to_spent,
       "INSERT INTO spent (key, day, money, tokens) VALUES (?, ?, ?, ?)"
       " ON CONFLICT DO UPDATE SET money = money + excluded.money,"
       " tokens = tokens + excluded.tokens"},
      {&sql.put_tenant,
       "INSERT INTO tenants (number, id, name, created_at, suspended, credit_line,"
       " requests_per_minute, tokens_per_minute, concurrent_requests)"
       " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
       " ON CONFLICT (number) DO UPDATE SET id = excluded.id, name = excluded.name,"
       " created_at = excluded.created_at, suspended = excluded.suspended,"
       " credit_line = excluded.credit_line, requests_per_minute = excluded.requests_per_minute,"
       " tokens_per_minute = excluded.tokens_per_minute,"
       " concurrent_requests = excluded.concurrent_requests"},
      {&sql.put_project,
       "INSERT INTO projects (number, id, name, tenant, created_at, requests_per_minute,"
       " tokens_per_minute, concurrent_requests) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
       " ON CONFLICT (number) DO UPDATE SET id = excluded.id, name = excluded.name,"
       " tenant = excluded.tenant, created_at = excluded.created_at,"
       " requests_per_minute = excluded.requests_per_minute,"
       " tokens_per_minute = excluded.tokens_per_minute,"
       " concurrent_requests = excluded.concurrent_requests"},
      {&sql.put_key,
       "INSERT INTO keys (number, id, name, tenant, project, prefix, hash, created_at, expires_at,"
       " revoked_at, requests_per_minute, tokens_per_minute, concurrent_requests, root)"
       " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
       " ON CONFLICT (number) DO UPDATE SET id = excluded.id, name = excluded.name,"
       " tenant = excluded.tenant, project = excluded.project, prefix = excluded.prefix,"
       " hash = excluded.hash, created_at = excluded.created_at,"
       " expires_at = excluded.expires_at, revoked_at = excluded.revoked_at, root = excluded.root,"
       " requests_per_minute = excluded.requests_per_minute,"
       " tokens_per_minute = excluded.tokens_per_minute,"
       " concurrent_requests = excluded.concurrent_requests"},
      {&sql.put_lease,
       "INSERT INTO leases (number, id, tenant, share_ppm, starts_at, ends_at, cancelled_at, rate,"
       " amount, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
       " ON CONFLICT (number) DO UPDATE SET id = excluded.id, tenant = excluded.tenant,"
       " share_ppm = excluded.share_ppm, starts_at = excluded.starts_at,"
       " ends_at = excluded.ends_at, cancelled_at = excluded.cancelled_at, rate = excluded.rate,"
       " amount = excluded.amount, created_at = excluded.created_at"},
      {&sql.add_price,
       "INSERT INTO prices (number, model, tier, unit, rate, effective_at, created_at)"
       " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"},
      {&sql.add_audit,
       "INSERT INTO audit (number, at, actor, action, subject, details, hash)"
       " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"},
      {&sql.clear_caps, "DELETE FROM caps WHERE owner_kind = ? AND owner = ?"},
      {&sql.add_cap,
       "INSERT INTO caps (owner_kind, owner, position, period, measure, most)"
       " VALUES (?, ?, ?, ?, ?, ?)"},
      {&sql.clear_scopes, "DELETE FROM scopes WHERE key = ? AND kind = ?"},
      {&sql.add_scope, "INSERT INTO scopes (key, kind, position, name) VALUES (?, ?, ?, ?)"},
  };
  for (const auto& [statement, text] : all) {
    TRY_ASSIGN(*statement, writer->database_.Prepare(text));
  }
  return writer;
}

Result<void> SqliteWriter::Rollback() {
  // SQLite has rolled back by itself after most errors of the disk.
  if (!database_.in_transaction()) return {};
  return sql_.rollback.Run();
}

Result<void> SqliteWriter::Commit(std::span<const Record> records) {
  if (records.empty()) return {};
  TRY(Rollback());  // one that failed, with the disk, after the batch before
  sums_ = {};
  TRY(sql_.begin.Run());
  const auto write_all = [&]() -> Result<void> {
    for (const Record& record : records) {
      TRY(std::visit([this](const auto& one) { return Write(one); }, record));
    }
    TRY(WriteSums());
    return sql_.commit.Run();
  };
  Result<void> written = write_all();
  if (!written) (void)Rollback();  // what fails here is done before the next batch
  return written;
}

Result<bool> SqliteWriter::WasPosted(const std::string& request_id) {
  TRY_ASSIGN(const bool was, sql_.was_posted.Bind(1, request_id).Step());
  sql_.was_posted.Reset();
  return was;
}

Result<bool> SqliteWriter::WasPaid(const std::string& reference) {
  TRY_ASSIGN(const bool was, sql_.was_paid.Bind(1, reference).Step());
  sql_.was_paid.Reset();
  return was;
}

Result<void> SqliteWriter::WriteSums() {
  for (const auto& [account, amount] : sums_.balances) {
    if (amount == 0) continue;
    TRY(sql_.add_to_balance.Bind(1, account).Bind(2, amount).Run());
  }
  for (const auto& [of, spent] : sums_.spent) {
    TRY(sql_.add_to_spent.Bind(1, of.first)
            .Bind(2, of.second)
            .Bind(3, spent.first)
            .Bind(4, spent.second)
            .Run());
  }
  return {};
}

Result<SqliteWriter::Request> SqliteWriter::AddRequest(const std::string& request_id) {
  TRY(sql_.add_request.Bind(1, request_id).Run());
  if (database_.changes() == 1) return Request{.number = database_.last_insert_rowid()};
  TRY_ASSIGN(const bool found, sql_.find_request.Bind(1, request_id).Step());
  CHECK(found) << "request " << request_id << " can neither be added nor found";
  const Request request{.number = sql_.find_request.Int(0),
                        .is_new = false,
                        .is_posted = sql_.find_request.Int(1) != 0,
                        .is_held = sql_.find_request.Int(2) != 0};
  sql_.find_request.Reset();
  return request;
}

Result<void> SqliteWriter::AddPosting(PostingKind kind, int64_t at, const Account& from,
                                      const Account& to, Micros amount, Number request,
                                      Number payment) {
  if (amount == 0) return {};
  CHECK(amount > INT64_MIN);
  const int64_t source = AccountNumber(amount > 0 ? from : to);
  const int64_t target = AccountNumber(amount > 0 ? to : from);
  const Micros size = amount > 0 ? amount : -amount;
  Statement& sql = sql_.add_posting;
  sql.Bind(1, at).Bind(2, static_cast<int64_t>(kind)).Bind(3, source).Bind(4, target).Bind(5, size);
  request ? sql.Bind(6, request) : sql.BindNull(6);
  payment ? sql.Bind(7, payment) : sql.BindNull(7);
  TRY(sql.Run());
  AddTo(sums_.balances[source], -size);
  AddTo(sums_.balances[target], size);
  return {};
}

Result<void> SqliteWriter::AddUsage(Number request, const Usage& usage) {
  Statement& sql = sql_.add_usage;
  sql.Bind(1, request).Bind(2, usage.api_request_id).Bind(3, usage.tenant);
  sql.Bind(4, usage.project).Bind(5, usage.key).Bind(6, usage.model).Bind(7, usage.endpoint);
  sql.Bind(8, static_cast<int64_t>(usage.tier)).Bind(9, usage.admitted_at);
  sql.Bind(10, usage.posted_at).Bind(11, usage.amount).Bind(12, usage.reason);
  sql.Bind(13, usage.energy_uj).Bind(14, usage.co2e_ug);
  sql.Bind(15, static_cast<int64_t>(usage.energy_origin));
  for (int unit = 0; unit < kUnitCount; ++unit) {
    sql.Bind(16 + unit, usage.quantities[static_cast<size_t>(unit)]);
  }
  TRY(sql.Run());
  const Number number = database_.last_insert_rowid();
  int64_t position = 0;
  for (const UsageLine& line : usage.lines) {
    TRY(sql_.add_line.Bind(1, number)
            .Bind(2, position++)
            .Bind(3, static_cast<int64_t>(line.unit))
            .Bind(4, line.quantity)
            .Bind(5, line.price)
            .Bind(6, line.amount)
            .Run());
  }
  return {};
}

// ---- Work

Result<void> SqliteWriter::Write(const HoldOpened& record) {
  const Hold& hold = record.hold;
  TRY_ASSIGN(const Request request, AddRequest(hold.request_id));
  if (request.is_posted || request.is_held) return {};
  TRY(sql_.add_hold.Bind(1, request.number)
          .Bind(2, hold.tenant)
          .Bind(3, hold.project)
          .Bind(4, hold.key)
          .Bind(5, hold.model)
          .Bind(6, hold.endpoint)
          .Bind(7, static_cast<int64_t>(hold.tier))
          .Bind(8, hold.admitted_at)
          .Bind(9, hold.amount)
          .Bind(10, hold.tokens)
          .Run());
  return AddPosting(PostingKind::kHold, hold.admitted_at, CreditOf(hold.tenant),
                    HeldOf(hold.tenant), hold.amount, request.number, 0);
}

Result<void> SqliteWriter::Write(const HoldExtended& record) {
  Statement& sql = sql_.extend_hold;
  TRY_ASSIGN(
      const bool found,
      sql.Bind(1, record.request_id).Bind(2, record.more).Bind(3, record.more_tokens).Step());
  const Number request = sql.Int(0), tenant = sql.Int(1);
  if (!found) {
    sql.Reset();
    return {};
  }
  TRY(sql.Run());
  return AddPosting(PostingKind::kExtend, record.at, CreditOf(tenant), HeldOf(tenant), record.more,
                    request, 0);
}

Result<void> SqliteWriter::Write(const HoldClosed& record) {
  Statement& sql = sql_.close_hold;
  TRY_ASSIGN(const bool found, sql.Bind(1, record.hold.request_id).Step());
  const Number request = sql.Int(0), tenant = sql.Int(1);
  const Micros held = sql.Int(2);
  if (!found) {
    sql.Reset();
    return {};
  }
  TRY(sql.Run());
  Micros posted = 0;
  if (record.usage) {
    const Usage& usage = *record.usage;
    posted = usage.amount;
    TRY(AddUsage(request, usage));
    TRY(AddPosting(PostingKind::kPost, record.at, HeldOf(tenant), kRevenue, posted, request, 0));
    auto& spent = sums_.spent[{usage.key, usage.admitted_at / kSecondsPerDay}];
    AddTo(spent.first, usage.amount);
    AddTo(spent.second, TokensOf(usage.quantities));
  }
  return AddPosting(PostingKind::kRelease, record.at, HeldOf(tenant), CreditOf(tenant),
                    held - posted, request, 0);
}

Result<void> SqliteWriter::Write(const Payment& record) {
  TRY(sql_.add_payment.Bind(1, record.tenant)
          .Bind(2, record.at)
          .Bind(3, record.amount)
          .Bind(4, record.reference)
          .Run());
  if (database_.changes() == 0) return {};
  return AddPosting(PostingKind::kPayment, record.at, kPayments, CreditOf(record.tenant),
                    record.amount, 0, database_.last_insert_rowid());
}

Result<void> SqliteWriter::Write(const LeaseCharged& record) {
  const auto& [lease, usage] = record;
  TRY_ASSIGN(const Request request, AddRequest(usage.request_id));
  if (request.is_posted) return {};
  TRY(AddUsage(request.number, usage));
  TRY(sql_.put_lease.Bind(1, lease.number)
          .Bind(2, lease.id)
          .Bind(3, lease.tenant)
          .Bind(4, lease.share_ppm)
          .Bind(5, lease.starts_at)
          .Bind(6, lease.ends_at)
          .Bind(7, lease.cancelled_at)
          .Bind(8, lease.rate)
          .Bind(9, lease.amount)
          .Bind(10, lease.created_at)
          .Run());
  return AddPosting(usage.amount < 0 ? PostingKind::kRefund : PostingKind::kLease, usage.posted_at,
                    CreditOf(lease.tenant), kRevenue, usage.amount, request.number, 0);
}

// ---- Administration

Result<void> SqliteWriter::PutBounds(int64_t owner_kind, Number owner, const Bounds& bounds) {
  TRY(sql_.clear_caps.Bind(1, owner_kind).Bind(2, owner).Run());
  int64_t position = 0;
  for (const Cap& cap : bounds.caps) {
    TRY(sql_.add_cap.Bind(1, owner_kind)
            .Bind(2, owner)
            .Bind(3, position++)
            .Bind(4, static_cast<int64_t>(cap.period))
            .Bind(5, static_cast<int64_t>(cap.measure))
            .Bind(6, cap.limit)
            .Run());
  }
  return {};
}

Result<void> SqliteWriter::PutScopes(Number key, int64_t kind,
                                     const std::vector<std::string>& names) {
  TRY(sql_.clear_scopes.Bind(1, key).Bind(2, kind).Run());
  int64_t position = 0;
  for (const std::string& name : names) {
    TRY(sql_.add_scope.Bind(1, key).Bind(2, kind).Bind(3, position++).Bind(4, name).Run());
  }
  return {};
}

Result<void> SqliteWriter::Write(const Tenant& tenant) {
  const RateLimits& limits = tenant.bounds.limits;
  Statement& sql = sql_.put_tenant;
  sql.Bind(1, tenant.number).Bind(2, tenant.id).Bind(3, tenant.name).Bind(4, tenant.created_at);
  sql.Bind(5, static_cast<int64_t>(tenant.suspended));
  tenant.credit_line ? sql.Bind(6, *tenant.credit_line) : sql.BindNull(6);
  sql.Bind(7, limits.requests_per_minute).Bind(8, limits.tokens_per_minute);
  TRY(sql.Bind(9, limits.concurrent_requests).Run());
  return PutBounds(static_cast<int64_t>(OwnerKind::kTenant), tenant.number, tenant.bounds);
}

Result<void> SqliteWriter::Write(const Project& project) {
  const RateLimits& limits = project.bounds.limits;
  Statement& sql = sql_.put_project;
  sql.Bind(1, project.number).Bind(2, project.id).Bind(3, project.name).Bind(4, project.tenant);
  sql.Bind(5, project.created_at);
  sql.Bind(6, limits.requests_per_minute).Bind(7, limits.tokens_per_minute);
  TRY(sql.Bind(8, limits.concurrent_requests).Run());
  return PutBounds(static_cast<int64_t>(OwnerKind::kProject), project.number, project.bounds);
}

Result<void> SqliteWriter::Write(const Key& key) {
  const RateLimits& limits = key.bounds.limits;
  Statement& sql = sql_.put_key;
  sql.Bind(1, key.number).Bind(2, key.id).Bind(3, key.name).Bind(4, key.tenant);
  sql.Bind(5, key.project).Bind(6, key.prefix).BindBlob(7, key.hash).Bind(8, key.created_at);
  sql.Bind(9, key.expires_at).Bind(10, key.revoked_at);
  sql.Bind(11, limits.requests_per_minute).Bind(12, limits.tokens_per_minute);
  TRY(sql.Bind(13, limits.concurrent_requests).Bind(14, key.root).Run());
  TRY(PutScopes(key.number, kModelScope, key.models));
  TRY(PutScopes(key.number, kEndpointScope, key.endpoints));
  return PutBounds(static_cast<int64_t>(OwnerKind::kKey), key.number, key.bounds);
}

Result<void> SqliteWriter::Write(const Price& price) {
  return sql_.add_price.Bind(1, price.number)
      .Bind(2, price.model)
      .Bind(3, static_cast<int64_t>(price.tier))
      .Bind(4, static_cast<int64_t>(price.unit))
      .Bind(5, price.rate)
      .Bind(6, price.effective_at)
      .Bind(7, price.created_at)
      .Run();
}

Result<void> SqliteWriter::Write(const AuditEntry& entry) {
  return sql_.add_audit.Bind(1, entry.number)
      .Bind(2, entry.at)
      .Bind(3, entry.actor)
      .Bind(4, entry.action)
      .Bind(5, entry.subject)
      .Bind(6, entry.details)
      .BindBlob(7, entry.hash)
      .Run();
}

}  // namespace millpower::ledger
