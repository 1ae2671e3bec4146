#include "device/cpu/tensor/test_instruction.h"
#include "device/cpu/tensor/test_shapes.h"

namespace millpower::device::cpu {
namespace {

using isa::Opcode;
namespace op = isa::copy;

DType TypeOfSize(size_t bytes) {
  return bytes == 1   ? DType::kU8
         : bytes == 2 ? DType::kU16
         : bytes == 4 ? DType::kI32
                      : DType::kI64;
}

// A random copy: the window, its place in y, and the axes of x that it takes, anywhere inside.
template <typename T>
void CopyOnce(Rng& rng, uint64_t round) {
  const size_t rank = 1 + rng.Below(round % 10 == 0 ? 7 : 4);
  const int64_t max = rank <= 2 ? 70 : rank <= 4 ? 9 : 3;
  Place perm(rank), window = RandomDims(rng, rank, max), x_dims(rank), y_dims(rank);
  Place begin(rank), step(rank), at(rank), gap(rank);
  for (size_t d = 0; d < rank; ++d) perm[d] = static_cast<int64_t>(d);
  if (rng.Below(3) != 0)
    for (size_t d = rank; d > 1; --d) std::swap(perm[d - 1], perm[rng.Below(d)]);
  const bool plain = rng.Below(3) == 0;  // a transposition and nothing else
  for (size_t d = 0; d < rank; ++d) {
    const auto axis = static_cast<size_t>(perm[d]);
    const auto draw = [&](uint64_t below) {
      return plain ? int64_t{0} : static_cast<int64_t>(rng.Below(below));
    };
    step[axis] = plain ? 1 : static_cast<int64_t>(rng.Below(4)) - 1;
    gap[d] = 1 + (draw(4) == 3 ? 1 : 0);
    at[d] = draw(3);
    y_dims[d] = at[d] + (window[d] - 1) * gap[d] + 1 + draw(3);
    const int64_t reach = (window[d] - 1) * std::abs(step[axis]);
    begin[axis] = draw(3) + (step[axis] < 0 ? reach : 0);
    x_dims[axis] = (step[axis] < 0 ? begin[axis] : begin[axis] + reach) + 1 + draw(3);
  }
  if (round % 17 == 0) window[rng.Below(rank)] = 0;
  const std::vector<T> x = RandomValues<T>(rng, Count(x_dims), 250);
  const std::vector<T> y(static_cast<size_t>(Count(y_dims)), T{77});
  TestInstruction test(Opcode::kCopy);
  const DType type = TypeOfSize(sizeof(T));
  test.Tensor(op::kX, type, x_dims, x);
  test.Tensor(op::kY, type, y_dims, y);
  test.List(op::kPerm, perm);
  test.List(op::kStep, step);
  test.List(op::kGap, gap);
  test.Sizes(op::kBegin, TestInstruction::Dims(begin));
  test.Sizes(op::kAt, TestInstruction::Dims(at));
  std::vector<isa::Dim> sizes = TestInstruction::Dims(window);
  sizes[0] = test.Register(window[0], 100);
  test.Sizes(op::kWindow, sizes);
  test.Run(kernels::ScalarKernels(), rng);
  std::vector<T> expected = y;
  for (int64_t i = 0; i < Count(window); ++i) {
    const Place place = PlaceOf(window, i);
    Place from(rank), to(rank);
    for (size_t d = 0; d < rank; ++d) {
      const auto axis = static_cast<size_t>(perm[d]);
      from[axis] = begin[axis] + step[axis] * place[d];
      to[d] = at[d] + gap[d] * place[d];
    }
    expected[IndexOf(y_dims, to)] = x[IndexOf(x_dims, from)];
  }
  EXPECT_EQ(test.Read<T>(op::kY), expected) << "round " << round << " rank " << rank;
}

TEST(Copy, MovesWhatItSays) {
  Rng rng(1);
  for (uint64_t round = 0; round < 200; ++round) {
    CopyOnce<uint8_t>(rng, round);
    CopyOnce<uint16_t>(rng, round);
    CopyOnce<int32_t>(rng, round);
    CopyOnce<int64_t>(rng, round);
  }
}

void Plain(TestInstruction& test, const Place& window) {
  const size_t rank = window.size();
  Place perm(rank);
  for (size_t d = 0; d < rank; ++d) perm[d] = static_cast<int64_t>(d);
  test.List(op::kPerm, perm);
  test.List(op::kStep, Place(rank, 1));
  test.List(op::kGap, Place(rank, 1));
  test.Sizes(op::kBegin, TestInstruction::Dims(Place(rank, 0)));
  test.Sizes(op::kAt, TestInstruction::Dims(Place(rank, 0)));
  test.Sizes(op::kWindow, TestInstruction::Dims(window));
}

TEST(Copy, CutsOneLongRun) {
  Rng rng(2);
  for (const int64_t count : {1, 8191, 8192, 8193, 100'003}) {
    const std::vector<int32_t> x = RandomValues<int32_t>(rng, count, 1 << 30);
    TestInstruction test(Opcode::kCopy);
    test.Tensor(op::kX, DType::kI32, {count}, x);
    test.Tensor(op::kY, DType::kI32, {count}, std::vector<int32_t>(x.size()));
    Plain(test, {count});
    test.Run(kernels::ScalarKernels(), rng);
    EXPECT_EQ(test.Read<int32_t>(op::kY), x);
  }
}

TEST(Copy, TakesColumnsOfMatrices) {
  Rng rng(3);
  const std::vector<int32_t> x = RandomValues<int32_t>(rng, 5 * 9);
  std::vector<int32_t> y(5 * 7, -1);
  TestInstruction test(Opcode::kCopy);
  test.Matrix(op::kX, DType::kI32, 5, 9, 4, 3, x);
  test.Matrix(op::kY, DType::kI32, 5, 7, 1, 3, y);
  Plain(test, {5, 3});
  test.Run(kernels::ScalarKernels(), rng);
  for (size_t r = 0; r < 5; ++r)
    for (size_t c = 0; c < 3; ++c) y[r * 7 + 1 + c] = x[r * 9 + 4 + c];
  EXPECT_EQ(test.Read<int32_t>(op::kY), y);
}

TEST(Copy, CopiesAScalar) {
  Rng rng(4);
  TestInstruction test(Opcode::kCopy);
  test.Tensor(op::kX, DType::kF32, {}, std::vector<float>{3});
  test.Tensor(op::kY, DType::kF32, {}, std::vector<float>{0});
  Plain(test, {});
  test.Run(kernels::ScalarKernels(), rng);
  EXPECT_EQ(test.Read<float>(op::kY), std::vector<float>{3});
}

}  // namespace
}  // namespace millpower::device::cpu
