#include "engine/kv_pages.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace millpower::engine {

KvPages::KvPages(int32_t count, bool findable, uint64_t seed)
    : findable_(findable),
      seed_(seed),
      pages_(static_cast<size_t>(count)),
      buckets_(std::bit_ceil(static_cast<size_t>(count)), kNone) {
  free_.reserve(static_cast<size_t>(count));
  for (int32_t page = count - 1; page >= 0; --page) free_.push_back(page);
}

bool KvPages::Take(int32_t wanted, std::vector<int32_t>& pages) {
  if (wanted > available()) return false;
  for (int32_t i = 0; i < wanted; ++i) {
    if (free_.empty()) Forget(oldest_);
    pages.push_back(free_.back());
    at(free_.back()).holders = 1;
    free_.pop_back();
  }
  return true;
}

void KvPages::Find(std::string_view caller, std::span<const int32_t> tokens,
                   std::vector<int32_t>& pages) {
  if (!findable_) return;
  int32_t parent = kNone;
  for (; tokens.size() >= size_t{kPageTokens}; tokens = tokens.subspan(kPageTokens)) {
    const auto content = tokens.first<kPageTokens>();
    const int32_t found = FindOne(BucketOf(caller, parent, content), caller, parent, content);
    if (found == kNone) return;
    Hold(found);
    pages.push_back(parent = found);
  }
}

void KvPages::Publish(std::string_view caller, std::span<const int32_t> tokens, int32_t from,
                      int32_t full, std::vector<int32_t>& pages) {
  if (!findable_) return;
  for (int32_t i = from; i < full; ++i) {
    int32_t& mine = pages[static_cast<size_t>(i)];
    const int32_t parent = i == 0 ? kNone : pages[static_cast<size_t>(i - 1)];
    const auto content = tokens.subspan(static_cast<size_t>(i * kPageTokens)).first<kPageTokens>();
    const size_t bucket = BucketOf(caller, parent, content);
    const int32_t found = FindOne(bucket, caller, parent, content);
    if (found != kNone) {
      LetGo(mine);
      Hold(mine = found);
      continue;
    }
    Page& page = at(mine);
    CHECK(page.holders == 1 && !page.findable) << "page " << mine;
    std::ranges::copy(content, page.tokens.begin());
    if (parent == kNone)
      page.caller = caller;
    else
      ++at(parent).children;
    page.parent = parent;
    page.findable = true;
    ++version_;
    page.bucket = bucket;
    page.next_in_bucket = std::exchange(buckets_[bucket], mine);
  }
}

// From the last to the first, so that of one prefix the end is given away first.
void KvPages::Release(std::vector<int32_t>& pages) {
  for (; !pages.empty(); pages.pop_back()) LetGo(pages.back());
}

size_t KvPages::BucketOf(std::string_view caller, int32_t parent, Tokens tokens) const {
  const uint64_t salt = parent == kNone ? XXH3_64bits_withSeed(caller.data(), caller.size(), seed_)
                                        : seed_ + static_cast<uint64_t>(parent);
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), salt) & (buckets_.size() - 1);
}

int32_t KvPages::FindOne(size_t bucket, std::string_view caller, int32_t parent, Tokens tokens) {
  for (int32_t i = buckets_[bucket]; i != kNone; i = at(i).next_in_bucket) {
    const Page& page = at(i);
    if (page.parent == parent && (parent != kNone || page.caller == caller) &&
        std::ranges::equal(page.tokens, tokens))
      return i;
  }
  return kNone;
}

void KvPages::Hold(int32_t page) {
  Page& held = at(page);
  if (held.holders++ > 0) return;
  (held.older == kNone ? oldest_ : at(held.older).newer) = held.newer;
  (held.newer == kNone ? newest_ : at(held.newer).older) = held.older;
  --cached_;
}

void KvPages::LetGo(int32_t page) {
  Page& left = at(page);
  CHECK(left.holders > 0) << "page " << page << " was let go once too often";
  if (--left.holders > 0) return;
  if (!left.findable) {
    free_.push_back(page);
    return;
  }
  left.newer = kNone;
  left.older = std::exchange(newest_, page);
  (left.older == kNone ? oldest_ : at(left.older).newer) = page;
  ++cached_;
}

// Makes a page that nobody holds a free one.
void KvPages::Forget(int32_t page) {
  Hold(page);
  Page& forgotten = at(page);
  CHECK(forgotten.children == 0) << "page " << page << " is given away before its children";
  int32_t* link = &buckets_[forgotten.bucket];
  while (*link != page) link = &at(*link).next_in_bucket;
  *link = forgotten.next_in_bucket;
  if (forgotten.parent == kNone)
    forgotten.caller.clear();
  else
    --at(forgotten.parent).children;
  forgotten.findable = false;
  ++version_;
  LetGo(page);
}

}  // namespace millpower::engine
