#include "ledger/sqlite_reader.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <variant>

#include "ledger/schema.h"

namespace millpower::ledger {
namespace {

RateLimits LimitsAt(const Statement& row, int column) {
  return {.requests_per_minute = row.Int(column),
          .tokens_per_minute = row.Int(column + 1),
          .concurrent_requests = row.Int(column + 2)};
}

// A number that our arithmetic relies on being an amount.
Result<Micros> AmountAt(const Statement& row, int column, const std::string& of) {
  const Micros amount = row.Int(column);
  if (amount < 0 || amount > kMaxMicros)
    return Fail(ErrorCode::kCorrupt, fmt::format("{} has the amount {}", of, amount));
  return amount;
}

template <typename T>
T* FindByNumber(std::vector<T>& all, Number number) {
  const auto found = std::ranges::lower_bound(all, number, {}, &T::number);
  return found != all.end() && found->number == number ? &*found : nullptr;
}

Result<void> ReadTenants(Database& database, StoredState& state) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT number, id, name, created_at, suspended, credit_line,"
                              " requests_per_minute, tokens_per_minute, concurrent_requests"
                              " FROM tenants ORDER BY number"));
  return ForEachRow(row, [&]() -> Result<void> {
    Tenant tenant{.number = row.Int(0),
                  .id = row.Text(1),
                  .name = row.Text(2),
                  .created_at = row.Int(3),
                  .suspended = row.Int(4) != 0,
                  .credit_line = std::nullopt,
                  .bounds = {.caps = {}, .limits = LimitsAt(row, 6)}};
    if (!row.IsNull(5)) tenant.credit_line = row.Int(5);
    state.tenants.push_back(std::move(tenant));
    return {};
  });
}

Result<void> ReadProjects(Database& database, StoredState& state) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT number, id, name, tenant, created_at, requests_per_minute,"
                              " tokens_per_minute, concurrent_requests"
                              " FROM projects ORDER BY number"));
  return ForEachRow(row, [&]() -> Result<void> {
    state.projects.push_back({.number = row.Int(0),
                              .id = row.Text(1),
                              .name = row.Text(2),
                              .tenant = row.Int(3),
                              .created_at = row.Int(4),
                              .bounds = {.caps = {}, .limits = LimitsAt(row, 5)}});
    return {};
  });
}

Result<void> ReadKeys(Database& database, StoredState& state) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT number, id, name, tenant, project, prefix, hash, created_at,"
                              " expires_at, revoked_at, requests_per_minute, tokens_per_minute,"
                              " concurrent_requests, root FROM keys ORDER BY number"));
  TRY(ForEachRow(row, [&]() -> Result<void> {
    state.keys.push_back({.number = row.Int(0),
                          .id = row.Text(1),
                          .name = row.Text(2),
                          .tenant = row.Int(3),
                          .project = row.Int(4),
                          .prefix = row.Text(5),
                          .hash = row.Blob(6),
                          .created_at = row.Int(7),
                          .expires_at = row.Int(8),
                          .revoked_at = row.Int(9),
                          .root = row.Int(13),
                          .models = {},
                          .endpoints = {},
                          .bounds = {.caps = {}, .limits = LimitsAt(row, 10)}});
    return {};
  }));
  TRY_ASSIGN(Statement scope, database.Prepare("SELECT key, kind, name FROM scopes"
                                               " ORDER BY key, kind, position"));
  return ForEachRow(scope, [&]() -> Result<void> {
    // A scope that is not understood must not widen what a key may do by being left out.
    Key* key = FindByNumber(state.keys, scope.Int(0));
    const int64_t kind = scope.Int(1);
    if (!key || (kind != kModelScope && kind != kEndpointScope))
      return Fail(ErrorCode::kCorrupt,
                  fmt::format("a scope of kind {} belongs to key {}", kind, scope.Int(0)));
    (kind == kModelScope ? key->models : key->endpoints).push_back(scope.Text(2));
    return {};
  });
}

