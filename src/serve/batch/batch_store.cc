#include "serve/batch/batch_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <mutex>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/descriptor.h"
#include "base/json.h"
#include "ledger/key_secret.h"
#include "ledger/sqlite.h"

namespace millpower::serve {
namespace {

namespace fs = std::filesystem;
using ledger::Database;
using ledger::Statement;

constexpr int64_t kVersion = 2;
constexpr const char* kSchema = R"(
CREATE TABLE files (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL,
  name TEXT NOT NULL, purpose TEXT NOT NULL,
  bytes INTEGER NOT NULL, created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX files_of_tenant ON files (tenant, number);
CREATE TABLE batches (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL,
  endpoint TEXT NOT NULL, input_file TEXT NOT NULL, metadata TEXT NOT NULL,
  status INTEGER NOT NULL, errors TEXT NOT NULL,
  output_file TEXT NOT NULL, error_file TEXT NOT NULL,
  output_bytes INTEGER NOT NULL, error_bytes INTEGER NOT NULL,
  total INTEGER NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  validating_at INTEGER NOT NULL, in_progress_at INTEGER NOT NULL,
  finalizing_at INTEGER NOT NULL, completed_at INTEGER NOT NULL, failed_at INTEGER NOT NULL,
  expired_at INTEGER NOT NULL, cancelling_at INTEGER NOT NULL, cancelled_at INTEGER NOT NULL
) STRICT;
CREATE INDEX batches_of_tenant ON batches (tenant, number);
CREATE INDEX batches_by_status ON batches (status, number);
CREATE TABLE done (
  batch INTEGER NOT NULL, line INTEGER NOT NULL, PRIMARY KEY (batch, line)
) STRICT, WITHOUT ROWID;
)";

constexpr const char* kFileColumns =
    "number, id, tenant, project, key, name, purpose, bytes, created_at";
constexpr const char* kBatchColumns =
    "number, id, tenant, project, key, endpoint, input_file, metadata, status, errors, "
    "output_file, error_file, output_bytes, error_bytes, total, completed, failed, expires_at, "
    "validating_at, in_progress_at, finalizing_at, completed_at, failed_at, expired_at, "
    "cancelling_at, cancelled_at";
// Validating, in progress, finalizing, cancelling.
constexpr const char* kUnfinished = "status IN (0, 1, 2, 6)";

Result<FileRecord> ReadFileRow(const Statement& row) {
  return FileRecord{.number = row.Int(0),
                    .id = row.Text(1),
                    .owner = {row.Text(2), row.Text(3), row.Text(4)},
                    .name = row.Text(5),
                    .purpose = row.Text(6),
                    .bytes = row.Int(7),
                    .created_at = row.Int(8)};
}

std::string ErrorsText(std::span<const BatchError> errors) {
  Json list = Json::array();
  for (const BatchError& error : errors)
    list.push_back({error.code, error.message, error.param, error.line});
  return DumpJson(list);
}

Result<std::vector<BatchError>> ReadErrors(const std::string& text) {
  std::vector<BatchError> errors;
  TRY_ASSIGN(const Json list, ParseJson(text));
  for (const Json& each : list) {
    if (!each.is_array() || each.size() != 4 || !each[0].is_string() || !each[1].is_string() ||
        !each[2].is_string() || !each[3].is_number_integer())
      return Fail(ErrorCode::kCorrupt, "batches.db: errors of a batch are not as written");
    errors.push_back({each[0], each[1], each[2], each[3]});
  }
  return errors;
}

Result<BatchRecord> ReadBatchRow(const Statement& row) {
  const int64_t status = row.Int(8);
  if (status < 0 || status >= kBatchStatusCount)
    return Fail(ErrorCode::kCorrupt, fmt::format("batches.db: no such status: {}", status));
  BatchRecord batch{.number = row.Int(0),
                    .id = row.Text(1),
                    .owner = {row.Text(2), row.Text(3), row.Text(4)},
                    .endpoint = row.Text(5),
                    .input_file = row.Text(6),
                    .metadata = row.Text(7),
                    .status = static_cast<BatchStatus>(status),
                    .errors = {},
                    .output_file = row.Text(10),
                    .error_file = row.Text(11),
                    .output_bytes = row.Int(12),
                    .error_bytes = row.Int(13),
                    .total = row.Int(14),
                    .completed = row.Int(15),
                    .failed = row.Int(16),
                    .expires_at = row.Int(17)};
  TRY_ASSIGN(batch.errors, ReadErrors(row.Text(9)));
  for (int i = 0; i < kBatchStatusCount; ++i)
    batch.entered_at[static_cast<size_t>(i)] = row.Int(18 + i);
  return batch;
}

// ---- Bytes

std::unexpected<Error> SystemError(const std::string& what, const fs::path& path) {
  const int fault = errno;
  const bool is_full = fault == ENOSPC || fault == EDQUOT;
  return Fail(is_full ? ErrorCode::kUnavailable : ErrorCode::kIo,
              fmt::format("{} {}: {}", what, path.filename().string(), std::strerror(fault)));
}

// `bytes` at `offset`, where the file then ends, on the disk.
Result<void> WriteDurably(const fs::path& path, std::string_view bytes, int64_t offset) {
  const Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (file.get() < 0) return SystemError("can't open", path);
  for (int64_t at = offset; !bytes.empty();) {
    const ssize_t count = pwrite(file.get(), bytes.data(), bytes.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError("can't write", path);
    bytes.remove_prefix(static_cast<size_t>(count));
    at += count;
    offset = at;
  }
  if (ftruncate(file.get(), offset) != 0) return SystemError("can't write", path);
  if (fsync(file.get()) != 0) return SystemError("can't sync", path);
  return {};
}

Result<void> SyncFolder(const fs::path& folder) {
  const Descriptor opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened.get() < 0 || fsync(opened.get()) != 0) return SystemError("can't sync", folder);
  return {};
}

void Remove(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) spdlog::warn("can't remove {}: {}", path.string(), error.message());
}

std::string JoinLines(std::span<const LineResult> results, bool failed) {
  std::string text;
  for (const LineResult& each : results)
    if (each.failed == failed) (text += each.text) += '\n';
  return text;
}

}  // namespace

