// The secret that a tenant's developer puts into a client: "mp-" PREFIX "-" SECRET, with 8 and 40
// characters of A-Za-z0-9. The prefix names the key in lists and logs; 40 random characters are 238
// bits, so that a plain SHA-256 of the whole is safe to keep (nothing to guess, unlike a password).
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace millpower::ledger {

struct NewSecret {
  std::string secret;  // shown once
  std::string prefix;
  std::string hash;  // what is kept
};

// From the system's generator. Errors: kInternal (it failed).
Result<NewSecret> MakeSecret();

// The prefix of a well-formed secret; "" of anything else.
std::string_view PrefixOf(std::string_view secret);

// SHA-256, 32 bytes.
std::string Sha256(std::string_view bytes);
std::string HexOf(std::string_view bytes);
// Takes the same time whatever differs.
bool IsSame(std::string_view a, std::string_view b);

// `prefix` and 24 random hexadecimal digits: "ten_5f0c...".
std::string NewRecordId(std::string_view prefix);

}  // namespace millpower::ledger
