#include "base/page_keeper.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/mapped_file.h"
#include "base/rng.h"
#include "base/test_wait.h"

namespace millpower {
namespace {

constexpr int64_t kMiB = 1 << 20;

int64_t FileBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0, of_files = 0;
  file >> total >> resident >> of_files;
  return of_files * ::sysconf(_SC_PAGESIZE);
}

// A file of 64-bit numbers, each its own index, mapped.
class PageKeeperTest : public ::testing::Test {
 protected:
  static constexpr int64_t kFileBytes = 96 * kMiB;

  void SetUp() override {
    std::ofstream file(path_, std::ios::binary);
    std::vector<uint64_t> block(kMiB / sizeof(uint64_t));
    for (uint64_t at = 0; at < kFileBytes / sizeof(uint64_t); at += block.size()) {
      for (size_t i = 0; i < block.size(); ++i) block[i] = at + i;
      file.write(reinterpret_cast<const char*>(block.data()), kMiB);
    }
    file.close();
    auto mapped = MappedFile::OpenCopyOnWrite(path_);
    ASSERT_TRUE(mapped) << mapped.error().message;
    mapped->MoveForRandomReads();
    file_ = std::make_shared<MappedFile>(*std::move(mapped));
  }
  void TearDown() override { std::filesystem::remove(path_); }

  volatile uint64_t* numbers() {
    return reinterpret_cast<volatile uint64_t*>(file_->writable_bytes().data());
  }
  // One that another thread reads or writes meanwhile.
  std::atomic_ref<uint64_t> Shared(uint64_t i) {
    return std::atomic_ref(const_cast<uint64_t&>(numbers()[i]));
  }
  void ReadAll() {
    for (uint64_t i = 0; i < kFileBytes / sizeof(uint64_t); i += 256)
      ASSERT_TRUE(numbers()[i] == i || numbers()[i] == ~i) << i;
  }