const char* Name(BatchStatus status) {
  constexpr std::array<const char*, kBatchStatusCount> kNames = {
      "validating", "in_progress", "finalizing", "completed",
      "failed",     "expired",     "cancelling", "cancelled"};
  return kNames[static_cast<size_t>(status)];
}

bool IsOver(BatchStatus status) {
  return status == BatchStatus::kCompleted || status == BatchStatus::kFailed ||
         status == BatchStatus::kExpired || status == BatchStatus::kCancelled;
}

struct BatchStore::Impl {
  Impl(fs::path folder_in, const BatchLimits& limits_in, const Clock& clock_in, Database database)
      : files(std::move(folder_in) / "files"),
        limits(limits_in),
        clock(clock_in),
        db(std::move(database)) {}

  const fs::path files;
  const BatchLimits limits;
  const Clock& clock;
  std::mutex mutex;
  Database db;

  fs::path PathOf(const std::string& id) const { return files / id; }

  Result<void> Prepare() {
    TRY(db.Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"));
    TRY_ASSIGN(Statement version, db.Prepare("PRAGMA user_version"));
    TRY(version.Step());
    const int64_t found = version.Int(0);
    version.Reset();
    if (found == 0)
      TRY(InTransaction([&]() -> Result<void> {
        TRY(db.Execute(kSchema));
        return db.Execute(fmt::format("PRAGMA user_version={}", kVersion));
      }));
    else if (found != kVersion)
      return Fail(ErrorCode::kUnsupported,
                  fmt::format("batches.db is of version {}; this program knows {}: move it and the "
                              "folder files beside it away",
                              found, kVersion));
    return RemoveOrphans();
  }

  // Errors: what `work` says; kUnavailable (the disk is full).
  template <typename Work>
  Result<void> InTransaction(Work work) {
    Result<void> done = db.Execute("BEGIN IMMEDIATE");
    if (done) done = work();
    if (done) done = db.Execute("COMMIT");
    // Where the failure ended the transaction already, there is nothing to roll back.
    if (!done && sqlite3_get_autocommit(db.handle()) == 0) (void)db.Execute("ROLLBACK");
    if (!done && done.error().code == ErrorCode::kNoCapacity) {
      spdlog::error("batches.db can't be written: {}", done.error().message);
      return Fail(ErrorCode::kUnavailable, "the server's disk is full");
    }
    return done;
  }

  // The only number of a query's only row.
  template <typename... Arguments>
  Result<int64_t> Count(const std::string& sql, const Arguments&... arguments) {
    TRY_ASSIGN(Statement query, db.Prepare(sql));
    int index = 0;
    (query.Bind(++index, arguments), ...);
    TRY(query.Step());
    return query.Int(0);
  }

  // Uploads whose answer was never given, and what deleted files or outputs left.
  Result<void> RemoveOrphans() {
    std::set<std::string> known;
    TRY_ASSIGN(Statement query,
               db.Prepare(fmt::format("SELECT id FROM files UNION SELECT output_file FROM batches "
                                      "WHERE {0} UNION SELECT error_file FROM batches WHERE {0}",
                                      kUnfinished)));
    while (true) {
      TRY_ASSIGN(const bool more, query.Step());
      if (!more) break;
      known.insert(query.Text(0));
    }
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(files, error))
      if (!known.contains(entry.path().filename().string())) Remove(entry.path());
    if (error)
      return Fail(ErrorCode::kIo,
                  fmt::format("can't list {}: {}", files.string(), error.message()));
    return {};
  }

