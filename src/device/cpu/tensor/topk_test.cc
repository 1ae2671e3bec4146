#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "device/cpu/tensor/test_instruction.h"
#include "device/cpu/tensor/test_shapes.h"
#include "kernels/tensor/element.h"

namespace millpower::device::cpu {
namespace {

using isa::Opcode;

// Of two values, whether the first counts for more.
template <typename T>
bool Larger(T a, T b) {
  return kernels::IsNan(a) ? !kernels::IsNan(b) : a > b;
}

template <DType kType>
void Check(Rng& rng, int64_t rows, int64_t n, int64_t k, bool largest,
           const std::vector<typename kernels::Element<kType>::Stored>& x) {
  using E = kernels::Element<kType>;
  TestInstruction test(Opcode::kTopK);
  test.Tensor(isa::top_k::kX, kType, {rows, n}, x);
  test.Tensor(isa::top_k::kY, DType::kI64, {rows, k},
              std::vector<int64_t>(static_cast<size_t>(rows * k)));
  test.Integer(isa::top_k::kLargest, largest);
  std::vector<int64_t> expected;
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto value = [&](int64_t i) { return E::Widen(x[static_cast<size_t>(row * n + i)]); };
    std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
      return largest ? Larger(value(a), value(b)) : Larger(value(b), value(a));
    });
    expected.insert(expected.end(), order.begin(), order.begin() + k);
  }
  test.Run(kernels::ScalarKernels(), rng);
  EXPECT_EQ(test.Read<int64_t>(isa::top_k::kY), expected)
      << Name(kType) << " n " << n << " k " << k << " largest " << largest;
}

template <DType kType>
void CheckRandom(Rng& rng) {
  using E = kernels::Element<kType>;
  using Number = typename E::Number;
  const auto n = static_cast<int64_t>(1 + rng.Below(rng.Below(4) == 0 ? 5000 : 60));
  const auto k = static_cast<int64_t>(
      1 + rng.Below(static_cast<uint64_t>(rng.Below(2) != 0 ? n : std::min<int64_t>(n, 10))));
  const auto rows = static_cast<int64_t>(1 + rng.Below(4));
  const uint64_t values = rng.Below(2) != 0 ? 5 : 1'000'000;  // with many equals, or few
  std::vector<typename E::Stored> x;
  for (int64_t i = 0; i < rows * n; ++i) {
    auto value = static_cast<Number>(static_cast<int64_t>(rng.Below(values)) -
                                     static_cast<int64_t>(values / 2));
    if constexpr (std::is_floating_point_v<Number>) {
      constexpr Number kSpecial[] = {NAN, -NAN, INFINITY, -INFINITY, -0.0f, 0.0f, Number(1e-40)};
      if (rng.Below(10) == 0) value = kSpecial[rng.Below(std::size(kSpecial))];
    } else if (rng.Below(10) == 0) {
      value = rng.Below(2) != 0 ? std::numeric_limits<Number>::max()
                                : std::numeric_limits<Number>::min();
    }
    x.push_back(E::Round(value));
  }
  Check<kType>(rng, rows, n, k, rng.Below(2) != 0, x);
}

TEST(TopK, OrdersAsASortWould) {
  Rng rng(1);
  for (int round = 0; round < 60; ++round) {
    CheckRandom<DType::kF32>(rng);
    CheckRandom<DType::kF64>(rng);
    CheckRandom<DType::kF16>(rng);
    CheckRandom<DType::kBf16>(rng);
    CheckRandom<DType::kI8>(rng);
    CheckRandom<DType::kI16>(rng);
    CheckRandom<DType::kI32>(rng);
    CheckRandom<DType::kI64>(rng);
    CheckRandom<DType::kU8>(rng);
    CheckRandom<DType::kU16>(rng);
    CheckRandom<DType::kU32>(rng);
    CheckRandom<DType::kU64>(rng);
  }
}

// Each value is better than all before it, so that every one is held for a while; and the reverse.
TEST(TopK, TakesSortedLists) {
  Rng rng(2);
  std::vector<float> x(30'000);
  std::iota(x.begin(), x.end(), 0.0f);
  for (const bool largest : {false, true})
    for (const int64_t k : {1, 100, 30'000}) Check<DType::kF32>(rng, 1, 30'000, k, largest, x);
}

TEST(TopK, TakesColumnsOfMatrices) {
  Rng rng(3);
  const std::vector<int32_t> x = {9, 1, 5, 3, 9, /**/ 9, 2, 2, 8, 9};
  TestInstruction test(Opcode::kTopK);
  test.Matrix(isa::top_k::kX, DType::kI32, 2, 5, 1, 3, x);
  test.Matrix(isa::top_k::kY, DType::kI64, 2, 3, 1, 2, std::vector<int64_t>(6, -1));
  test.Integer(isa::top_k::kLargest, 1);
  test.Run(kernels::ScalarKernels(), rng);
  EXPECT_EQ(test.Read<int64_t>(isa::top_k::kY), (std::vector<int64_t>{-1, 1, 2, -1, 2, 0}));
}

}  // namespace
}  // namespace millpower::device::cpu
