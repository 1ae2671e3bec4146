#include "ledger/sqlite.h"

#include <fmt/format.h>

#include "base/check.h"

namespace millpower::ledger {
namespace {

ErrorCode CodeOf(int rc) {
  switch (rc & 0xff) {  // the primary code
    case SQLITE_FULL:
      return ErrorCode::kNoCapacity;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
      return ErrorCode::kCorrupt;
    case SQLITE_CONSTRAINT:
      return ErrorCode::kAlreadyExists;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return ErrorCode::kIo;
    default:
      return ErrorCode::kInternal;
  }
}

std::unexpected<Error> FailWith(sqlite3* handle, int rc) {
  return std::unexpected(ErrorOf(handle, rc));
}

// What can fail in binding is an index that is not there: our mistake.
void CheckBound(int rc, int index) {
  CHECK(rc == SQLITE_OK) << "parameter " << index << ": " << sqlite3_errstr(rc);
}

}  // namespace

Error ErrorOf(sqlite3* handle, int rc) {
  const char* message = handle ? sqlite3_errmsg(handle) : sqlite3_errstr(rc);
  return {CodeOf(rc), fmt::format("{} (SQLite error {})", message, rc), {}};
}

Statement& Statement::Bind(int index, int64_t value) {
  CheckBound(sqlite3_bind_int64(statement_.get(), index, value), index);
  return *this;
}

Statement& Statement::Bind(int index, std::string_view text) {
  // A null pointer would be a NULL rather than an empty text.
  CheckBound(sqlite3_bind_text64(statement_.get(), index, text.empty() ? "" : text.data(),
                                 text.size(), SQLITE_TRANSIENT, SQLITE_UTF8),
             index);
  return *this;
}

Statement& Statement::BindBlob(int index, std::string_view bytes) {
  CheckBound(sqlite3_bind_blob64(statement_.get(), index, bytes.empty() ? "" : bytes.data(),
                                 bytes.size(), SQLITE_TRANSIENT),
             index);
  return *this;
}

Statement& Statement::BindNull(int index) {
  CheckBound(sqlite3_bind_null(statement_.get(), index), index);
  return *this;
}

Result<bool> Statement::Step() {
  const int rc = sqlite3_step(statement_.get());
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  auto error = FailWith(sqlite3_db_handle(statement_.get()), rc);
  sqlite3_reset(statement_.get());
  return error;
}

Result<void> Statement::Run() {
  for (;;) {
    TRY_ASSIGN(const bool has_row, Step());
    if (!has_row) break;
  }
  Reset();
  return {};
}

void Statement::Reset() { sqlite3_reset(statement_.get()); }

int64_t Statement::Int(int column) const { return sqlite3_column_int64(statement_.get(), column); }

std::string Statement::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  if (!text) return {};
  return {text, static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

std::string Statement::Blob(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  if (!bytes) return {};
  return {bytes, static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

Result<Database> Database::Open(const std::filesystem::path& file, const Options& options) {
  // An absolute path is never taken for ":memory:" or a URI with options of its own.
  std::error_code failed;
  const std::filesystem::path path = std::filesystem::absolute(file, failed);
  if (failed) return Fail(ErrorCode::kIo, fmt::format("{}: {}", file.string(), failed.message()));
  if (!options.create && !std::filesystem::exists(path, failed))
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no such file", path.string()));
  const int flags =
      (options.read_only ? SQLITE_OPEN_READONLY
                         : SQLITE_OPEN_READWRITE | (options.create ? SQLITE_OPEN_CREATE : 0)) |
      SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  sqlite3* handle = nullptr;
  const int rc = sqlite3_open_v2(path.c_str(), &handle, flags,
                                 options.vfs.empty() ? nullptr : options.vfs.c_str());
  Database database;
  database.handle_.reset(handle);  // there is one even where opening failed
  if (rc != SQLITE_OK) return FailAt(path.string(), ErrorOf(handle, rc));
  sqlite3_busy_timeout(handle, options.busy_timeout_ms);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  if (options.read_only) sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return database;
}

Result<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int rc = sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                                    SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (rc != SQLITE_OK) return FailWith(handle_.get(), rc);
  return Statement(statement);
}

Result<void> Database::Execute(const std::string& sql) {
  const int rc = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return FailWith(handle_.get(), rc);
  return {};
}

int64_t Database::changes() const { return sqlite3_changes64(handle_.get()); }
int64_t Database::last_insert_rowid() const { return sqlite3_last_insert_rowid(handle_.get()); }
bool Database::in_transaction() const { return sqlite3_get_autocommit(handle_.get()) == 0; }

}  // namespace millpower::ledger
