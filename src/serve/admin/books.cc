// The audit log, and what keeps the books honest: proving them, and copies of them.
#include <spdlog/spdlog.h>

#include <filesystem>

#include "ledger/key_secret.h"
#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

constexpr int64_t kEntriesMax = 1000;

Answer ListAudit(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"after", "limit"}));
  TRY_ASSIGN(const int64_t after, ReadInteger(request.query, "after", 0, 0, INT64_MAX));
  TRY_ASSIGN(const int64_t limit, ReadInteger(request.query, "limit", 100, 1, kEntriesMax));
  TRY_ASSIGN(const std::vector<ledger::AuditEntry> entries,
             context.ledger->store().ListAudit(after, limit));
  Json data = Json::array();
  for (const ledger::AuditEntry& entry : entries) {
    // The details are kept, and hashed, as text.
    const auto details = ParseJson(entry.details);
    data.push_back({{"number", entry.number},
                    {"object", "audit_entry"},
                    {"at", entry.at},
                    {"actor", entry.actor},
                    {"action", entry.action},
                    {"subject", entry.subject},
                    {"details", details ? *details : Json(entry.details)},
                    {"hash", ledger::HexOf(entry.hash)}});
  }
  return ListResponse(std::move(data));
}

Answer Verify(Context& context, const Request& request) {
  const Fields fields(request.body, {});
  TRY(fields.status());
  TRY_ASSIGN(const std::vector<std::string> faults, context.ledger->Verify());
  for (const std::string& fault : faults) spdlog::error("ledger: {}", fault);
  return JsonResponse({{"object", "verification"}, {"ok", faults.empty()}, {"faults", faults}});
}

Answer Backup(Context& context, const Request& request) {
  Fields fields(request.body, {"path"});
  std::string path;
  fields.Require("path");
  fields.Read("path", path);
  if (path.empty() || path.find('\0') != path.npos) fields.Refuse("path", "must be a path");
  TRY(fields.status());
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return Fail(ErrorCode::kInvalidArgument, "path is not a path", "path");
  TRY(context.ledger->store().Backup(absolute));
  const auto size_bytes = std::filesystem::file_size(absolute, error);
  return JsonResponse({{"object", "backup"},
                       {"path", absolute.string()},
                       {"size_bytes", error ? 0 : static_cast<int64_t>(size_bytes)}});
}

constexpr Endpoint kAuditEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/audit", .answer = ListAudit},
};
constexpr Endpoint kBookEndpoints[] = {
    {.method = "POST", .pattern = "/admin/v1/verify", .answer = Verify, .has_body = true},
    {.method = "POST", .pattern = "/admin/v1/backup", .answer = Backup, .has_body = true},
};

}  // namespace

std::span<const Endpoint> AuditEndpoints() { return kAuditEndpoints; }
std::span<const Endpoint> BookEndpoints() { return kBookEndpoints; }

}  // namespace millpower::serve::admin
