// SQLite's C interface with ownership and errors as ours. Nothing here knows the ledger.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millpower::ledger {

// What a result code of SQLite means to us, with its message. `handle` may be null.
Error ErrorOf(sqlite3* handle, int rc);

// A prepared statement; bind, step, reset, again. Parameters and columns count from 1 and from 0,
// as SQLite's. Not thread-safe.
class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}

  Statement& Bind(int index, int64_t value);
  Statement& Bind(int index, std::string_view text);  // copied
  Statement& BindBlob(int index, std::string_view bytes);
  Statement& BindNull(int index);

  // Whether there is a row. Resets on an error. Errors: kNoCapacity (disk full), kIo, kCorrupt,
  // kAlreadyExists (a constraint), kInternal.
  Result<bool> Step();
  // Steps to the end, and is ready to be bound again.
  Result<void> Run();
  void Reset();

  int64_t Int(int column) const;
  std::string Text(int column) const;
  std::string Blob(int column) const;
  bool IsNull(int column) const;

 private:
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
};

// One connection; one thread at a time. A file's schema is not trusted (no functions with side
// effects in it), and nothing that is done through it can edit the schema's own table.
class Database {
 public:
  struct Options {
    bool create = false, read_only = false;
    std::string vfs = {};
    int busy_timeout_ms = 5000;
  };
  // Errors: kNotFound (no such file, and not to be made), kIo, kCorrupt, kNoCapacity.
  static Result<Database> Open(const std::filesystem::path& file, const Options& options);

  Result<Statement> Prepare(std::string_view sql);
  // One or several statements without results.
  Result<void> Execute(const std::string& sql);
  int64_t changes() const;  // rows of the last statement
  int64_t last_insert_rowid() const;
  bool in_transaction() const;
  sqlite3* handle() const { return handle_.get(); }

 private:
  struct Closer {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Closer> handle_;
};

}  // namespace millpower::ledger