  // What the tenant keeps, and `more`.
  Result<void> CheckRoom(const std::string& tenant, int64_t more) {
    TRY_ASSIGN(const int64_t kept,
               Count("SELECT coalesce(sum(bytes), 0) FROM files WHERE tenant = ?1", tenant));
    TRY_ASSIGN(const int64_t being_written,
               Count("SELECT coalesce(sum(output_bytes + error_bytes), 0) FROM batches WHERE "
                     "tenant = ?1 AND status IN (0, 1, 2, 6)",
                     tenant));
    if (kept + being_written + more > limits.storage_bytes_max)
      return Fail(ErrorCode::kQuotaExceeded,
                  fmt::format("your files take {} bytes, with this one they would exceed the {} "
                              "bytes that a tenant may keep: delete some",
                              kept + being_written, limits.storage_bytes_max));
    TRY_ASSIGN(const int64_t count, Count("SELECT count(*) FROM files WHERE tenant = ?1", tenant));
    if (count >= limits.files_max)
      return Fail(
          ErrorCode::kQuotaExceeded,
          fmt::format("you have {} files, as many as a tenant may keep: delete some", count));
    return {};
  }

  // Makes room for the record of one more batch. There is always one that is over to be forgotten:
  // fewer may be unfinished than kept.
  Result<void> ForgetBatches(const std::string& tenant) {
    TRY_ASSIGN(const int64_t count,
               Count("SELECT count(*) FROM batches WHERE tenant = ?1", tenant));
    if (count < limits.batches_max) return {};
    TRY_ASSIGN(Statement forget,
               db.Prepare(fmt::format("DELETE FROM batches WHERE number IN (SELECT number FROM "
                                      "batches WHERE tenant = ?1 AND NOT ({}) ORDER BY number "
                                      "LIMIT ?2)",
                                      kUnfinished)));
    return forget.Bind(1, tenant).Bind(2, count + 1 - limits.batches_max).Run();
  }

