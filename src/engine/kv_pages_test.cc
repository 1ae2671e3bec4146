#include "engine/kv_pages.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "base/rng.h"

namespace millpower::engine {
namespace {

std::vector<int32_t> Count(int32_t from, int32_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

// Computes `tokens` in pages of their own and lets the full ones be found.
std::vector<int32_t> Compute(KvPages& pages, const std::string& caller,
                             const std::vector<int32_t>& tokens) {
  const auto size = static_cast<int32_t>(tokens.size());
  std::vector<int32_t> held;
  EXPECT_TRUE(pages.Take(PagesFor(size), held));
  pages.Publish(caller, tokens, 0, size / kPageTokens, held);
  return held;
}

TEST(KvPages, HandsOutEveryPageOnce) {
  KvPages pages(5, true, 1);
  std::vector<int32_t> a, b;
  EXPECT_TRUE(pages.Take(3, a));
  EXPECT_FALSE(pages.Take(3, b));
  EXPECT_TRUE(b.empty());
  EXPECT_TRUE(pages.Take(2, b));
  EXPECT_EQ(pages.used(), 5);
  std::set<int32_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(all, (std::set<int32_t>{0, 1, 2, 3, 4}));
  pages.Release(a);
  EXPECT_TRUE(a.empty());
  EXPECT_EQ(pages.available(), 3);
  EXPECT_EQ(pages.cached(), 0);
}

TEST(KvPages, FindsTheLongestBeginningInWholePages) {
  KvPages pages(20, true, 1);
  const auto tokens = Count(0, 40);
  std::vector<int32_t> held = Compute(pages, "", tokens), found;
  pages.Find("", tokens, found);
  EXPECT_EQ(found, std::vector<int32_t>(held.begin(), held.begin() + 2));
  for (const auto& [size, expected] : {std::pair(15, 0u), {16, 1u}, {31, 1u}, {32, 2u}}) {
    std::vector<int32_t> some;
    pages.Find("", std::span(tokens).first(static_cast<size_t>(size)), some);
    EXPECT_EQ(some.size(), expected) << size;
    pages.Release(some);
  }
  auto other = tokens;
  other[20] = 99;  // in the second page
  std::vector<int32_t> one;
  pages.Find("", other, one);
  EXPECT_EQ(one.size(), 1u);
  // The same 16 tokens after others are another page.
  std::vector<int32_t> none;
  pages.Find("", Count(16, 16), none);
  EXPECT_TRUE(none.empty());
  pages.Release(one);
  pages.Release(found);
  pages.Release(held);
  EXPECT_EQ(pages.used(), 0);
  EXPECT_EQ(pages.cached(), 2);
}

TEST(KvPages, CallersSeeOnlyTheirOwn) {
  KvPages pages(20, true, 1);
  std::vector<int32_t> held = Compute(pages, "alice", Count(0, 32)), found;
  pages.Find("bob", Count(0, 32), found);
  EXPECT_TRUE(found.empty());
  pages.Find("", Count(0, 32), found);
  EXPECT_TRUE(found.empty());
  pages.Find("alice", Count(0, 32), found);
  EXPECT_EQ(found.size(), 2u);
}

TEST(KvPages, WithoutACacheNothingIsFound) {
  KvPages pages(20, false, 1);
  std::vector<int32_t> held = Compute(pages, "", Count(0, 32)), found;
  pages.Find("", Count(0, 32), found);
  EXPECT_TRUE(found.empty());
  pages.Release(held);
  EXPECT_EQ(pages.cached(), 0);
}

TEST(KvPages, TheSameContentTwiceIsKeptOnce) {
  KvPages pages(20, true, 1);
  std::vector<int32_t> first = Compute(pages, "", Count(0, 48));
  std::vector<int32_t> second = Compute(pages, "", Count(0, 48));
  EXPECT_EQ(first, second);
  EXPECT_EQ(pages.used(), 3);
  pages.Release(first);
  EXPECT_EQ(pages.used(), 3);
  pages.Release(second);
  EXPECT_EQ(pages.used(), 0);
}

TEST(KvPages, TheLongestUnusedGoesFirstAndTheEndOfItBeforeItsBeginning) {
  KvPages pages(6, true, 1);
  std::vector<int32_t> a = Compute(pages, "", Count(0, 48));
  std::vector<int32_t> b = Compute(pages, "", Count(100, 48));
  pages.Release(a);
  pages.Release(b);
  EXPECT_EQ(pages.cached(), 6);
  pages.Find("", Count(0, 48), a);  // used again: now younger than the other
  pages.Release(a);
  auto findable = [&](int32_t from) {
    std::vector<int32_t> found;
    pages.Find("", Count(from, 48), found);
    const size_t count = found.size();
    for (const int32_t page : found) EXPECT_GE(page, 0);
    return std::pair(count, found);
  };
  std::vector<int32_t> taken;
  ASSERT_TRUE(pages.Take(2, taken));
  auto [of_b, held_b] = findable(100);
  EXPECT_EQ(of_b, 1u);
  pages.Release(held_b);
  auto [of_a, held_a] = findable(0);
  EXPECT_EQ(of_a, 3u);
  // What somebody holds is not given away.
  std::vector<int32_t> more;
  EXPECT_FALSE(pages.Take(2, more));
  EXPECT_TRUE(pages.Take(1, more));
  EXPECT_EQ(findable(100).first, 0u);
  EXPECT_EQ(pages.available(), 0);
}

// Against a model of what the pages hold: what is found is what was asked for, whatever was
// evicted, and every page is accounted for. Few tokens, so that much is shared.
TEST(KvPages, HoldWhatIsFoundInThemOnRandomTraffic) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const auto count = static_cast<int32_t>(1 + rng.Below(30));
    KvPages pages(count, true, rng.Next());
    struct Holder {
      std::string caller;
      std::vector<int32_t> tokens, pages;
    };
    std::vector<Holder> holders;
    std::map<int32_t, std::pair<std::string, std::vector<int32_t>>> content;  // of full pages
    int64_t hits = 0;
    for (int step = 0; step < 200; ++step) {
      if (rng.Below(2) == 0 && !holders.empty()) {
        std::swap(holders[rng.Below(holders.size())], holders.back());
        pages.Release(holders.back().pages);
        holders.pop_back();
      } else {
        Holder holder{rng.Below(2) == 0 ? "a" : "b", {}, {}};
        for (uint64_t page = rng.Below(6); page > 0; --page)
          holder.tokens.insert(holder.tokens.end(), kPageTokens, static_cast<int>(rng.Below(3)));
        const int32_t whole = static_cast<int32_t>(holder.tokens.size()) / kPageTokens;
        pages.Find(holder.caller, holder.tokens, holder.pages);
        const auto found = static_cast<int32_t>(holder.pages.size());
        hits += found;
        if (!pages.Take(whole - found, holder.pages)) {
          pages.Release(holder.pages);
          continue;
        }
        pages.Publish(holder.caller, holder.tokens, found, whole, holder.pages);
        for (int32_t i = 0; i < whole; ++i) {
          const auto prefix = std::pair(
              holder.caller,
              std::vector(holder.tokens.begin(), holder.tokens.begin() + (i + 1) * kPageTokens));
          auto& held = content[holder.pages[static_cast<size_t>(i)]];
          if (i < found) {
            ASSERT_EQ(held, prefix);
          }
          held = prefix;
        }
        holders.push_back(holder);
      }
      std::map<int32_t, std::pair<std::string, std::vector<int32_t>>> by_page;
      for (const Holder& holder : holders)
        for (size_t i = 0; i < holder.pages.size(); ++i) {
          const auto prefix =
              std::pair(holder.caller,
                        std::vector(holder.tokens.begin(),
                                    holder.tokens.begin() + static_cast<int64_t>((i + 1) * 16)));
          const auto [entry, is_new] = by_page.emplace(holder.pages[i], prefix);
          ASSERT_EQ(entry->second, prefix) << "a page has two contents";
        }
      ASSERT_EQ(pages.used(), static_cast<int32_t>(by_page.size()));
      ASSERT_GE(pages.available(), pages.cached());
    }
    for (Holder& holder : holders) pages.Release(holder.pages);
    ASSERT_EQ(pages.available(), count);
    std::vector<int32_t> all;
    ASSERT_TRUE(pages.Take(count, all));
    if (count > 10) {
      ASSERT_GT(hits, 0);
    }
  }
}

}  // namespace
}  // namespace millpower::engine
