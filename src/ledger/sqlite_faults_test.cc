// What a ledger's file holds after the disk was full, would not sync, or lost its power.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "ledger/fault_vfs.h"
#include "ledger/test_store.h"

namespace millpower::ledger {
namespace {

using testing::IsEmpty;
using Fault = FaultVfs::Fault;

// A batch with everything in it; its payment, "batch n", tells whether it was written.
std::vector<Record> Batch(int n) {
  const std::string id = "r" + std::to_string(n);
  const Hold posted = MakeHold(id, 1, 1'000'000, kStart + n);
  const Hold voided = MakeHold(id + "-voided", 2, 2'000'000, kStart + n);
  const Hold open = MakeHold(id + "-open", 2, 3, kStart + n);
  return {HoldOpened{posted},
          HoldOpened{voided},
          HoldExtended{id, 500'000, 5, 1, kStart + n},
          Payment{1, 1'000, "batch " + std::to_string(n), kStart + n},
          Posted(posted, 100, 10, 20),
          Voided(voided),
          HoldOpened{open},
          Project{.number = 1000 + n,
                  .id = "proj_n" + std::to_string(n),
                  .name = std::to_string(n),
                  .tenant = 1,
                  .created_at = kStart}};
}

// Whether batch n is there, as a whole or not at all.
testing::AssertionResult HasBatch(Store& store, const StoredState& state, int n, bool& has) {
  const std::string id = "r" + std::to_string(n);
  has = *store.WasPaid("batch " + std::to_string(n));
  const bool posted = *store.WasPosted(id);
  const bool open = std::ranges::count(state.holds, id + "-open", &Hold::request_id) == 1;
  const bool project = std::ranges::count(state.projects, 1000 + n, &Project::number) == 1;
  if (posted == has && open == has && project == has) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "batch " << n << ": paid " << has << ", posted " << posted
                                     << ", open " << open << ", project " << project;
}

class SqliteFaults : public testing::TestWithParam<Fault> {};

// Each write (or sync) of a commit fails in turn.
TEST_P(SqliteFaults, AFailedCommitLeavesNothingAndMayBeTriedAgain) {
  for (const int checkpoint_pages : {4000, 1}) {
    const TemporaryFolder folder;
    FaultVfs vfs;
    auto opened = OpenSqliteStore(folder / "ledger.db",
                                  {.vfs = vfs.name(), .checkpoint_pages = checkpoint_pages});
    ASSERT_TRUE(opened) << opened.error().message;
    Store& store = **opened;
    ASSERT_TRUE(store.Commit(FirstRecords()));
    int failures = 0;
    for (int n = 1;; ++n) {
      const StoredState before = *store.Load();
      vfs.Arm(GetParam(), n);
      const auto committed = store.Commit(Batch(n));
      const bool has_failed = vfs.has_failed();
      bool has = false;
      if (!committed) {
        ++failures;
        EXPECT_EQ(committed.error().code,
                  GetParam() == Fault::kFull ? ErrorCode::kNoCapacity : ErrorCode::kIo)
            << committed.error().message;
        // It may be read as it was, though nothing can be written.
        const StoredState after = *store.Load();
        EXPECT_EQ(after.balances, before.balances);
        EXPECT_EQ(after.holds.size(), before.holds.size());
        ASSERT_TRUE(HasBatch(store, after, n, has));
        EXPECT_FALSE(has);
        EXPECT_FALSE(store.Commit(Batch(n))) << "it fails as long as the disk does";
        vfs.Disarm();
        const auto again = store.Commit(Batch(n));
        ASSERT_TRUE(again) << "call " << n << ": " << again.error().message;
      }
      vfs.Disarm();
      ASSERT_TRUE(HasBatch(store, *store.Load(), n, has));
      EXPECT_TRUE(has) << "call " << n;
      ASSERT_THAT(*store.Verify(AllLive), IsEmpty()) << "call " << n;
      if (!has_failed) break;
    }
    EXPECT_GE(failures, GetParam() == Fault::kFull ? 10 : 1);
    opened->reset();
    auto reopened = OpenSqliteStore(folder / "ledger.db");
    ASSERT_TRUE(reopened) << reopened.error().message;
    EXPECT_THAT(*(*reopened)->Verify(AllLive), IsEmpty());
  }
}
INSTANTIATE_TEST_SUITE_P(Each, SqliteFaults, testing::Values(Fault::kFull, Fault::kFailedSync),
                         [](const auto& info) {
                           return info.param == Fault::kFull ? "Full" : "FailedSync";
                         });

// After power was cut anywhere - in a commit, in a checkpoint, in making the file - what was
// acknowledged is there, and what was not is there as a whole or not at all.
TEST(SqlitePowerCut, KeepsExactlyWhatWasAcknowledged) {
  constexpr uint64_t kRounds = 60;
  int cuts = 0, unacknowledged = 0, written_all_the_same = 0;
  for (uint64_t seed = 1; seed <= kRounds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Rng rng(seed);
    const TemporaryFolder folder;
    const auto file = folder / "ledger.db";
    FaultVfs vfs;
    int acknowledged = -1;  // 0: the first records; n: batch n
    int last = -1;
    for (int life = 0; life < 3; ++life) {
      if (rng.Below(2) == 0) {
        vfs.Arm(Fault::kPowerCut, 1 + static_cast<int64_t>(rng.Below(life == 0 ? 300 : 150)));
      } else {
        vfs.Arm(Fault::kPowerCutAtSync, 1 + static_cast<int64_t>(rng.Below(10)));
      }
      {
        auto store = OpenSqliteStore(
            file, {.vfs = vfs.name(), .checkpoint_pages = 1 + static_cast<int>(rng.Below(100))});
        const int until = last + 1 + static_cast<int>(rng.Below(12));
        while (store && last < until) {
          const int n = acknowledged + 1;
          last = n;
          if (!(*store)->Commit(n == 0 ? FirstRecords() : Batch(n))) break;
          ASSERT_FALSE(vfs.has_failed() && last != n);
          acknowledged = n;
        }
        ASSERT_TRUE(store || vfs.has_failed()) << store.error().message;
      }
      cuts += vfs.has_failed();
      vfs.LosePower(rng.Next());
      vfs.Disarm();
      auto store = OpenSqliteStore(file, {.vfs = vfs.name()});
      ASSERT_TRUE(store) << store.error().message;
      ASSERT_THAT(*(*store)->Verify(AllLive), IsEmpty());
      const StoredState state = *(*store)->Load();
      ASSERT_TRUE(acknowledged < 0 || state.tenants.size() == 2u);
      bool has = false;
      for (int n = 1; n <= last; ++n) {
        ASSERT_TRUE(HasBatch(**store, state, n, has));
        ASSERT_TRUE(has || n > acknowledged) << "batch " << n << " of " << acknowledged;
      }
      if (last > acknowledged) {
        ++unacknowledged;
        const bool was_written = last == 0 ? !state.tenants.empty() : has;
        if (was_written) ++written_all_the_same, acknowledged = last;
      }
    }
  }
  // The rounds did meet what they are for.
  EXPECT_GT(cuts, 100);
  EXPECT_GT(unacknowledged, 60);
  EXPECT_GT(written_all_the_same, 0);
}

}  // namespace
}  // namespace millpower::ledger
