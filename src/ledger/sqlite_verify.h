// Adds up everything in a ledger's file and compares. See Store::Verify.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ledger/sqlite.h"

namespace millpower::ledger {

// At most this many faults are listed: a file that is wrong in one place may be wrong in millions.
inline constexpr size_t kMaxFaults = 1000;

// Each fault is a line that names what is wrong and both numbers; none: the books balance. A check
// that can't be carried out (damaged pages) is a fault, too. Errors: kIo (the file can't be read).
Result<std::vector<std::string>> VerifyBooks(
    Database& database, const std::function<bool(const std::string& request_id)>& is_live);

}  // namespace millpower::ledger
