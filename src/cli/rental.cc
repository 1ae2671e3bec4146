#include "cli/rental.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "ledger/key_secret.h"
#include "ledger/sqlite_store.h"

namespace millpower::cli {
namespace {

namespace fs = std::filesystem;
using ledger::Ledger;
using ledger::Tier;
using ledger::Unit;

constexpr const char* kActor = "server";
constexpr const char* kDeveloper = "developer";

std::unexpected<Error> FailIo(const fs::path& path, int error) {
  return Fail(ErrorCode::kIo, path.string() + ": " + std::strerror(error));
}

Result<void> CheckCurrency(const std::string& currency) {
  const bool is_code = currency.size() == 3 &&
                       std::ranges::all_of(currency, [](char c) { return c >= 'A' && c <= 'Z'; });
  if (is_code) return {};
  return Fail(ErrorCode::kInvalidArgument,
              "currency '" + currency + "' is not three capital letters, such as USD", "currency");
}

Result<void> MakeFolder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return {};
  if (folder.has_parent_path()) fs::create_directories(folder.parent_path(), error);
  // Not to be opened to others even for a moment.
  if (::mkdir(folder.c_str(), 0700) != 0) return FailIo(folder, errno);
  return {};
}

// A new file, for its owner's eyes, on the disk when it returns.
Result<void> WriteSecret(const fs::path& file, const std::string& secret) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FailIo(file, errno);
  const std::string line = secret + "\n";
  const bool written = ::fchmod(fd, 0600) == 0 &&
                       ::write(fd, line.data(), line.size()) == std::ssize(line) &&
                       ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!written) return FailIo(file, error);
  return {};
}

std::string ReadSecret(const fs::path& file) {
  std::string secret;
  std::getline(std::ifstream(file), secret);
  return secret;
}

// Everything is free until the operator says otherwise; what has no price at all is not for sale.
Result<void> AddZeroPrices(Ledger& ledger) {
  for (const Tier tier : {Tier::kOnDemand, Tier::kLease})  // the others follow kOnDemand
    for (const Unit unit : {Unit::kInputToken, Unit::kCachedToken, Unit::kOutputToken})
      TRY(ledger.AddPrice(kActor, {.model = "*", .tier = tier, .unit = unit}));
  TRY(ledger.AddPrice(kActor, {.model = "*", .tier = Tier::kLease, .unit = Unit::kShareHour}));
  return {};
}

// Goes on where a start that was interrupted has stopped.
Result<void> Begin(Ledger& ledger, const fs::path& key_file) {
  if (ledger.directory()->prices().empty()) TRY(AddZeroPrices(ledger));
  if (ledger.directory()->FindTenant(kDeveloper) == nullptr) {
    ledger::Tenant tenant;
    tenant.name = kDeveloper;
    tenant.credit_line = std::nullopt;
    TRY(ledger.CreateTenant(kActor, tenant));
  }
  ledger::Project project;
  project.name = "default";
  project.tenant = ledger.directory()->FindTenant(kDeveloper)->number;
  const auto directory = ledger.directory();
  const auto present =
      std::ranges::find(directory->projects(), project.tenant, &ledger::Project::tenant);
  if (present != directory->projects().end()) {
    project = *present;
  } else {
    TRY_ASSIGN(project, ledger.CreateProject(kActor, project));
  }
  ledger::Key key;
  key.name = kDeveloper;
  key.project = project.number;
  TRY_ASSIGN(const Ledger::MadeKey made, ledger.CreateKey(kActor, key));
  return WriteSecret(key_file, made.secret);
}

}  // namespace

Result<Rental> OpenRental(const fs::path& folder, const std::string& currency, const Clock& clock,
                          double grid_g_per_kwh) {
  TRY(CheckCurrency(currency));
  TRY(MakeFolder(folder));
  Rental rental;
  TRY_ASSIGN(auto store, ledger::OpenSqliteStore(folder / "ledger.db", {.currency = currency}));
  TRY_ASSIGN(rental.ledger, Ledger::Open(std::move(store), clock));
  const fs::path key_file = folder / "developer.key";
  if (rental.ledger->directory()->keys().empty()) TRY(Begin(*rental.ledger, key_file));
  rental.meter = std::make_unique<serve::Meter>(*rental.ledger, grid_g_per_kwh);
  // One that was revoked, rotated or put there by somebody else is of no use in a hint.
  const std::string secret = ReadSecret(key_file);
  const auto directory = rental.ledger->directory();
  const ledger::Key* const key = directory->FindSecret(secret);
  const int64_t now = clock.UnixSeconds();
  if (key != nullptr && key->revoked_at == 0 && (key->expires_at == 0 || now < key->expires_at))
    rental.developer_key = secret;
  spdlog::info("ledger {}: {} tenants, {} keys, in {}; {} requests that were cut off are voided",
               folder.string(), directory->tenants().size(), directory->keys().size(),
               directory->currency(), rental.ledger->stats().recovered_holds);
  return rental;
}

}  // namespace millpower::cli
