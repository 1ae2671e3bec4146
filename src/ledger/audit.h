// The chain of audit entries: each holds the hash of all before it, so that none can be changed,
// removed or put in later without all that follow showing it.
#pragma once

#include <string>
#include <string_view>

#include "ledger/records.h"

namespace millpower::ledger {

// SHA-256, 32 bytes, over: "millpower audit 1", the hash before it (empty for the first), number,
// at, actor, action, subject and details. Each is preceded by its length in bytes (8, little
// endian), numbers are 8 bytes little endian, so that no two different entries give the same bytes.
std::string AuditHash(std::string_view previous, const AuditEntry& entry);

}  // namespace millpower::ledger
