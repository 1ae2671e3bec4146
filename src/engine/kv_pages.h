// The KV pages of one loaded Program: who holds them, and which can be found by what they hold.
//
// A page that is full never changes again, and its bits depend on nothing but the tokens up to its
// end. So whoever has the same tokens may hold the same page: the prefix cache. A page that nobody
// holds stays findable until it is needed for something else, the longest unused first.
//
// Pages are found by comparing tokens, not by a hash alone: no collision can hand one caller
// another's page. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "isa/layout.h"

namespace millpower::engine {

inline constexpr auto kPageTokens = static_cast<int32_t>(isa::kPagePositions);

constexpr int32_t PagesFor(int32_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

class KvPages {
 public:
  // `seed` is of the hash: chosen at random, nobody can send tokens that all fall into one bucket.
  // Without `findable`, Find finds nothing.
  KvPages(int32_t count, bool findable, uint64_t seed);

  int32_t count() const { return static_cast<int32_t>(pages_.size()); }
  int32_t used() const { return count() - available(); }  // held by somebody
  int32_t cached() const { return cached_; }              // held by nobody, but findable
  int32_t available() const { return static_cast<int32_t>(free_.size()) + cached_; }

  // Changes when Find could find something else.
  int64_t version() const { return version_; }

  // Appends `wanted` pages of no use to anyone else to `pages`. All or nothing: false leaves it as
  // it was.
  bool Take(int32_t wanted, std::vector<int32_t>& pages);

  // Appends the pages that hold the beginning of `tokens`, as many as there are; whole pages only.
  // They are `caller`'s, who sees nobody else's.
  void Find(std::string_view caller, std::span<const int32_t> tokens, std::vector<int32_t>& pages);

  // The first `full` of `pages` hold `tokens`, of which they were computed; those before `from`
  // have been through this already. From now on they are findable. Where a page with the same
  // content is findable already, it takes the place of the one in `pages`.
  void Publish(std::string_view caller, std::span<const int32_t> tokens, int32_t from, int32_t full,
               std::vector<int32_t>& pages);

  // Lets go of all of `pages` and empties it.
  void Release(std::vector<int32_t>& pages);

 private:
  static constexpr int32_t kNone = -1;
  using Tokens = std::span<const int32_t, kPageTokens>;

  // What a findable page holds: its tokens after those of `parent`, a findable page too. Whoever
  // holds a page holds its parent, so a parent is never given away before its children.
  struct Page {
    std::array<int32_t, kPageTokens> tokens{};
    std::string caller;  // of a page without parent
    int32_t parent = kNone;
    int32_t children = 0;
    int32_t holders = 0;
    bool findable = false;
    size_t bucket = 0;
    int32_t next_in_bucket = kNone;
    int32_t older = kNone, newer = kNone;  // in the line of those that nobody holds
  };

  Page& at(int32_t page) { return pages_[static_cast<size_t>(page)]; }
  size_t BucketOf(std::string_view caller, int32_t parent, Tokens tokens) const;
  int32_t FindOne(size_t bucket, std::string_view caller, int32_t parent, Tokens tokens);
  void Hold(int32_t page);
  void LetGo(int32_t page);
  void Forget(int32_t page);

  const bool findable_;
  const uint64_t seed_;
  std::vector<Page> pages_;
  std::vector<int32_t> buckets_;  // first page of each; a power of two
  std::vector<int32_t> free_;
  int32_t oldest_ = kNone, newest_ = kNone;  // of those that nobody holds
  int32_t cached_ = 0;
  int64_t version_ = 0;
};

}  // namespace millpower::engine