  Result<void> InsertFile(const FileRecord& file) {
    TRY_ASSIGN(Statement insert,
               db.Prepare("INSERT INTO files (id, tenant, project, key, name, purpose, bytes, "
                          "created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"));
    return insert.Bind(1, file.id)
        .Bind(2, file.owner.tenant)
        .Bind(3, file.owner.project)
        .Bind(4, file.owner.key)
        .Bind(5, file.name)
        .Bind(6, file.purpose)
        .Bind(7, file.bytes)
        .Bind(8, file.created_at)
        .Run();
  }

  // The rows of a query, as `read` makes them. `bind` gets the statement.
  template <typename T>
  Result<std::vector<T>> Select(const std::string& sql, const std::function<void(Statement&)>& bind,
                                Result<T> (*read)(const Statement&)) {
    TRY_ASSIGN(Statement query, db.Prepare(sql));
    bind(query);
    std::vector<T> rows;
    while (true) {
      TRY_ASSIGN(const bool more, query.Step());
      if (!more) return rows;
      TRY_ASSIGN(T row, read(query));
      rows.push_back(std::move(row));
    }
  }

  Result<FileRecord> FindFile(const std::string& tenant, const std::string& id) {
    TRY_ASSIGN(std::vector<FileRecord> found,
               Select<FileRecord>(
                   fmt::format("SELECT {} FROM files WHERE tenant = ?1 AND id = ?2", kFileColumns),
                   [&](Statement& query) { query.Bind(1, tenant).Bind(2, id); }, ReadFileRow));
    if (found.empty()) return Fail(ErrorCode::kNotFound, "you have no such file", "file_id");
    return std::move(found.front());
  }

  Result<BatchRecord> FindBatch(const std::string& tenant, const std::string& id) {
    TRY_ASSIGN(
        std::vector<BatchRecord> found,
        Select<BatchRecord>(
            fmt::format("SELECT {} FROM batches WHERE tenant = ?1 AND id = ?2", kBatchColumns),
            [&](Statement& query) { query.Bind(1, tenant).Bind(2, id); }, ReadBatchRow));
    if (found.empty()) return Fail(ErrorCode::kNotFound, "you have no such batch", "batch_id");
    return std::move(found.front());
  }

  Result<BatchRecord> FindBatch(int64_t number) {
    TRY_ASSIGN(std::vector<BatchRecord> found,
               Select<BatchRecord>(
                   fmt::format("SELECT {} FROM batches WHERE number = ?1", kBatchColumns),
                   [&](Statement& query) { query.Bind(1, number); }, ReadBatchRow));
    CHECK(!found.empty()) << number;
    return std::move(found.front());
  }

  // A page of rows that are the tenant's, beyond the row of number `after`.
  template <typename T>
  Result<ListPage<T>> SelectPage(const char* columns, const char* table, const std::string& tenant,
                                 std::optional<int64_t> after, const ListQuery& query,
                                 Result<T> (*read)(const Statement&)) {
    const std::string sql = fmt::format(
        "SELECT {} FROM {} WHERE tenant = ?1 AND number {} ?2 {} ORDER BY number {} LIMIT ?3",
        columns, table, query.ascending ? ">" : "<",
        query.purpose.empty() ? "" : "AND purpose = ?4", query.ascending ? "ASC" : "DESC");
    ListPage<T> page;
    TRY_ASSIGN(page.items, Select<T>(
                               sql,
                               [&](Statement& statement) {
                                 statement.Bind(1, tenant)
                                     .Bind(2, after.value_or(query.ascending ? 0 : INT64_MAX))
                                     .Bind(3, query.limit + 1);
                                 if (!query.purpose.empty()) statement.Bind(4, query.purpose);
                               },
                               read));
    page.has_more = std::ssize(page.items) > query.limit;
    if (page.has_more) page.items.pop_back();
    return page;
  }

