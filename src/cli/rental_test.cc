#include "cli/rental.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

namespace millpower::cli {
namespace {

namespace fs = std::filesystem;

class RentalFolder : public testing::Test {
 protected:
  RentalFolder() {
    std::string name = (fs::temp_directory_path() / "rental_test.XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  ~RentalFolder() override { fs::remove_all(root_); }

  Result<Rental> Open(const std::string& currency = "USD") {
    return OpenRental(folder(), currency, clock_);
  }
  fs::path folder() const { return root_ / "new" / "ledger"; }
  static unsigned ModeOf(const fs::path& path) {
    struct stat status = {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
    return status.st_mode & 0777;
  }

  fs::path root_;
  SystemClock clock_;
};

TEST_F(RentalFolder, BeginsWithADeveloper) {
  const auto rental = Open("EUR");
  ASSERT_TRUE(rental) << rental.error().message;
  EXPECT_EQ(ModeOf(folder()), 0700u);
  EXPECT_EQ(ModeOf(folder() / "developer.key"), 0600u);
  const auto directory = rental->ledger->directory();
  EXPECT_EQ(directory->currency(), "EUR");
  const ledger::Key* key = directory->FindSecret(rental->developer_key);
  ASSERT_NE(key, nullptr);
  const ledger::Tenant* tenant = directory->FindTenant(key->tenant);
  EXPECT_EQ(tenant->name, "developer");
  EXPECT_FALSE(tenant->credit_line.has_value());
  for (const auto unit :
       {ledger::Unit::kInputToken, ledger::Unit::kCachedToken, ledger::Unit::kOutputToken})
    for (int tier = 0; tier < ledger::kTierCount; ++tier) {
      const ledger::Price* price =
          directory->FindPrice("any", static_cast<ledger::Tier>(tier), unit, clock_.UnixSeconds());
      ASSERT_NE(price, nullptr);
      EXPECT_EQ(price->rate, 0);
    }
}

TEST_F(RentalFolder, FindsWhatWasThere) {
  std::string secret;
  {
    const auto rental = Open();
    ASSERT_TRUE(rental) << rental.error().message;
    secret = rental->developer_key;
    const auto second = Open();
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  }
  {
    const auto again = Open("EUR");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->developer_key, secret);
    EXPECT_EQ(again->ledger->directory()->currency(), "USD");
    EXPECT_EQ(again->ledger->directory()->keys().size(), 1u);
    const ledger::Key* key = again->ledger->directory()->FindSecret(secret);
    ASSERT_TRUE(again->ledger->RevokeKey("test", key->number));
  }
  // One that does not work any more is not recommended, nor replaced.
  EXPECT_EQ(Open()->developer_key, "");
}

TEST_F(RentalFolder, RefusesWhatIsNoLedger) {
  for (const char* currency : {"", "usd", "US", "USDD", "U$D"}) {
    const auto rental = Open(currency);
    ASSERT_FALSE(rental) << currency;
    EXPECT_EQ(rental.error().param, "currency");
  }
  fs::create_directories(folder());
  std::ofstream(folder() / "ledger.db") << std::string(8192, 'x');
  const auto rental = Open();
  ASSERT_FALSE(rental);
  EXPECT_EQ(rental.error().code, ErrorCode::kCorrupt);
  fs::remove_all(folder());
  std::ofstream{folder()} << "a file";
  EXPECT_FALSE(Open());
}

}  // namespace
}  // namespace millpower::cli
