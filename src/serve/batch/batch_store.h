// Files and batches of tenants: their records in one SQLite file (write-ahead log,
// synchronous=FULL), the bytes of files in a folder beside it. Everything is on the disk when a
// function returns. docs/batches.md has the tables.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "serve/batch/batch_input.h"

namespace millpower::serve {

// Of a tenant. What it may keep bounds what a key that leaked can put on our disk.
struct BatchLimits {
  int64_t storage_bytes_max = int64_t{1} << 30;  // of its files, and of outputs being written
  int64_t files_max = 10'000;
  int64_t unfinished_batches_max = 100;
  int64_t batches_max = 10'000;  // records; the oldest that is over makes room for a new one
};

// Whose it is, by id: unlike the ledger's numbers, another ledger never gives them to somebody
// else. Only the tenant decides who sees it; a batch runs with the rights of the key.
struct Owner {
  std::string tenant, project, key;
};

struct FileRecord {
  int64_t number = 0;
  std::string id;  // "file-" and 24 hexadecimal digits
  Owner owner;
  std::string name;     // as the client wrote it; never a path
  std::string purpose;  // "batch", "batch_output"
  int64_t bytes = 0;
  int64_t created_at = 0;
};

enum class BatchStatus : uint8_t {
  kValidating = 0,
  kInProgress = 1,
  kFinalizing = 2,  // lasts as long as FinishBatch does, and is not seen from outside
  kCompleted = 3,
  kFailed = 4,
  kExpired = 5,
  kCancelling = 6,
  kCancelled = 7,
};
inline constexpr int kBatchStatusCount = 8;
const char* Name(BatchStatus status);  // "in_progress"
// Whether there is nothing more to come.
bool IsOver(BatchStatus status);

struct BatchRecord {
  int64_t number = 0;
  std::string id;  // "batch_" and 24 hexadecimal digits
  Owner owner;
  std::string endpoint;    // "/v1/chat/completions"
  std::string input_file;  // id; the file may be gone once the batch is over
  std::string metadata;    // JSON; "": none
  BatchStatus status = BatchStatus::kValidating;
  std::vector<BatchError> errors;  // of a failed one
  // Ids, made with the batch; files of these only once it is over, and only those with a line.
  std::string output_file, error_file;
  int64_t output_bytes = 0, error_bytes = 0;  // of whole lines, on the disk
  int64_t total = 0, completed = 0, failed = 0;
  int64_t expires_at = 0;
  std::array<int64_t, kBatchStatusCount> entered_at{};  // by status; 0: it never was
};

// What became of one line of the input.
struct LineResult {
  int64_t line = 0;
  bool failed = false;  // goes to the error file
  std::string text;     // JSON without a line end
};

// A piece of a list: what follows `after` (an id; "": from the start), newest first unless
// `ascending`.
struct ListQuery {
  std::string after;
  int64_t limit = 20;
  bool ascending = false;
  std::string purpose = {};  // of files; "": all
};
template <typename T>
struct ListPage {
  std::vector<T> items;
  bool has_more = false;
};

// Thread-safe. One process at a time: the ledger, which lies in the same folder, is locked.
class BatchStore {
 public:
  // `folder` exists. Removes what a process that died left half written. `clock` outlives it.
  // Errors: kIo, kCorrupt, kUnsupported (the version of the file).
  static Result<std::unique_ptr<BatchStore>> Open(const std::filesystem::path& folder,
                                                  const BatchLimits& limits, const Clock& clock);
  ~BatchStore();

  // ---- For tenants, who see only what is theirs. Errors: kNotFound for anything else.

  // Errors: kQuotaExceeded (what the tenant may keep); kUnavailable (the disk is full); kIo.
  Result<FileRecord> AddFile(const Owner& owner, const std::string& name,
                             const std::string& purpose, std::string_view content);
  Result<FileRecord> FindFile(const std::string& tenant, const std::string& id);
  Result<ListPage<FileRecord>> ListFiles(const std::string& tenant, const ListQuery& query);
  // Errors: kAlreadyExists (the input of a batch that is not over); kUnavailable (the disk is
  // full).
  Result<void> DeleteFile(const std::string& tenant, const std::string& id);

  // Errors: kNotFound (the file), kInvalidArgument (its purpose), kQuotaExceeded, kUnavailable (the
  // disk is full).
  Result<BatchRecord> AddBatch(const Owner& owner, const std::string& endpoint,
                               const std::string& input_file, const std::string& metadata,
                               int64_t window_s);
  Result<BatchRecord> FindBatch(const std::string& tenant, const std::string& id);
  Result<ListPage<BatchRecord>> ListBatches(const std::string& tenant, const ListQuery& query);
  // From validating and in progress to cancelling; nothing where it is cancelled already.
  // Errors: kAlreadyExists (it is over, or nearly), kUnavailable (the disk is full).
  Result<BatchRecord> CancelBatch(const std::string& tenant, const std::string& id);

  // ---- For the runner.

  // Not over, oldest first.
  Result<std::vector<BatchRecord>> ListUnfinished();
  // The end of validation; nothing where the batch is not validating any more.
  Result<void> StartBatch(int64_t batch, int64_t total);
  Result<void> FailBatch(int64_t batch, std::span<const BatchError> errors);
  // Lines whose results are recorded, in order.
  Result<std::vector<int64_t>> DoneLines(int64_t batch);
  // Appends the results to the batch's files and records them; all or none. A line that has one
  // already keeps it. Returns the batch as it is then. Errors: kUnavailable (the disk is full),
  // kIo; the same may be tried again.
  Result<BatchRecord> RecordResults(int64_t batch, std::span<const LineResult> results);
  // Makes files of the results, and the batch what it is in the end.
  Result<void> FinishBatch(int64_t batch, BatchStatus status);
  // How many are in each state, of all tenants.
  Result<std::array<int64_t, kBatchStatusCount>> CountBatches();

  std::filesystem::path PathOf(const std::string& file_id) const;

 private:
  struct Impl;
  explicit BatchStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
