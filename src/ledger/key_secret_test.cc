#include "ledger/key_secret.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

namespace millpower::ledger {
namespace {

TEST(KeySecret, IsWellFormedAndNeverTheSame) {
  std::set<std::string> secrets, prefixes;
  for (int i = 0; i < 1000; ++i) {
    const auto made = MakeSecret();
    ASSERT_TRUE(made);
    EXPECT_EQ(made->secret.size(), 3u + 8 + 1 + 40);
    EXPECT_EQ(PrefixOf(made->secret), made->prefix);
    EXPECT_EQ(made->hash, Sha256(made->secret));
    secrets.insert(made->secret);
    prefixes.insert(made->prefix);
  }
  EXPECT_EQ(secrets.size(), 1000u);
  // 62^8 prefixes: two equal ones of a thousand have odds of 1 to 4 * 10^8.
  EXPECT_EQ(prefixes.size(), 1000u);
}

TEST(KeySecret, UsesEveryCharacterAlike) {
  std::array<int, 256> count{};
  constexpr int kSecrets = 4000;
  for (int i = 0; i < kSecrets; ++i) {
    for (const char c : MakeSecret()->secret.substr(12)) ++count[static_cast<unsigned char>(c)];
  }
  // Expected 2581 each, standard deviation 50; bytes % 62 would give 8 of them a quarter more.
  const int expected = kSecrets * 40 / 62;
  int seen = 0;
  for (const int n : count) {
    if (n == 0) continue;
    ++seen;
    EXPECT_NEAR(n, expected, 350);
  }
  EXPECT_EQ(seen, 62);
}

TEST(KeySecret, PrefixOfAnythingElseIsEmpty) {
  const std::string good = "mp-ABCDabc1-" + std::string(40, 'x');
  EXPECT_EQ(PrefixOf(good), "ABCDabc1");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = '\0';
    EXPECT_EQ(PrefixOf(bad), "") << i;
    bad[i] = '\'';
    EXPECT_EQ(PrefixOf(bad), "") << i;
    EXPECT_EQ(PrefixOf(good.substr(0, i)), "") << i;
  }
  EXPECT_EQ(PrefixOf(good + "x"), "");
  EXPECT_EQ(PrefixOf(""), "");
  EXPECT_EQ(PrefixOf(std::string(1 << 20, 'm')), "");
}

TEST(KeySecret, HashesAsFips180Says) {
  EXPECT_EQ(HexOf(Sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HexOf(Sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(KeySecret, ComparesWholes) {
  EXPECT_TRUE(IsSame("", ""));
  EXPECT_TRUE(IsSame("abc", "abc"));
  EXPECT_FALSE(IsSame("abc", "abd"));
  EXPECT_FALSE(IsSame("abc", "ab"));
  EXPECT_FALSE(IsSame(std::string_view("a\0b", 3), std::string_view("a\0c", 3)));
}

TEST(KeySecret, RecordIdsCarryTheirKind) {
  const std::string id = NewRecordId("ten_");
  EXPECT_EQ(id.size(), 4u + 24);
  EXPECT_TRUE(id.starts_with("ten_"));
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef", 4), id.npos);
  EXPECT_NE(id, NewRecordId("ten_"));
}

}  // namespace
}  // namespace millpower::ledger
