// ledger_bench: how many requests a second the ledger can hold and post on a disk, beside what
// plain SQLite does with the same rows there.
//
//   ledger_bench --dir /var/lib/millpower --pairs 20000 --callers 64
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/result.h"
#include "ledger/ledger.h"
#include "ledger/schema.h"
#include "ledger/sqlite.h"
#include "ledger/sqlite_store.h"

namespace millpower::bench {
namespace {

using ledger::Database;
using ledger::Ledger;
using ledger::Statement;
using ledger::Unit;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A folder that goes with it.
class Folder {
 public:
  static Result<Folder> Make(const std::filesystem::path& in) {
    std::string name = (in / "ledger_bench_XXXXXX").string();
    if (!mkdtemp(name.data()))
      return Fail(ErrorCode::kIo, fmt::format("{}: can't make a folder there", in.string()));
    return Folder(name);
  }
  Folder(Folder&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  ~Folder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  explicit Folder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

// How often a second the disk makes a block of 4 KiB durable, in a file that has its size already,
// as a write-ahead log that is used again has.
Result<double> SyncsPerSecond(const std::filesystem::path& file) {
  const int fd = open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return Fail(ErrorCode::kIo, fmt::format("{}: can't open", file.string()));
  const std::vector<char> block(4096, 'x');
  constexpr double kSeconds = 1;
  constexpr int64_t kBlocks = 1024;
  int64_t count = 0;
  bool ok = true;
  for (int64_t i = 0; ok && i < kBlocks; ++i)
    ok = pwrite(fd, block.data(), block.size(), i * 4096) == 4096;
  ok = ok && fsync(fd) == 0;
  const double start = Now();
  while (ok && Now() - start < kSeconds) {
    ok = pwrite(fd, block.data(), block.size(), count % kBlocks * 4096) == 4096 &&
         fdatasync(fd) == 0;
    ++count;
  }
  const double seconds = Now() - start;
  close(fd);
  if (!ok) return Fail(ErrorCode::kIo, fmt::format("{}: can't write", file.string()));
  return static_cast<double>(count) / seconds;
}

ledger::Quantities Tokens(int64_t input, int64_t output) {
  ledger::Quantities quantities{};
  quantities[static_cast<size_t>(Unit::kInputToken)] = input;
  quantities[static_cast<size_t>(Unit::kOutputToken)] = output;
  return quantities;
}

struct Measured {
  double seconds = 0;
  ledger::LedgerStats stats;
};

// Callers in closed loops: each holds, waits, posts, waits.
Result<Measured> RunLedger(const std::filesystem::path& file, int64_t pairs, int callers) {
  const SystemClock clock;
  TRY_ASSIGN(auto store, ledger::OpenSqliteStore(file));
  TRY_ASSIGN(auto books, Ledger::Open(std::move(store), clock));
  for (const Unit unit : {Unit::kInputToken, Unit::kCachedToken, Unit::kOutputToken}) {
    TRY(books->AddPrice("bench", {.model = "*", .unit = unit, .rate = 2'500'000}));
  }
  TRY_ASSIGN(const ledger::Tenant tenant, books->CreateTenant("bench", {.name = "bench"}));
  TRY_ASSIGN(const ledger::Project project,
             books->CreateProject("bench", {.name = "bench", .tenant = tenant.number}));
  TRY_ASSIGN(const Ledger::MadeKey key,
             books->CreateKey("bench", {.name = "bench", .project = project.number}));
  TRY(books->AddCredit("bench", tenant.number, ledger::kMaxMicros / 2, "bench"));

  const ledger::LedgerStats before = books->stats();
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto call = [&] {
    std::binary_semaphore told(0);
    const auto done = [&](const Result<void>& outcome) {
      if (!outcome) failed = true;
      told.release();
    };
    for (int64_t i; !failed && (i = next++) < pairs;) {
      const std::string id = fmt::format("chatcmpl-{:024x}-0", i);
      books->Hold({{.request_id = id,
                    .api_request_id = id.substr(0, id.size() - 2),
                    .key = key.key.number,
                    .model = "qwen3-0.6b",
                    .endpoint = "chat",
                    .most = Tokens(500, 64)}},
                  done);
      told.acquire();
      if (failed) return;
      books->Post(id, Tokens(500, 50), "stop", done);
      told.acquire();
    }
  };
  const double start = Now();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < callers; ++i) threads.emplace_back(call);
  }
  Measured measured{.seconds = Now() - start, .stats = books->stats()};
  if (failed) return Fail(ErrorCode::kInternal, "a hold or a post failed");
  measured.stats.commits -= before.commits;
  measured.stats.records -= before.records;
  return measured;
}

// The rows of a pair without the ledger: what it inserts and deletes, but no look-ups, balances or
// sums. Returns seconds.
Result<double> RunPlain(const std::filesystem::path& file, int64_t pairs,
                        int64_t pairs_per_commit) {
  TRY_ASSIGN(Database database, Database::Open(file, {.create = true}));
  // As the ledger's own connection.
  TRY(database.Execute(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;"
      " PRAGMA cache_size = -32768"));
  TRY(database.Execute(ledger::kSchema));
  TRY_ASSIGN(Statement request, database.Prepare("INSERT INTO requests VALUES (?, ?)"));
  TRY_ASSIGN(Statement hold,
             database.Prepare("INSERT INTO holds VALUES"
                              " (?, 1, 2, 3, 'qwen3-0.6b', 'chat', 0, ?, 1410, 564)"));
  TRY_ASSIGN(Statement close, database.Prepare("DELETE FROM holds WHERE request = ?"));
  TRY_ASSIGN(Statement posting,
             database.Prepare("INSERT INTO postings (at, kind, source, target, amount, request)"
                              " VALUES (?, ?, 4, 5, ?, ?)"));
  TRY_ASSIGN(Statement usage,
             database.Prepare("INSERT INTO usage VALUES (?1, ?1, ?2, 1, 2, 3, 'qwen3-0.6b', 'chat',"
                              " 0, ?3, ?3, 1375, 500, 0, 50, 0, 0, 0, 0, 0, 'stop', 0, 0, 0)"));
  TRY_ASSIGN(Statement line,
             database.Prepare("INSERT INTO usage_lines VALUES (?, ?, 0, 500, 1, 625)"));
  const int64_t now = SystemClock().UnixSeconds();
  const double start = Now();
  for (int64_t done = 0; done < pairs;) {
    TRY(database.Execute("BEGIN IMMEDIATE"));
    for (int64_t i = 0; i < pairs_per_commit && done < pairs; ++i) {
      const int64_t number = ++done;
      const std::string id = fmt::format("chatcmpl-{:024x}-0", number);
      TRY(request.Bind(1, number).Bind(2, id).Run());
      TRY(hold.Bind(1, number).Bind(2, now).Run());
      TRY(close.Bind(1, number).Run());
      for (int kind = 0; kind < 3; ++kind) {
        TRY(posting.Bind(1, now).Bind(2, kind).Bind(3, 1375).Bind(4, number).Run());
      }
      TRY(usage.Bind(1, number).Bind(2, id).Bind(3, now).Run());
      for (int position = 0; position < 2; ++position) {
        TRY(line.Bind(1, number).Bind(2, position).Run());
      }
    }
    TRY(database.Execute("COMMIT"));
  }
  return Now() - start;
}

Result<void> Run(const std::filesystem::path& dir, int64_t pairs, int callers) {
  TRY_ASSIGN(const Folder folder, Folder::Make(dir));
  TRY_ASSIGN(const double syncs, SyncsPerSecond(folder.path() / "syncs"));
  fmt::print("disk     {:.0f} flushes/s of 4 KiB\n", syncs);

  TRY_ASSIGN(const Measured ours, RunLedger(folder.path() / "ledger.db", pairs, callers));
  const auto rate = [&](double seconds, int64_t count) {
    return static_cast<double>(count) / seconds;
  };
  const double per_commit =
      static_cast<double>(ours.stats.records) / static_cast<double>(ours.stats.commits);
  fmt::print(
      "ledger   {:.0f} hold+post pairs/s from {} callers: {} pairs in {:.2f} s, {:.1f} "
      "records to a commit, {:.0f} commits/s\n",
      rate(ours.seconds, pairs), callers, pairs, ours.seconds, per_commit,
      rate(ours.seconds, ours.stats.commits));

  // Two records are a pair.
  const int64_t grouped = std::max<int64_t>(1, static_cast<int64_t>(per_commit / 2));
  TRY_ASSIGN(const double seconds, RunPlain(folder.path() / "grouped.db", pairs, grouped));
  fmt::print("SQLite   {:.0f} pairs/s, the same rows bare, {} pairs to a transaction\n",
             rate(seconds, pairs), grouped);
  // One by one is slow: fewer of them say as much.
  const int64_t few = std::min<int64_t>(pairs, 2000);
  TRY_ASSIGN(const double seconds_single, RunPlain(folder.path() / "single.db", few, 1));
  fmt::print("SQLite   {:.0f} pairs/s, the same rows bare, 1 pair to a transaction\n",
             rate(seconds_single, few));
  return {};
}

int Main(int argc, char** argv) {
  CLI::App app("Measures holds and posts of the ledger on a disk, beside plain SQLite.",
               "ledger_bench");
  std::filesystem::path dir = ".";
  int64_t pairs = 20'000;
  int callers = 64;
  app.add_option("--dir", dir, "A folder on the disk to measure; what is made there is removed")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  app.add_option("--pairs", pairs, "Holds with their posts")
      ->check(CLI::Range(int64_t{1}, int64_t{10'000'000}))
      ->capture_default_str();
  app.add_option("--callers", callers, "At the same time, each waiting for what it asked")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (const Result<void> ran = Run(dir, pairs, callers); !ran) {
    fmt::print(stderr, "ledger_bench: {}\n", ran.error().message);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace millpower::bench

int main(int argc, char** argv) { return millpower::bench::Main(argc, argv); }
