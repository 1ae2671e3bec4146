#include "ledger/sqlite_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/descriptor.h"
#include "ledger/key_secret.h"
#include "ledger/schema.h"
#include "ledger/sqlite.h"
#include "ledger/sqlite_reader.h"
#include "ledger/sqlite_verify.h"
#include "ledger/sqlite_writer.h"

namespace millpower::ledger {
namespace {

std::unexpected<Error> FailIo(const std::filesystem::path& path, const char* what) {
  const int error = errno;
  return Fail(error == ENOSPC ? ErrorCode::kNoCapacity : ErrorCode::kIo,
              fmt::format("{}: {}: {}", path.string(), what, std::strerror(error)));
}

// The lock of the process that writes. SQLite's own locks come and go with transactions.
Result<Descriptor> Lock(const std::filesystem::path& file) {
  const std::filesystem::path path = file.string() + ".lock";
  Descriptor lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.get() < 0) return FailIo(path, "can't open");
  if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK)
    return Fail(ErrorCode::kUnavailable,
                fmt::format("{}: the ledger is in use by another process", file.string()));
  return FailIo(path, "can't lock");
}

Result<int64_t> ReadInt(Database& database, const char* sql) {
  TRY_ASSIGN(Statement row, database.Prepare(sql));
  TRY_ASSIGN(const bool has_row, row.Step());
  return has_row ? row.Int(0) : 0;
}

Result<void> UseWriteAheadLog(Database& database) {
  TRY_ASSIGN(Statement row, database.Prepare("PRAGMA journal_mode = WAL"));
  TRY_ASSIGN(const bool has_row, row.Step());
  if (!has_row || row.Text(0) != "wal")
    return Fail(ErrorCode::kIo, "this file system can't hold a write-ahead log");
  return {};
}

// Whether the file is a ledger (true) or holds nothing yet (false). Errors: kCorrupt.
Result<bool> IsLedger(Database& database) {
  TRY_ASSIGN(const int64_t application, ReadInt(database, "PRAGMA application_id"));
  TRY_ASSIGN(const int64_t version, ReadInt(database, "PRAGMA user_version"));
  TRY_ASSIGN(const int64_t tables, ReadInt(database, "SELECT count(*) FROM sqlite_schema"));
  if (application == 0 && version == 0 && tables == 0) return false;
  if (application != kApplicationId)
    return Fail(ErrorCode::kCorrupt, "it is a database, but not a ledger of Millpower");
  if (version != kFormatVersion)
    return Fail(ErrorCode::kCorrupt,
                fmt::format("its format is version {}, and this program knows version {}", version,
                            kFormatVersion));
  return true;
}

Result<void> MakeTables(Database& database, const std::string& currency) {
  TRY(database.Execute("BEGIN IMMEDIATE"));
  TRY(database.Execute(kSchema));
  for (const char* table : kImmutableTables) {
    for (const char* what : {"UPDATE", "DELETE"}) {
      TRY(
          database.Execute(fmt::format("CREATE TRIGGER {0}_refuse_{1} BEFORE {1} ON {0} BEGIN"
                                       " SELECT RAISE(ABORT, 'rows of {0} are never changed'); END",
                                       table, what)));
    }
  }
  TRY_ASSIGN(Statement setting,
             database.Prepare("INSERT INTO settings (name, value) VALUES ('currency', ?)"));
  TRY(setting.Bind(1, currency).Run());
  TRY(database.Execute(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}",
                                   kApplicationId, kFormatVersion)));
  return database.Execute("COMMIT");
}

Result<void> SyncPath(const std::filesystem::path& path, int flags) {
  const Descriptor descriptor(open(path.c_str(), flags | O_CLOEXEC));
  if (descriptor.get() < 0) return FailIo(path, "can't open");
  if (fsync(descriptor.get()) != 0) return FailIo(path, "can't write");
  return {};
}

