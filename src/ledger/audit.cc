#include "ledger/audit.h"

#include <cstdint>

#include "ledger/key_secret.h"

namespace millpower::ledger {
namespace {

std::string Bytes(int64_t number) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(static_cast<uint64_t>(number) >> (8 * i) & 0xff);
  }
  return bytes;
}

}  // namespace

std::string AuditHash(std::string_view previous, const AuditEntry& entry) {
  const std::string number = Bytes(entry.number), at = Bytes(entry.at);
  std::string all;
  for (const std::string_view field :
       {std::string_view("millpower audit 1"), previous, std::string_view(number),
        std::string_view(at), std::string_view(entry.actor), std::string_view(entry.action),
        std::string_view(entry.subject), std::string_view(entry.details)}) {
    all += Bytes(static_cast<int64_t>(field.size()));
    all += field;
  }
  return Sha256(all);
}

}  // namespace millpower::ledger
