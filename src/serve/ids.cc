#include "serve/ids.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <random>

#include "base/rng.h"

namespace millpower::serve {
namespace {

uint64_t ProcessSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

bool IsIdCharacter(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
         c == '_' || c == '.' || c == ':';
}

}  // namespace

std::string NewId(std::string_view prefix) {
  static const uint64_t seed = ProcessSeed();
  static std::atomic<uint32_t> counter{0};
  // The last digits count, which keeps the ids of one process apart.
  const uint32_t count = counter++;
  return fmt::format("{}{:016x}{:08x}", prefix, RandomBits(seed, count),
                     static_cast<uint32_t>(seed) ^ count);
}

bool IsSaneId(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::ranges::all_of(id, IsIdCharacter);
}

}  // namespace millpower::serve
