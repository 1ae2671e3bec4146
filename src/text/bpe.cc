#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <queue>

#include "base/check.h"
#include "text/vocabulary.h"

namespace millpower::text {
namespace {

// A slot is left << 43 | right << 22 | rank: 21 + 21 + 22 bits. No rank is all ones, so neither is
// any used slot.
constexpr int kRankBits = 22;
constexpr uint64_t kRankMask = (uint64_t{1} << kRankBits) - 1;
constexpr uint64_t kFreeSlot = ~uint64_t{0};
static_assert(kMaxVocabSize == 1 << 21 && kMaxMerges == kRankMask);

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 21 | static_cast<uint64_t>(right);
}

uint64_t HashPair(uint64_t key) { return key * 0x9e3779b97f4a7c15u; }  // its upper bits are good

// Bits of filter a merge: 16 let one in 16 of the absent pairs through, and 150,000 merges take
// 256 KiB, which stay in L2 where the table (2 MiB and more) does not.
constexpr size_t kFilterBitsPerMerge = 16;

// Below this the scan for the lowest rank beats a heap: its arrays stay in L1.
constexpr size_t kShortWordBytes = 128;

}  // namespace

Bpe::Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges)
    : byte_tokens_(byte_tokens) {
  CHECK(merges.size() <= kMaxMerges) << merges.size();
  const size_t slots = std::bit_ceil(merges.size() * 5 / 4 + 2);
  pair_slots_.assign(slots, kFreeSlot);
  slot_shift_ = 64 - std::countr_zero(slots);
  filter_.assign(std::bit_ceil(merges.size() * kFilterBitsPerMerge / 2 + 64) / 64, 0);
  filter_shift_ = 64 - std::countr_zero(filter_.size() * 64);
  merged_.reserve(merges.size());
  for (const Merge& merge : merges) {
    const uint64_t key = PairKey(merge.left, merge.right);
    const uint64_t hash = HashPair(key);
    filter_[hash >> filter_shift_ >> 6] |= uint64_t{1} << (hash >> filter_shift_ & 63);
    size_t slot = hash >> slot_shift_;
    while (pair_slots_[slot] != kFreeSlot && pair_slots_[slot] >> kRankBits != key)
      slot = (slot + 1) & (slots - 1);
    pair_slots_[slot] = key << kRankBits | merged_.size();
    merged_.push_back(merge.merged);
  }
  byte_pair_ranks_.resize(256 * 256);
  for (size_t pair = 0; pair < byte_pair_ranks_.size(); ++pair)
    byte_pair_ranks_[pair] = Rank(byte_tokens_[pair >> 8], byte_tokens_[pair & 255]);
}

inline uint32_t Bpe::Rank(int32_t left, int32_t right) const {
  const uint64_t key = PairKey(left, right);
  const uint64_t hash = HashPair(key);
  if (!(filter_[hash >> filter_shift_ >> 6] >> (hash >> filter_shift_ & 63) & 1)) return kNoRank;
  const size_t mask = pair_slots_.size() - 1;
  for (size_t slot = hash >> slot_shift_;; slot = (slot + 1) & mask) {
    const uint64_t found = pair_slots_[slot];
    if (found == kFreeSlot) return kNoRank;
    if (found >> kRankBits == key) {
      const auto rank = static_cast<uint32_t>(found & kRankMask);
      __builtin_prefetch(&merged_[rank]);  // if the merge is made, then soon
      return rank;
    }
  }
}

void Bpe::Encode(std::string_view word, std::vector<int32_t>& tokens) const {
  if (word.size() <= kShortWordBytes)
    EncodeShort(word, tokens);
  else
    EncodeLong(word, tokens);
}

void Bpe::EncodeShort(std::string_view word, std::vector<int32_t>& tokens) const {
  int32_t token[kShortWordBytes];
  uint32_t rank[kShortWordBytes];  // rank[i] is that of token[i] and token[i + 1]
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(word[i]); };
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) token[i] = byte_tokens_[byte(i)];
  for (size_t i = 0; i + 1 < count; ++i)
    rank[i] = byte_pair_ranks_[static_cast<size_t>(byte(i) << 8 | byte(i + 1))];
  while (count > 1) {
    uint32_t lowest = kNoRank;  // a plain minimum first: the compiler makes vectors of it
    for (size_t i = 0; i + 1 < count; ++i) lowest = std::min(lowest, rank[i]);
    if (lowest == kNoRank) break;
    size_t at = 0;
    while (rank[at] != lowest) ++at;
    token[at] = merged_[lowest];
    const size_t moved = count - at - 2;
    std::memmove(token + at + 1, token + at + 2, moved * sizeof *token);
    std::memmove(rank + at, rank + at + 1, moved * sizeof *rank);
    --count;
    if (at > 0) rank[at - 1] = Rank(token[at - 1], token[at]);
    if (at + 1 < count) rank[at] = Rank(token[at], token[at + 1]);
  }
  tokens.insert(tokens.end(), token, token + count);
}

void Bpe::EncodeLong(std::string_view word, std::vector<int32_t>& tokens) const {
  struct Symbol {
    int32_t token;
    int32_t previous, next;  // positions, -1 at the ends
    uint32_t rank;           // of this and the next symbol
  };
  const auto count = static_cast<int32_t>(word.size());
  std::vector<Symbol> symbols(word.size());
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue;  // rank, position
  const auto rank_pair = [&](int32_t at) {
    Symbol& symbol = symbols[static_cast<size_t>(at)];
    symbol.rank = symbol.next < 0
                      ? kNoRank
                      : Rank(symbol.token, symbols[static_cast<size_t>(symbol.next)].token);
    if (symbol.rank != kNoRank) queue.push(uint64_t{symbol.rank} << 32 | static_cast<uint32_t>(at));
  };
  for (int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<size_t>(i)]);
    symbols[static_cast<size_t>(i)] = {byte_tokens_[byte], i - 1, i + 1 < count ? i + 1 : -1,
                                       kNoRank};
  }
  for (int32_t i = 0; i < count; ++i) rank_pair(i);
  while (!queue.empty()) {
    const auto rank = static_cast<uint32_t>(queue.top() >> 32);
    const auto at = static_cast<int32_t>(queue.top() & UINT32_MAX);
    queue.pop();
    Symbol& symbol = symbols[static_cast<size_t>(at)];
    if (symbol.rank != rank) continue;  // the pair has changed since
    Symbol& gone = symbols[static_cast<size_t>(symbol.next)];
    gone.rank = kNoRank;
    symbol.token = merged_[rank];
    symbol.next = gone.next;
    if (symbol.next >= 0) symbols[static_cast<size_t>(symbol.next)].previous = at;
    rank_pair(at);
    if (symbol.previous >= 0) rank_pair(symbol.previous);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    tokens.push_back(symbols[static_cast<size_t>(i)].token);
}

}  // namespace millpower::text