Result<void> ReadCaps(Database& database, StoredState& state) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT owner_kind, owner, period, measure, most FROM caps"
                              " ORDER BY owner_kind, owner, position"));
  return ForEachRow(row, [&]() -> Result<void> {
    TRY_ASSIGN(const OwnerKind kind, EnumAt(row, 0, OwnerKind::kKey, "kind of owner"));
    const Number owner = row.Int(1);
    Bounds* bounds = nullptr;
    if (kind == OwnerKind::kTenant) {
      if (Tenant* tenant = FindByNumber(state.tenants, owner)) bounds = &tenant->bounds;
    } else if (kind == OwnerKind::kProject) {
      if (Project* project = FindByNumber(state.projects, owner)) bounds = &project->bounds;
    } else if (Key* key = FindByNumber(state.keys, owner)) {
      bounds = &key->bounds;
    }
    if (!bounds)
      return Fail(ErrorCode::kCorrupt, fmt::format("a cap belongs to no one: {}", owner));
    TRY_ASSIGN(const Period period, EnumAt(row, 2, Period::kTotal, "period"));
    TRY_ASSIGN(const Measure measure, EnumAt(row, 3, Measure::kTokens, "measure"));
    bounds->caps.push_back({period, measure, row.Int(4)});
    return {};
  });
}

Result<void> ReadPrices(Database& database, StoredState& state) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT number, model, tier, unit, rate, effective_at, created_at"
                              " FROM prices ORDER BY number"));
  return ForEachRow(row, [&]() -> Result<void> {
    TRY_ASSIGN(const Tier tier, EnumAt(row, 2, Tier::kLease, "tier"));
    TRY_ASSIGN(const Unit unit, EnumAt(row, 3, Unit::kShareHour, "unit"));
    TRY_ASSIGN(const Micros rate, AmountAt(row, 4, fmt::format("price {}", row.Int(0))));
    state.prices.push_back({.number = row.Int(0),
                            .model = row.Text(1),
                            .tier = tier,
                            .unit = unit,
                            .rate = rate,
                            .effective_at = row.Int(5),
                            .created_at = row.Int(6)});
    return {};
  });
}

Result<void> ReadLeases(Database& database, StoredState& state) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT number, id, tenant, share_ppm, starts_at, ends_at,"
                              " cancelled_at, rate, amount, created_at FROM leases"
                              " ORDER BY number"));
  return ForEachRow(row, [&]() -> Result<void> {
    TRY_ASSIGN(const Micros rate, AmountAt(row, 7, "the rate of lease " + row.Text(1)));
    TRY_ASSIGN(const Micros amount, AmountAt(row, 8, "lease " + row.Text(1)));
    state.leases.push_back({.number = row.Int(0),
                            .id = row.Text(1),
                            .tenant = row.Int(2),
                            .share_ppm = row.Int(3),
                            .starts_at = row.Int(4),
                            .ends_at = row.Int(5),
                            .cancelled_at = row.Int(6),
                            .rate = rate,
                            .amount = amount,
                            .created_at = row.Int(9)});
    return {};
  });
}

Result<void> ReadHolds(Database& database, StoredState& state) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT request_id, tenant, project, key, model, endpoint, tier,"
                              " admitted_at, amount, tokens"
                              " FROM holds JOIN requests ON requests.number = holds.request"
                              " ORDER BY holds.request"));
  return ForEachRow(row, [&]() -> Result<void> {
    TRY_ASSIGN(const Tier tier, EnumAt(row, 6, Tier::kLease, "tier"));
    TRY_ASSIGN(const Micros amount, AmountAt(row, 8, "the hold of " + row.Text(0)));
    state.holds.push_back({.request_id = row.Text(0),
                           .tenant = row.Int(1),
                           .project = row.Int(2),
                           .key = row.Int(3),
                           .model = row.Text(4),
                           .endpoint = row.Text(5),
                           .tier = tier,
                           .admitted_at = row.Int(7),
                           .amount = amount,
                           .tokens = row.Int(9)});
    return {};
  });
}

AuditEntry AuditAt(const Statement& row) {
  return {.number = row.Int(0),
          .at = row.Int(1),
          .actor = row.Text(2),
          .action = row.Text(3),
          .subject = row.Text(4),
          .details = row.Text(5),
          .hash = row.Blob(6)};
}

