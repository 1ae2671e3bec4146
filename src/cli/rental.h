// The ledger of `millpower serve --ledger DIR`, and what a new one begins with.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "ledger/ledger.h"
#include "serve/meter.h"

namespace millpower::cli {

// DIR holds ledger.db and developer.key.
struct Rental {
  std::unique_ptr<ledger::Ledger> ledger;
  std::unique_ptr<serve::Meter> meter;  // on it; destroyed first
  // The secret of the developer's key, if the folder still has it; else "".
  std::string developer_key;
};

// Opens the ledger in a folder, which is made for its owner alone if there is none. One without any
// key gets what it takes to begin: prices of zero for every model, and a tenant "developer" without
// a bound to its credit, whose key is kept in developer.key, readable by its owner. `currency`: of
// a new ledger. `grid_g_per_kwh`: the Meter's. `clock` outlives it. Errors: kUnavailable (another
// server has it), kInvalidArgument, kIo, the ledger's.
Result<Rental> OpenRental(const std::filesystem::path& folder, const std::string& currency,
                          const Clock& clock, double grid_g_per_kwh = 0);

}  // namespace millpower::cli