  const std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("page_keeper_test" + std::to_string(::getpid()));
  std::shared_ptr<MappedFile> file_;
};

TEST_F(PageKeeperTest, TakesBackWhatIsBeyondTheBound) {
  auto keeper = PageKeeper::Start(48 * kMiB, 16 * kMiB);
  ASSERT_TRUE(keeper) << keeper.error().message;
  const auto pages = (*keeper)->Keep(file_, {file_->bytes()});
  const int64_t before = FileBytes();
  ASSERT_TRUE(Eventually([&] {
    ReadAll();
    return (*keeper)->stats().given_back_bytes >= 48 * kMiB;
  }));
  EXPECT_TRUE(Eventually([&] { return FileBytes() - before <= 32 * kMiB; }));
  EXPECT_TRUE(Eventually([&] { return (*keeper)->stats().resident_bytes <= 32 * kMiB; }));
  EXPECT_EQ((*keeper)->stats().mapped_bytes, kFileBytes);
  EXPECT_EQ((*keeper)->stats().written_bytes, 0);
  ReadAll();  // and it comes back
}

// Two who read as fast as they can: what is resident never comes near the bound.
TEST_F(PageKeeperTest, ReadersMakeRoomThemselves) {
  auto keeper = PageKeeper::Start(48 * kMiB, 16 * kMiB);
  ASSERT_TRUE(keeper) << keeper.error().message;
  const auto pages = (*keeper)->Keep(file_, {file_->bytes()});
  const int64_t before = FileBytes();
  std::atomic<bool> stop = false, wrong = false;
  const auto read = [&](uint64_t seed) {
    for (uint64_t n = 0; !stop; ++n) {
      const uint64_t i = RandomBits(seed, n) % (kFileBytes / sizeof(uint64_t));
      const auto* row = reinterpret_cast<const std::byte*>(const_cast<uint64_t*>(numbers() + i));
      pages->BeforeRead(std::span(&row, 1), sizeof(uint64_t));
      if (numbers()[i] != i) wrong = true;
    }
  };
  int64_t most = 0;
  {
    const std::jthread one(read, 1), other(read, 2);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (std::chrono::steady_clock::now() < end) most = std::max(most, FileBytes() - before);
    stop = true;
  }
  EXPECT_FALSE(wrong);
  EXPECT_LE(most, 44 * kMiB);
  EXPECT_GT((*keeper)->stats().given_back_bytes, 64 * kMiB);
}

// Rows at the edges of what is kept, over two pages, and elsewhere.
TEST_F(PageKeeperTest, TakesAnyRow) {
  auto keeper = PageKeeper::Start(48 * kMiB, 16 * kMiB);
  ASSERT_TRUE(keeper);
  const auto bytes = file_->bytes();
  const auto pages =
      (*keeper)->Keep(file_, {bytes.subspan(100, 3 * kMiB), bytes.subspan(4 * kMiB)});
  const std::byte elsewhere{};
  std::vector<const std::byte*> rows = {&elsewhere};
  for (const int64_t at :
       {int64_t{0}, int64_t{4000}, 3 * kMiB - 60, 3 * kMiB + 90, 4 * kMiB - 8, kFileBytes - 132})
    rows.push_back(bytes.data() + at);
  while (rows.size() < 700) rows.push_back(bytes.data() + 4096 * (rows.size() + 1) - 60);
  pages->BeforeRead(rows, 132);
  pages->BeforeRead({}, 132);
  ReadAll();
}

TEST_F(PageKeeperTest, LeavesTheRestAlone) {
  auto keeper = PageKeeper::Start(256 * kMiB, 16 * kMiB);
  ASSERT_TRUE(keeper);
  const auto pages = (*keeper)->Keep(file_, {file_->bytes().first(kFileBytes / 2)});
  ReadAll();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ((*keeper)->stats().given_back_bytes, 0);
}

TEST_F(PageKeeperTest, NeverTakesWhatWasWritten) {
  auto keeper = PageKeeper::Start(40 * kMiB, 16 * kMiB);
  ASSERT_TRUE(keeper);
  const auto pages = (*keeper)->Keep(file_, {file_->bytes()});
  std::atomic<bool> stop = false;
  std::jthread reader([&] {
    for (uint64_t n = 0; !stop; ++n)
      (void)Shared(RandomBits(1, n) % (kFileBytes / sizeof(uint64_t))).load();
  });
  std::vector<uint64_t> written;
  for (uint64_t n = 0; n < 4000; ++n) {
    written.push_back(RandomBits(2, n) % (kFileBytes / sizeof(uint64_t)));
    pages->BeforeWrite(
        std::as_bytes(std::span(const_cast<const uint64_t*>(numbers()) + written.back(), 1)));
    Shared(written.back()).store(~written.back());
  }
  ASSERT_TRUE(Eventually([&] {
    ReadAll();
    return (*keeper)->stats().given_back_bytes > 64 * kMiB;
  }));
  stop = true;
  for (const uint64_t at : written) ASSERT_EQ(numbers()[at], ~at) << "of seed 2";
  EXPECT_GT((*keeper)->stats().written_bytes, 8 * kMiB);
  EXPECT_TRUE(Eventually([&] { return (*keeper)->stats().resident_bytes <= 40 * kMiB; }));
}

TEST_F(PageKeeperTest, OutlivesNeitherWay) {
  auto keeper = PageKeeper::Start(40 * kMiB, 16 * kMiB);
  ASSERT_TRUE(keeper);
  std::weak_ptr<MappedFile> file = file_;
  auto pages = (*keeper)->Keep(std::exchange(file_, nullptr), {file.lock()->bytes()});
  EXPECT_FALSE(file.expired());
  auto others = (*keeper)->Keep(nullptr, {});
  pages.reset();
  EXPECT_TRUE(file.expired());
  EXPECT_EQ((*keeper)->stats().mapped_bytes, 0);
  keeper->reset();
  others->BeforeWrite({});
}

TEST(PageKeeper, RefusesBoundsItCannotKeep) {
  EXPECT_FALSE(PageKeeper::Start(32 * kMiB, 16 * kMiB));
  EXPECT_FALSE(PageKeeper::Start(32 * kMiB, 0));
  EXPECT_FALSE(PageKeeper::Start(-1, 16 * kMiB));
}

}  // namespace
}  // namespace millpower