// The WHERE of a query of usage, from fixed pieces; what was asked goes in as parameters.
class UsageFilter {
 public:
  explicit UsageFilter(const UsageQuery& query) {
    if (query.tenant) Add("tenant = ?", query.tenant);
    const bool is_timed = query.from > 0 || query.to < INT64_MAX;
    // All tenants, one after the other, so that the index by tenant and time serves.
    if (is_timed && !query.tenant) where_ += " AND tenant IN (SELECT number FROM tenants)";
    if (query.from > 0) Add("posted_at >= ?", query.from);
    if (query.to < INT64_MAX) Add("posted_at < ?", query.to);
    if (query.project) Add("project = ?", query.project);
    if (query.key) Add("key = ?", query.key);
    if (!query.model.empty()) Add("model = ?", query.model);
    if (!query.request_id.empty()) {
      Add("(request = (SELECT number FROM requests WHERE request_id = ?)", query.request_id);
      values_.emplace_back(query.request_id);
      where_ += " OR api_request_id = ?)";
    }
  }
  void Add(std::string_view condition, std::variant<int64_t, std::string> value) {
    where_ += " AND ";
    where_ += condition;
    values_.push_back(std::move(value));
  }
  const std::string& where() const { return where_; }
  // The index of the next parameter.
  int BindTo(Statement& statement) const {
    int index = 1;
    for (const auto& value : values_) {
      std::visit([&](const auto& one) { statement.Bind(index, one); }, value);
      ++index;
    }
    return index;
  }

 private:
  std::string where_ = "WHERE TRUE";
  std::vector<std::variant<int64_t, std::string>> values_;
};

// By GroupBy.
constexpr std::array<const char*, 6> kGroupColumns = {"tenant", "project",           "key",
                                                      "model",  "posted_at / 86400", "tier"};

// Quantities by Unit, as sums or as they are.
constexpr std::array<const char*, kUnitCount> kQuantityColumns = {
    "input_tokens", "cached_tokens", "output_tokens", "inferences",
    "candidates",   "chip_us",       "work_uj",       "share_ppm_hours"};

}  // namespace

Result<StoredState> ReadState(Database& database) {
  TRY_ASSIGN(const Snapshot snapshot, Snapshot::Take(database));
  StoredState state;
  TRY_ASSIGN(Statement currency,
             database.Prepare("SELECT value FROM settings WHERE name = 'currency'"));
  TRY_ASSIGN(const bool has_currency, currency.Step());
  if (!has_currency) return Fail(ErrorCode::kCorrupt, "it has no currency");
  state.currency = currency.Text(0);
  currency.Reset();
  TRY(ReadTenants(database, state));
  TRY(ReadProjects(database, state));
  TRY(ReadKeys(database, state));
  TRY(ReadCaps(database, state));
  TRY(ReadPrices(database, state));
  TRY(ReadLeases(database, state));
  TRY(ReadHolds(database, state));
  TRY_ASSIGN(Statement balance, database.Prepare("SELECT account, amount FROM balances"));
  TRY(ForEachRow(balance, [&]() -> Result<void> {
    state.balances[AccountOfNumber(balance.Int(0))] = balance.Int(1);
    return {};
  }));
  TRY_ASSIGN(Statement spent,
             database.Prepare("SELECT key, day, money, tokens FROM spent ORDER BY key, day"));
  TRY(ForEachRow(spent, [&]() -> Result<void> {
    state.spent.push_back({spent.Int(0), spent.Int(1), spent.Int(2), spent.Int(3)});
    return {};
  }));
  TRY_ASSIGN(Statement audit,
             database.Prepare("SELECT number, at, actor, action, subject, details, hash FROM audit"
                              " ORDER BY number DESC LIMIT 1"));
  TRY_ASSIGN(const bool has_audit, audit.Step());
  if (has_audit) state.last_audit = AuditAt(audit);
  audit.Reset();
  const auto count_on = [&](const auto& all) {
    if (!all.empty()) state.next_number = std::max(state.next_number, all.back().number + 1);
  };
  count_on(state.tenants);
  count_on(state.projects);
  count_on(state.keys);
  count_on(state.prices);
  count_on(state.leases);
  return state;
}

