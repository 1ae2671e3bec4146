#include "ledger/key_secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/check.h"

namespace millpower::ledger {
namespace {

constexpr std::string_view kStart = "mp-";
constexpr size_t kPrefixSize = 8, kSecretSize = 40;
constexpr size_t kWholeSize = kStart.size() + kPrefixSize + 1 + kSecretSize;
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

bool FillRandom(std::span<unsigned char> bytes) {
  return RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1;
}

// Bytes from 248 = 4 * 62 on are thrown away, so that each character is as likely as any other.
bool AppendRandom(size_t count, std::string& out) {
  constexpr unsigned kFair = 256 / kAlphabet.size() * kAlphabet.size();
  std::array<unsigned char, 64> bytes;
  const size_t size = out.size() + count;
  while (out.size() < size) {
    if (!FillRandom(bytes)) return false;
    for (const unsigned char byte : bytes) {
      if (byte < kFair && out.size() < size) out += kAlphabet[byte % kAlphabet.size()];
    }
  }
  OPENSSL_cleanse(bytes.data(), bytes.size());
  return true;
}

}  // namespace

Result<NewSecret> MakeSecret() {
  NewSecret made;
  std::string secret;
  if (!AppendRandom(kPrefixSize, made.prefix) || !AppendRandom(kSecretSize, secret))
    return Fail(ErrorCode::kInternal, "the system's random number generator failed");
  made.secret = std::string(kStart) + made.prefix + "-" + secret;
  made.hash = Sha256(made.secret);
  return made;
}

std::string_view PrefixOf(std::string_view secret) {
  if (secret.size() != kWholeSize || !secret.starts_with(kStart)) return {};
  const std::string_view prefix = secret.substr(kStart.size(), kPrefixSize);
  const std::string_view rest = secret.substr(kWholeSize - kSecretSize);
  const auto is_ours = [](char c) { return kAlphabet.find(c) != kAlphabet.npos; };
  const bool is_well_formed = secret[kStart.size() + kPrefixSize] == '-' &&
                              std::ranges::all_of(prefix, is_ours) &&
                              std::ranges::all_of(rest, is_ours);
  return is_well_formed ? prefix : std::string_view();
}

std::string Sha256(std::string_view bytes) {
  std::string hash(32, '\0');
  unsigned size = 0;
  const int ok =
      EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(hash.data()), &size,
                 EVP_sha256(), nullptr);
  CHECK(ok == 1 && size == hash.size()) << "libcrypto has no SHA-256";
  return hash;
}

std::string HexOf(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

bool IsSame(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string NewRecordId(std::string_view prefix) {
  std::array<unsigned char, 12> bytes;
  CHECK(FillRandom(bytes)) << "the system's random number generator failed";
  return std::string(prefix) + HexOf({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace millpower::ledger
