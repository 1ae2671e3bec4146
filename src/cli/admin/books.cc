// The audit log; proving the books, and copies of them, of a running server or of files at rest.
#include <fmt/format.h>

#include <deque>
#include <filesystem>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"
#include "ledger/sqlite_store.h"

namespace millpower::cli::admin {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string ledger, file;
  int64_t limit = 50, after = -1;
};

constexpr int64_t kPageCount = 1000;

std::string AuditText(const Json& answer) {
  Table table({{"NUMBER", true}, {"AT"}, {"WHO"}, {"WHAT"}, {"SUBJECT"}, {"DETAILS"}});
  for (const Json& entry : answer.value("data", Json::array()))
    table.Add({Cell(entry, "number"), FormatTime(entry.value("at", Json())), Cell(entry, "actor"),
               Cell(entry, "action"), Cell(entry, "subject"), Cell(entry, "details")});
  return table.Text();
}

// The newest ones, which are the last of a list that goes forward.
Result<void> ShowAudit(const Menu::Call& call, const Flags& flags) {
  std::deque<Json> entries;
  int64_t after = std::max<int64_t>(flags.after, 0);
  const bool is_forward = flags.after >= 0;
  for (;;) {
    const int64_t count = is_forward ? flags.limit : kPageCount;
    TRY_ASSIGN(const Json page,
               call.client.Get("/admin/v1/audit" + QueryOf({{"after", std::to_string(after)},
                                                            {"limit", std::to_string(count)}})));
    const Json data = page.value("data", Json::array());
    for (const Json& entry : data) {
      entries.push_back(entry);
      after = entry.value("number", after);
      if (entries.size() > static_cast<size_t>(flags.limit)) entries.pop_front();
    }
    if (is_forward || static_cast<int64_t>(data.size()) < count) break;
  }
  Print(call, {{"object", "list"}, {"data", entries}}, AuditText);
  return {};
}

Result<std::unique_ptr<ledger::Store>> OpenAtRest(const std::string& folder) {
  return ledger::OpenSqliteStore(fs::path(folder) / "ledger.db",
                                 {.create = false, .read_only = true});
}

Result<void> PrintVerification(const Menu::Call& call, const Json& answer,
                               const std::string& note) {
  const Json faults = answer.value("faults", Json::array());
  if (call.as_json) {
    fmt::print("{}\n", DumpJson(answer));
  } else {
    for (const Json& fault : faults) fmt::print("{}\n", fault.get<std::string>());
    if (faults.empty()) fmt::print("the books balance{}\n", note);
  }
  if (faults.empty()) return {};
  return Fail(ErrorCode::kCorrupt, fmt::format("the books do not balance: {} fault{}",
                                               faults.size(), faults.size() == 1 ? "" : "s"));
}

Result<void> Verify(const Menu::Call& call, const Flags& flags) {
  if (flags.ledger.empty()) {
    TRY_ASSIGN(const Json answer, call.client.Post("/admin/v1/verify", Json::object()));
    return PrintVerification(call, answer, "");
  }
  TRY_ASSIGN(const auto store, OpenAtRest(flags.ledger));
  TRY_ASSIGN(const ledger::StoredState state, store->Load());
  // Whether their requests are still under way is not for us to know.
  TRY_ASSIGN(const auto faults, store->Verify([](const std::string&) { return true; }));
  const std::string note = state.holds.empty()
                               ? ""
                               : fmt::format(
                                     "; {} open hold{}, given back at the next start if the "
                                     "server died",
                                     state.holds.size(), state.holds.size() == 1 ? "" : "s");
  return PrintVerification(
      call, {{"object", "verification"}, {"ok", faults.empty()}, {"faults", faults}}, note);
}

std::string BackupText(const Json& answer) {
  return fmt::format("wrote {} ({} bytes)\n", Cell(answer, "path"), Cell(answer, "size_bytes"));
}

Result<void> Backup(const Menu::Call& call, const Flags& flags) {
  // The server has a folder of its own to start from.
  std::error_code error;
  const fs::path file = fs::absolute(flags.file, error);
  if (error) return Fail(ErrorCode::kInvalidArgument, flags.file + " is not a path", "file");
  if (flags.ledger.empty()) {
    TRY_ASSIGN(const Json answer, call.client.Post("/admin/v1/backup", {{"path", file.string()}}));
    Print(call, answer, BackupText);
    return {};
  }
  TRY_ASSIGN(const auto store, OpenAtRest(flags.ledger));
  TRY(store->Backup(file));
  const auto size_bytes = fs::file_size(file, error);
  Print(call,
        {{"object", "backup"},
         {"path", file.string()},
         {"size_bytes", error ? 0 : static_cast<int64_t>(size_bytes)}},
        BackupText);
  return {};
}

}  // namespace

void AddBooks(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* audit =
      menu.AddCommand(menu.app, "audit", "Who changed what: the newest entries of the audit log",
                      [flags](const Menu::Call& call) { return ShowAudit(call, *flags); });
  audit->add_option("--limit", flags->limit, "How many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  audit->add_option("--after", flags->after, "Those that follow this number instead")
      ->check(CLI::NonNegativeNumber);

  const auto add_ledger = [&](CLI::App* command) {
    command->add_option("--ledger", flags->ledger,
                        "Folder of a ledger whose server is stopped, instead of asking one");
  };
  CLI::App* backup =
      menu.AddCommand(menu.app, "backup", "Write a consistent copy of the ledger to a new file",
                      [flags](const Menu::Call& call) { return Backup(call, *flags); });
  backup->add_option("file", flags->file, "Where; on the server's machine, by its user")
      ->required();
  add_ledger(backup);

  add_ledger(menu.AddCommand(
      menu.app, "verify",
      "Prove the books: postings sum to zero, usage equals postings, no hold without a request; "
      "exit code 1 and a line for each fault if they do not balance",
      [flags](const Menu::Call& call) { return Verify(call, *flags); }));
}

}  // namespace millpower::cli::admin
