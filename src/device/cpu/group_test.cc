#include "device/cpu/group.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/rng.h"

namespace millpower::device::cpu {
namespace {

using Matrix = std::vector<float>;  // [rows, cols] within a row stride

constexpr int64_t kRows = 5, kCols = 7, kStride = 40;

// What rank `me` must get in row `row`, column `c`.
float Expected(isa::Collective kind, const std::vector<Matrix>& x, const Matrix* residual, int me,
               int64_t row, int64_t c) {
  using enum isa::Collective;
  const auto at = [&](size_t rank, int64_t col) {
    return x[rank][static_cast<size_t>(row * kStride + col)];
  };
  if (kind == kAllGather) return at(static_cast<size_t>(c / kCols), c % kCols);
  if (kind == kAllToAll) return at(static_cast<size_t>(c / kCols), me * kCols + c % kCols);
  const int64_t col = kind == kReduceScatter ? me * kCols + c : c;
  float sum = at(0, col);
  for (size_t rank = 1; rank < x.size(); ++rank) sum = sum + at(rank, col);
  return residual == nullptr ? sum : (*residual)[static_cast<size_t>(row * kStride + c)] + sum;
}

// Again and again on one thread a rank, so that ranks that run ahead are found out.
TEST(Group, ExchangesWhatTheKindSays) {
  using enum isa::Collective;
  for (const int ranks : {1, 2, 3, 4}) {
    Rng rng(static_cast<uint64_t>(ranks));
    constexpr int kRounds = 40;
    struct Round {
      isa::Collective kind;
      bool with_residual, in_place;
      std::vector<Matrix> x, residual;
    };
    std::vector<Round> rounds;
    for (int i = 0; i < kRounds; ++i) {
      Round round{
          static_cast<isa::Collective>(rng.Below(4)), rng.Below(2) == 0, rng.Below(2) == 0, {}, {}};
      for (int rank = 0; rank < ranks; ++rank)
        for (auto* matrices : {&round.x, &round.residual}) {
          matrices->emplace_back(static_cast<size_t>(kRows * kStride));
          for (float& value : matrices->back()) value = rng.Uniform(-1, 1);
        }
      rounds.push_back(std::move(round));
    }
    Group group(ranks);
    std::vector<int> wrong(static_cast<size_t>(ranks), 0);
    const auto run = [&](int rank) {
      const auto own = static_cast<size_t>(rank);
      group.Reserve(rank, kRows * kCols);
      for (const Round& round : rounds) {
        const bool sums = round.kind == kAllReduce || round.kind == kReduceScatter;
        const bool wide = round.kind == kAllGather || round.kind == kAllToAll;
        Matrix x = round.x[own], y(x.size(), -7.0f), residual = round.residual[own];
        float* to = round.kind == kAllReduce && round.in_place ? x.data()
                    : sums && round.with_residual              ? residual.data()
                                                               : y.data();
        group.Run(rank, {.kind = round.kind,
                         .x = x.data(),
                         .residual = sums && round.with_residual ? residual.data() : nullptr,
                         .y = to,
                         .rows = kRows,
                         .cols = kCols,
                         .x_stride = kStride,
                         .residual_stride = kStride,
                         .y_stride = kStride});
        const Matrix* added = sums && round.with_residual ? &round.residual[own] : nullptr;
        for (int64_t row = 0; row < kRows; ++row)
          for (int64_t c = 0; c < (wide ? ranks * kCols : kCols); ++c)
            wrong[own] +=
                to[row * kStride + c] != Expected(round.kind, round.x, added, rank, row, c);
      }
    };
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, std::vector<int>(wrong.size(), 0)) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace millpower::device::cpu