// Copies one state of the source into a file beside `to`, and gives it the name when it is whole
// and on the disk, so that what has the name is a backup.
Result<void> CopyTo(Database& source, const std::filesystem::path& to) {
  std::error_code failed;
  const std::filesystem::path path = std::filesystem::absolute(to, failed);
  if (failed) return Fail(ErrorCode::kIo, fmt::format("{}: {}", to.string(), failed.message()));
  const auto taken = [&] {
    return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: there is a file", to.string()), "path");
  };
  if (std::filesystem::exists(std::filesystem::symlink_status(path, failed))) return taken();
  const std::filesystem::path part = path.string() + NewRecordId(".part_");
  {
    const Descriptor made(open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (made.get() < 0) return FailIo(part, "can't make");
  }
  const auto copy = [&]() -> Result<void> {
    {
      TRY_ASSIGN(Database target, Database::Open(part, {}));
      sqlite3_backup* backup =
          sqlite3_backup_init(target.handle(), "main", source.handle(), "main");
      CHECK(backup) << sqlite3_errmsg(target.handle());
      // In one go: a copy in steps would start again whenever something is written.
      sqlite3_backup_step(backup, -1);
      const int rc = sqlite3_backup_finish(backup);
      if (rc != SQLITE_OK) return FailAt(part.string(), ErrorOf(target.handle(), rc));
    }
    TRY(SyncPath(part, O_RDONLY));
    // A link, not a rename: it never takes the place of a file that came meanwhile.
    if (link(part.c_str(), path.c_str()) != 0) {
      if (errno == EEXIST) return taken();
      return FailIo(path, "can't make");
    }
    return SyncPath(path.parent_path(), O_RDONLY | O_DIRECTORY);
  };
  Result<void> copied = copy();
  unlink(part.c_str());
  return copied;
}

// What each connection that writes is set to.
//  - synchronous=FULL: a commit returns once the log is on the disk.
//  - secure_delete: holds that are gone hold no secrets.
constexpr const char* kWriterSettings =
    "PRAGMA synchronous = FULL;"
    " PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -32768;"
    " PRAGMA secure_delete = OFF; PRAGMA foreign_keys = OFF";
constexpr const char* kReaderSettings = "PRAGMA temp_store = MEMORY; PRAGMA query_only = ON";

class SqliteStore final : public Store {
 public:
  SqliteStore(std::filesystem::path file, std::string vfs, Descriptor lock,
              std::unique_ptr<SqliteWriter> writer, Database reader)
      : file_(std::move(file)),
        vfs_(std::move(vfs)),
        lock_(std::move(lock)),
        writer_(std::move(writer)),
        reader_(std::move(reader)) {}

  Result<StoredState> Load() override {
    return Read([](Database& database) { return ReadState(database); });
  }

  Result<void> Commit(std::span<const Record> records) override {
    if (!writer_) return Fail(ErrorCode::kIo, "the ledger was opened only to be read");
    return writer_->Commit(records);
  }
  Result<bool> WasPosted(const std::string& request_id) override {
    if (!writer_) return Fail(ErrorCode::kIo, "the ledger was opened only to be read");
    return writer_->WasPosted(request_id);
  }
  Result<bool> WasPaid(const std::string& reference) override {
    if (!writer_) return Fail(ErrorCode::kIo, "the ledger was opened only to be read");
    return writer_->WasPaid(reference);
  }

  Result<UsageReport> ReadUsage(const UsageQuery& query) override {
    return Read([&](Database& database) { return ReadUsageReport(database, query); });
  }
  Result<std::vector<Usage>> ListUsage(const UsageQuery& query, int64_t limit,
                                       Number before) override {
    return Read([&](Database& database) { return ReadUsageRows(database, query, limit, before); });
  }
  Result<std::vector<InvoiceLine>> ReadInvoiceLines(Number tenant, int64_t from,
                                                    int64_t to) override {
    return Read(
        [&](Database& database) { return ledger::ReadInvoiceLines(database, tenant, from, to); });
  }
  Result<std::vector<Posting>> ListPostings(Number tenant, int64_t from, int64_t to,
                                            int64_t limit) override {
    return Read(
        [&](Database& database) { return ReadPostings(database, tenant, from, to, limit); });
  }
  Result<std::vector<AuditEntry>> ListAudit(Number after, int64_t limit) override {
    return Read([&](Database& database) { return ReadAudit(database, after, limit); });
  }

  // These take long: on a connection of their own, so that no other reader waits.
  Result<std::vector<std::string>> Verify(
      const std::function<bool(const std::string& request_id)>& is_live) override {
    TRY_ASSIGN(Database database, Database::Open(file_, {.read_only = true, .vfs = vfs_}));
    TRY(database.Execute("PRAGMA query_only = ON"));
    return VerifyBooks(database, is_live);
  }
  Result<void> Backup(const std::filesystem::path& to) override {
    TRY_ASSIGN(Database database, Database::Open(file_, {.read_only = true, .vfs = vfs_}));
    return CopyTo(database, to);
  }

 private:
  template <typename Function>
  std::invoke_result_t<Function, Database&> Read(Function function) {
    const std::lock_guard lock(reading_);
    auto result = function(reader_);
    if (!result) result.error().message = file_.string() + ": " + result.error().message;
    return result;
  }

  std::filesystem::path file_;
  std::string vfs_;
  Descriptor lock_;                       // goes last
  std::unique_ptr<SqliteWriter> writer_;  // null: read only
  std::mutex reading_;
  Database reader_;  // under reading_
};

Result<std::unique_ptr<Store>> Open(const std::filesystem::path& file,
                                    const SqliteOptions& options) {
  Descriptor lock;
  std::unique_ptr<SqliteWriter> writer;
  if (!options.read_only) {
    TRY_ASSIGN(lock, Lock(file));
    TRY_ASSIGN(Database database,
               Database::Open(file, {.create = options.create, .vfs = options.vfs}));
    TRY_ASSIGN(const bool is_ledger, IsLedger(database));
    if (!is_ledger && !options.create) return Fail(ErrorCode::kCorrupt, "it is empty");
    TRY(UseWriteAheadLog(database));
    TRY(database.Execute(kWriterSettings));
    TRY(database.Execute(fmt::format("PRAGMA wal_autocheckpoint = {}", options.checkpoint_pages)));
    if (!is_ledger) TRY(MakeTables(database, options.currency));
    TRY_ASSIGN(writer, SqliteWriter::Open(std::move(database)));
  }
  TRY_ASSIGN(Database reader, Database::Open(file, {.read_only = true, .vfs = options.vfs}));
  TRY(reader.Execute(kReaderSettings));
  TRY_ASSIGN(const bool is_ledger, IsLedger(reader));
  if (!is_ledger) return Fail(ErrorCode::kCorrupt, "it is empty");
  return std::make_unique<SqliteStore>(file, options.vfs, std::move(lock), std::move(writer),
                                       std::move(reader));
}

}  // namespace

Result<std::unique_ptr<Store>> OpenSqliteStore(const std::filesystem::path& file,
                                               const SqliteOptions& options) {
  std::error_code failed;
  // Before the lock's file is made for nothing.
  if ((!options.create || options.read_only) && !std::filesystem::exists(file, failed))
    return Fail(ErrorCode::kNotFound, fmt::format("{}: there is no ledger", file.string()));
  auto store = Open(file, options);
  if (store) return store;
  Error error = std::move(store).error();
  // SQL that does not fit the file's tables: they are not those of our version.
  if (error.code == ErrorCode::kInternal) error.code = ErrorCode::kCorrupt;
  if (!error.message.starts_with(file.string())) return FailAt(file.string(), std::move(error));
  return std::unexpected(std::move(error));
}

}  // namespace millpower::ledger