Result<UsageReport> ReadUsageReport(Database& database, const UsageQuery& query) {
  std::array<std::string, kGroupColumns.size()> columns = {"0", "0", "0", "''", "0", "0"};
  std::string grouped;
  for (const GroupBy by : query.group_by) {
    const auto index = static_cast<size_t>(by);
    columns[index] = kGroupColumns[index];
    grouped += grouped.empty() ? "" : ", ";
    grouped += kGroupColumns[index];
  }
  std::string sql = "SELECT ";
  for (const std::string& column : columns) sql += column + ", ";
  sql += "COUNT(*), ";
  for (const char* column : kQuantityColumns) sql += fmt::format("SUM({}), ", column);
  sql +=
      "SUM(amount), SUM(energy_uj), SUM(co2e_ug), MAX(energy_origin = 1),"
      " MAX(energy_origin = 2) FROM usage ";
  const UsageFilter filter(query);
  sql += filter.where();
  if (!grouped.empty()) sql += fmt::format(" GROUP BY {0} ORDER BY {0}", grouped);
  TRY_ASSIGN(Statement row, database.Prepare(sql));
  filter.BindTo(row);
  UsageReport report{.group_by = query.group_by, .groups = {}};
  TRY(ForEachRow(row, [&]() -> Result<void> {
    UsageGroup group{.tenant = row.Int(0),
                     .project = row.Int(1),
                     .key = row.Int(2),
                     .model = row.Text(3),
                     .day = row.Int(4),
                     .requests = row.Int(6)};
    if (group.requests == 0) return {};  // a sum of nothing
    TRY_ASSIGN(group.tier, EnumAt(row, 5, Tier::kLease, "tier"));
    int column = 7;
    for (int64_t& quantity : group.quantities) quantity = row.Int(column++);
    group.amount = row.Int(column);
    group.energy_uj = row.Int(column + 1);
    group.co2e_ug = row.Int(column + 2);
    group.energy_origin = row.Int(column + 3)   ? Origin::kModelled
                          : row.Int(column + 4) ? Origin::kMeasured
                                                : Origin::kNone;
    report.groups.push_back(std::move(group));
    return {};
  }));
  return report;
}

Result<std::vector<Usage>> ReadUsageRows(Database& database, const UsageQuery& query, int64_t limit,
                                         Number before) {
  TRY_ASSIGN(const Snapshot snapshot, Snapshot::Take(database));
  UsageFilter filter(query);
  // A tenant's rows are found newest first by its index; everyone's, in the order of posting.
  std::string order = " ORDER BY number DESC";
  if (query.tenant) {
    order = " ORDER BY posted_at DESC, number DESC";
    // After another tenant's row comes nothing: it tells nothing of when that was.
    if (before)
      filter.Add(fmt::format("(posted_at, number) < (SELECT posted_at, number FROM usage"
                             " WHERE number = ? AND tenant = {})",
                             query.tenant),
                 before);
  } else if (before) {
    filter.Add("number < ?", before);
  }
  std::string sql =
      "SELECT number, (SELECT request_id FROM requests WHERE requests.number = usage.request),"
      " api_request_id, tenant, project, key, model, endpoint, tier, admitted_at, posted_at,"
      " amount, reason, energy_uj, co2e_ug, energy_origin";
  for (const char* column : kQuantityColumns) sql += fmt::format(", {}", column);
  sql += " FROM usage " + filter.where() + order + " LIMIT ?";
  TRY_ASSIGN(Statement row, database.Prepare(sql));
  row.Bind(filter.BindTo(row), std::max<int64_t>(limit, 0));
  TRY_ASSIGN(Statement line,
             database.Prepare("SELECT unit, quantity, price, amount FROM usage_lines"
                              " WHERE usage = ? ORDER BY position"));
  std::vector<Usage> rows;
  TRY(ForEachRow(row, [&]() -> Result<void> {
    Usage usage{.number = row.Int(0),
                .request_id = row.Text(1),
                .api_request_id = row.Text(2),
                .tenant = row.Int(3),
                .project = row.Int(4),
                .key = row.Int(5),
                .model = row.Text(6),
                .endpoint = row.Text(7),
                .admitted_at = row.Int(9),
                .posted_at = row.Int(10),
                .lines = {},
                .amount = row.Int(11),
                .reason = row.Text(12),
                .energy_uj = row.Int(13),
                .co2e_ug = row.Int(14)};
    TRY_ASSIGN(usage.tier, EnumAt(row, 8, Tier::kLease, "tier"));
    TRY_ASSIGN(usage.energy_origin, EnumAt(row, 15, Origin::kMeasured, "origin of energy"));
    int column = 16;
    for (int64_t& quantity : usage.quantities) quantity = row.Int(column++);
    line.Bind(1, usage.number);
    TRY(ForEachRow(line, [&]() -> Result<void> {
      TRY_ASSIGN(const Unit unit, EnumAt(line, 0, Unit::kShareHour, "unit"));
      usage.lines.push_back({unit, line.Int(1), line.Int(2), line.Int(3)});
      return {};
    }));
    rows.push_back(std::move(usage));
    return {};
  }));
  return rows;
}