  Result<void> InsertResults(const BatchRecord& batch, std::span<const LineResult> results) {
    TRY_ASSIGN(Statement insert, db.Prepare("INSERT INTO done (batch, line) VALUES (?1, ?2)"));
    for (const LineResult& each : results)
      TRY(insert.Bind(1, batch.number).Bind(2, each.line).Run());
    TRY_ASSIGN(Statement update,
               db.Prepare("UPDATE batches SET output_bytes = ?2, error_bytes = ?3, completed = ?4, "
                          "failed = ?5 WHERE number = ?1"));
    return update.Bind(1, batch.number)
        .Bind(2, batch.output_bytes)
        .Bind(3, batch.error_bytes)
        .Bind(4, batch.completed)
        .Bind(5, batch.failed)
        .Run();
  }

  // A file of results becomes one of the tenant's. None where there are no results.
  Result<void> Settle(const std::string& id, int64_t bytes) {
    if (bytes > 0) return WriteDurably(PathOf(id), "", bytes);
    Remove(PathOf(id));
    return {};
  }
};

BatchStore::BatchStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

BatchStore::~BatchStore() = default;

Result<std::unique_ptr<BatchStore>> BatchStore::Open(const fs::path& folder,
                                                     const BatchLimits& limits,
                                                     const Clock& clock) {
  std::error_code error;
  fs::create_directory(folder / "files", error);
  if (error)
    return Fail(ErrorCode::kIo,
                fmt::format("can't make {}: {}", (folder / "files").string(), error.message()));
  // For nobody else's eyes, whatever the umask; SQLite gives its log the mode of its file.
  if (chmod((folder / "files").c_str(), 0700) != 0) return SystemError("can't protect", "files");
  const fs::path records = folder / "batches.db";
  {
    const Descriptor file(open(records.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (file.get() < 0) return SystemError("can't open", records);
    if (fchmod(file.get(), 0600) != 0) return SystemError("can't protect", records);
  }
  TRY_ASSIGN(Database database, Database::Open(records, {.create = true}));
  auto impl = std::make_unique<Impl>(folder, limits, clock, std::move(database));
  TRY(impl->Prepare());
  TRY(SyncFolder(folder));
  return std::unique_ptr<BatchStore>(new BatchStore(std::move(impl)));
}

fs::path BatchStore::PathOf(const std::string& file_id) const { return impl_->PathOf(file_id); }

// ---- Files

Result<FileRecord> BatchStore::AddFile(const Owner& owner, const std::string& name,
                                       const std::string& purpose, std::string_view content) {
  const FileRecord file{.id = ledger::NewRecordId("file-"),
                        .owner = owner,
                        .name = name,
                        .purpose = purpose,
                        .bytes = std::ssize(content),
                        .created_at = impl_->clock.UnixSeconds()};
  {
    std::lock_guard lock(impl_->mutex);
    TRY(impl_->CheckRoom(owner.tenant, file.bytes));
  }
  // Without the lock, which the runner needs as well. It is nobody's until there is a row.
  const fs::path path = impl_->PathOf(file.id);
  Result<void> added = WriteDurably(path, content, 0);
  if (added) added = SyncFolder(impl_->files);
  if (added) {
    std::lock_guard lock(impl_->mutex);
    added = impl_->InTransaction([&]() -> Result<void> {
      TRY(impl_->CheckRoom(owner.tenant, file.bytes));
      return impl_->InsertFile(file);
    });
  }
  if (!added) {
    Remove(path);
    return std::unexpected(std::move(added).error());
  }
  return file;
}

Result<FileRecord> BatchStore::FindFile(const std::string& tenant, const std::string& id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->FindFile(tenant, id);
}

Result<ListPage<FileRecord>> BatchStore::ListFiles(const std::string& tenant,
                                                   const ListQuery& query) {
  std::lock_guard lock(impl_->mutex);
  std::optional<int64_t> after;
  if (!query.after.empty()) {
    TRY_ASSIGN(const FileRecord last, impl_->FindFile(tenant, query.after));
    after = last.number;
  }
  return impl_->SelectPage<FileRecord>(kFileColumns, "files", tenant, after, query, ReadFileRow);
}

Result<void> BatchStore::DeleteFile(const std::string& tenant, const std::string& id) {
  {
    std::lock_guard lock(impl_->mutex);
    TRY_ASSIGN(const FileRecord file, impl_->FindFile(tenant, id));
    TRY_ASSIGN(const std::vector<BatchRecord> users,
               impl_->Select<BatchRecord>(
                   fmt::format("SELECT {} FROM batches WHERE input_file = ?1 AND {}", kBatchColumns,
                               kUnfinished),
                   [&](Statement& query) { query.Bind(1, id); }, ReadBatchRow));
    if (!users.empty())
      return Fail(ErrorCode::kAlreadyExists,
                  fmt::format("the file is the input of {}, which is not over: cancel that first",
                              users.front().id),
                  "file_id");
    TRY(impl_->InTransaction([&]() -> Result<void> {
      TRY_ASSIGN(Statement remove, impl_->db.Prepare("DELETE FROM files WHERE number = ?1"));
      return remove.Bind(1, file.number).Run();
    }));
  }
  Remove(impl_->PathOf(id));
  return {};
}

// ---- Batches

Result<BatchRecord> BatchStore::AddBatch(const Owner& owner, const std::string& endpoint,
                                         const std::string& input_file, const std::string& metadata,
                                         int64_t window_s) {
  std::lock_guard lock(impl_->mutex);
  const int64_t now = impl_->clock.UnixSeconds();
  BatchRecord batch{.id = ledger::NewRecordId("batch_"),
                    .owner = owner,
                    .endpoint = endpoint,
                    .input_file = input_file,
                    .metadata = metadata,
                    .errors = {},
                    .output_file = ledger::NewRecordId("file-"),
                    .error_file = ledger::NewRecordId("file-"),
                    .expires_at = now + window_s};
  TRY(impl_->InTransaction([&]() -> Result<void> {
    TRY_ASSIGN(const FileRecord file, impl_->FindFile(owner.tenant, input_file));
    if (file.purpose != "batch")
      return Fail(ErrorCode::kInvalidArgument,
                  "the input must be a file of purpose \"batch\", not \"" + file.purpose + "\"",
                  "input_file_id");
    TRY_ASSIGN(const int64_t unfinished,
               impl_->Count("SELECT count(*) FROM batches WHERE tenant = ?1 AND status IN "
                            "(0, 1, 2, 6)",
                            owner.tenant));
    if (unfinished >= impl_->limits.unfinished_batches_max)
      return Fail(
          ErrorCode::kQuotaExceeded,
          fmt::format("{} of your batches are not over, as many as a tenant may have", unfinished));
    TRY(impl_->CheckRoom(owner.tenant, 0));
    TRY(impl_->ForgetBatches(owner.tenant));
    TRY_ASSIGN(Statement insert,
               impl_->db.Prepare(
                   "INSERT INTO batches (id, tenant, project, key, endpoint, input_file, metadata, "
                   "status, errors, output_file, error_file, output_bytes, error_bytes, total, "
                   "completed, failed, expires_at, validating_at, in_progress_at, finalizing_at, "
                   "completed_at, failed_at, expired_at, cancelling_at, cancelled_at) VALUES (?1, "
                   "?2, ?3, ?4, ?5, ?6, ?7, 0, '[]', ?8, ?9, 0, 0, 0, 0, 0, ?10, ?11, 0, 0, 0, 0, "
                   "0, 0, 0)"));
    return insert.Bind(1, batch.id)
        .Bind(2, owner.tenant)
        .Bind(3, owner.project)
        .Bind(4, owner.key)
        .Bind(5, endpoint)
        .Bind(6, input_file)
        .Bind(7, metadata)
        .Bind(8, batch.output_file)
        .Bind(9, batch.error_file)
        .Bind(10, batch.expires_at)
        .Bind(11, now)
        .Run();
  }));
  return impl_->FindBatch(owner.tenant, batch.id);
}

Result<BatchRecord> BatchStore::FindBatch(const std::string& tenant, const std::string& id) {
  std::lock_guard lock(impl_->mutex);
  return impl_->FindBatch(tenant, id);
}

Result<ListPage<BatchRecord>> BatchStore::ListBatches(const std::string& tenant,
                                                      const ListQuery& query) {
  std::lock_guard lock(impl_->mutex);
  std::optional<int64_t> after;
  if (!query.after.empty()) {
    TRY_ASSIGN(const BatchRecord last, impl_->FindBatch(tenant, query.after));
    after = last.number;
  }
  return impl_->SelectPage<BatchRecord>(kBatchColumns, "batches", tenant, after, query,
                                        ReadBatchRow);
}

Result<BatchRecord> BatchStore::CancelBatch(const std::string& tenant, const std::string& id) {
  std::lock_guard lock(impl_->mutex);
  TRY_ASSIGN(const BatchRecord batch, impl_->FindBatch(tenant, id));
  if (batch.status == BatchStatus::kCancelling || batch.status == BatchStatus::kCancelled)
    return batch;
  if (IsOver(batch.status))
    return Fail(ErrorCode::kAlreadyExists,
                fmt::format("the batch is {} and can't be cancelled", Name(batch.status)));
  TRY(impl_->InTransaction([&]() -> Result<void> {
    TRY_ASSIGN(Statement update,
               impl_->db.Prepare("UPDATE batches SET status = 6, cancelling_at = ?2 WHERE number = "
                                 "?1 AND status IN (0, 1)"));
    return update.Bind(1, batch.number).Bind(2, impl_->clock.UnixSeconds()).Run();
  }));
  return impl_->FindBatch(tenant, id);
}

// ---- For the runner

Result<std::vector<BatchRecord>> BatchStore::ListUnfinished() {
  std::lock_guard lock(impl_->mutex);
  return impl_->Select<BatchRecord>(
      fmt::format("SELECT {} FROM batches WHERE {} ORDER BY number", kBatchColumns, kUnfinished),
      [](Statement&) {}, ReadBatchRow);
}

Result<void> BatchStore::StartBatch(int64_t batch, int64_t total) {
  std::lock_guard lock(impl_->mutex);
  TRY_ASSIGN(Statement update,
             impl_->db.Prepare("UPDATE batches SET status = 1, in_progress_at = ?2, total = ?3 "
                               "WHERE number = ?1 AND status = 0"));
  return update.Bind(1, batch).Bind(2, impl_->clock.UnixSeconds()).Bind(3, total).Run();
}

Result<void> BatchStore::FailBatch(int64_t batch, std::span<const BatchError> errors) {
  std::lock_guard lock(impl_->mutex);
  TRY_ASSIGN(Statement update,
             impl_->db.Prepare("UPDATE batches SET status = 4, failed_at = ?2, errors = ?3 WHERE "
                               "number = ?1 AND status = 0"));
  return update.Bind(1, batch)
      .Bind(2, impl_->clock.UnixSeconds())
      .Bind(3, ErrorsText(errors))
      .Run();
}

Result<std::vector<int64_t>> BatchStore::DoneLines(int64_t batch) {
  std::lock_guard lock(impl_->mutex);
  return impl_->Select<int64_t>(
      "SELECT line FROM done WHERE batch = ?1 ORDER BY line",
      [&](Statement& query) { query.Bind(1, batch); },
      [](const Statement& row) -> Result<int64_t> { return row.Int(0); });
}

Result<BatchRecord> BatchStore::RecordResults(int64_t number, std::span<const LineResult> given) {
  std::lock_guard lock(impl_->mutex);
  TRY_ASSIGN(BatchRecord batch, impl_->FindBatch(number));
  // A commit that was said to have failed may have reached the disk all the same.
  std::vector<LineResult> results;
  for (const LineResult& each : given) {
    TRY_ASSIGN(const int64_t done,
               impl_->Count("SELECT count(*) FROM done WHERE batch = ?1 AND line = ?2", number,
                            each.line));
    if (done == 0) results.push_back(each);
  }
  if (results.empty()) return batch;

  // First the bytes, then the record of how many count: what a crash leaves beyond that is written
  // over.
  const bool is_first = batch.output_bytes == 0 || batch.error_bytes == 0;
  const std::string output = JoinLines(results, false), errors = JoinLines(results, true);
  if (!output.empty())
    TRY(WriteDurably(impl_->PathOf(batch.output_file), output, batch.output_bytes));
  if (!errors.empty())
    TRY(WriteDurably(impl_->PathOf(batch.error_file), errors, batch.error_bytes));
  if (is_first) TRY(SyncFolder(impl_->files));
  batch.output_bytes += std::ssize(output);
  batch.error_bytes += std::ssize(errors);
  const int64_t failed = std::ranges::count(results, true, &LineResult::failed);
  batch.failed += failed;
  batch.completed += std::ssize(results) - failed;
  TRY(impl_->InTransaction([&] { return impl_->InsertResults(batch, results); }));
  return batch;
}

Result<void> BatchStore::FinishBatch(int64_t number, BatchStatus status) {
  CHECK(IsOver(status) && status != BatchStatus::kFailed) << Name(status);
  std::lock_guard lock(impl_->mutex);
  TRY_ASSIGN(const BatchRecord batch, impl_->FindBatch(number));
  const int64_t begun_at = impl_->clock.UnixSeconds();
  TRY(impl_->Settle(batch.output_file, batch.output_bytes));
  TRY(impl_->Settle(batch.error_file, batch.error_bytes));
  TRY(SyncFolder(impl_->files));
  return impl_->InTransaction([&]() -> Result<void> {
    const int64_t now = impl_->clock.UnixSeconds();
    FileRecord file{.id = batch.output_file,
                    .owner = batch.owner,
                    .name = batch.id + "_output.jsonl",
                    .purpose = "batch_output",
                    .bytes = batch.output_bytes,
                    .created_at = now};
    if (file.bytes > 0) TRY(impl_->InsertFile(file));
    file.id = batch.error_file;
    file.name = batch.id + "_error.jsonl";
    file.bytes = batch.error_bytes;
    if (file.bytes > 0) TRY(impl_->InsertFile(file));
    TRY_ASSIGN(Statement update,
               impl_->db.Prepare(fmt::format("UPDATE batches SET status = ?2, finalizing_at = ?3, "
                                             "{}_at = ?4 WHERE number = ?1",
                                             Name(status))));
    TRY(update.Bind(1, number)
            .Bind(2, static_cast<int64_t>(status))
            .Bind(3, begun_at)
            .Bind(4, now)
            .Run());
    TRY_ASSIGN(Statement forget, impl_->db.Prepare("DELETE FROM done WHERE batch = ?1"));
    return forget.Bind(1, number).Run();
  });
}

Result<std::array<int64_t, kBatchStatusCount>> BatchStore::CountBatches() {
  std::lock_guard lock(impl_->mutex);
  std::array<int64_t, kBatchStatusCount> counts{};
  TRY_ASSIGN(Statement query,
             impl_->db.Prepare("SELECT status, count(*) FROM batches GROUP BY status"));
  while (true) {
    TRY_ASSIGN(const bool more, query.Step());
    if (!more) return counts;
    if (query.Int(0) >= 0 && query.Int(0) < kBatchStatusCount)
      counts[static_cast<size_t>(query.Int(0))] = query.Int(1);
  }
}

}  // namespace millpower::serve