Result<std::vector<InvoiceLine>> ReadInvoiceLines(Database& database, Number tenant, int64_t from,
                                                  int64_t to) {
  TRY_ASSIGN(Statement row,
             database.Prepare(
                 "WITH lines AS ("
                 " SELECT project, model, tier, unit, price, SUM(quantity) AS quantity,"
                 "  SUM(usage_lines.amount) AS amount, COUNT(DISTINCT usage.number) AS requests,"
                 "  MIN(usage.number) AS first, MAX(usage.number) AS last"
                 " FROM usage JOIN usage_lines ON usage_lines.usage = usage.number"
                 " WHERE tenant = ? AND posted_at >= ? AND posted_at < ?"
                 " GROUP BY project, model, tier, unit, price)"
                 "SELECT project, model, tier, unit, price, quantity, amount, requests,"
                 " (SELECT rate FROM prices WHERE prices.number = price),"
                 " (SELECT request_id FROM requests JOIN usage ON requests.number = usage.request"
                 "  WHERE usage.number = first),"
                 " (SELECT request_id FROM requests JOIN usage ON requests.number = usage.request"
                 "  WHERE usage.number = last)"
                 " FROM lines ORDER BY project, model, tier, unit, price"));
  row.Bind(1, tenant).Bind(2, from).Bind(3, to);
  std::vector<InvoiceLine> lines;
  TRY(ForEachRow(row, [&]() -> Result<void> {
    TRY_ASSIGN(const Tier tier, EnumAt(row, 2, Tier::kLease, "tier"));
    TRY_ASSIGN(const Unit unit, EnumAt(row, 3, Unit::kShareHour, "unit"));
    lines.push_back({.project = row.Int(0),
                     .model = row.Text(1),
                     .tier = tier,
                     .unit = unit,
                     .price = row.Int(4),
                     .rate = row.Int(8),
                     .quantity = row.Int(5),
                     .amount = row.Int(6),
                     .requests = row.Int(7),
                     .first_request_id = row.Text(9),
                     .last_request_id = row.Text(10)});
    return {};
  }));
  return lines;
}

Result<std::vector<Posting>> ReadPostings(Database& database, Number tenant, int64_t from,
                                          int64_t to, int64_t limit) {
  TRY_ASSIGN(Statement row,
             database.Prepare(
                 "SELECT number, at, kind, source, target, amount,"
                 " coalesce((SELECT request_id FROM requests WHERE requests.number = request),"
                 "  (SELECT reference FROM payments WHERE payments.number = payment))"
                 " FROM postings WHERE (source IN (?1, ?2) OR target IN (?1, ?2))"
                 " AND at >= ?3 AND at < ?4 ORDER BY number DESC LIMIT ?5"));
  row.Bind(1, AccountNumber({AccountKind::kCredit, tenant}));
  row.Bind(2, AccountNumber({AccountKind::kHeld, tenant}));
  row.Bind(3, from).Bind(4, to).Bind(5, std::max<int64_t>(limit, 0));
  std::vector<Posting> postings;
  TRY(ForEachRow(row, [&]() -> Result<void> {
    TRY_ASSIGN(const PostingKind kind, EnumAt(row, 2, PostingKind::kRefund, "kind of posting"));
    postings.push_back({.number = row.Int(0),
                        .at = row.Int(1),
                        .kind = kind,
                        .from = AccountOfNumber(row.Int(3)),
                        .to = AccountOfNumber(row.Int(4)),
                        .amount = row.Int(5),
                        .reference = row.Text(6)});
    return {};
  }));
  return postings;
}

Result<std::vector<AuditEntry>> ReadAudit(Database& database, Number after, int64_t limit) {
  TRY_ASSIGN(Statement row,
             database.Prepare("SELECT number, at, actor, action, subject, details, hash FROM audit"
                              " WHERE number > ? ORDER BY number LIMIT ?"));
  row.Bind(1, after).Bind(2, std::max<int64_t>(limit, 0));
  std::vector<AuditEntry> entries;
  TRY(ForEachRow(row, [&]() -> Result<void> {
    entries.push_back(AuditAt(row));
    return {};
  }));
  return entries;
}

}  // namespace millpower::ledger
