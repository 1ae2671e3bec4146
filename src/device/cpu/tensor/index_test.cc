#include <cmath>

#include "device/cpu/tensor/test_instruction.h"
#include "device/cpu/tensor/test_shapes.h"

namespace millpower::device::cpu {
namespace {

using isa::Opcode;

// The index that a policy makes of one that may be outside: by its definition in tensor_ops.h.
int64_t Inside(int64_t index, int64_t n, IndexPolicy policy) {
  if (policy == IndexPolicy::kClamp) return std::min(std::max<int64_t>(index, 0), n - 1);
  return index < 0 ? index + n : index;
}

// Indices that are allowed: inside, and where the policy says so, outside.
std::vector<int64_t> RandomIndices(Rng& rng, int64_t count, int64_t n, IndexPolicy policy) {
  std::vector<int64_t> indices(static_cast<size_t>(count));
  for (int64_t& index : indices) {
    const auto draw = static_cast<int64_t>(rng.Below(static_cast<uint64_t>(3 * n)));
    index = policy == IndexPolicy::kClamp  ? draw - n
            : policy == IndexPolicy::kWrap ? draw % (2 * n) - n
                                           : draw % n;
  }
  return indices;
}

void SetIndex(TestInstruction& test, Rng& rng, int operand, const Place& dims,
              const std::vector<int64_t>& indices) {
  if (rng.Below(2) != 0)
    test.Tensor(operand, DType::kI64, dims, indices);
  else
    test.Tensor(operand, DType::kI32, dims, std::vector<int32_t>(indices.begin(), indices.end()));
}

IndexPolicy RandomPolicy(Rng& rng) { return static_cast<IndexPolicy>(rng.Below(3)); }

TEST(Take, TakesSlices) {
  Rng rng(1);
  for (int round = 0; round < 150; ++round) {
    const Place x_dims = RandomDims(rng, 1 + rng.Below(4), 6);
    const Place index_dims = RandomDims(rng, rng.Below(3), 5);
    const size_t axis = rng.Below(x_dims.size());
    const IndexPolicy policy = RandomPolicy(rng);
    const Place y_dims =
        Joined(Joined(Part(x_dims, 0, axis), index_dims), Part(x_dims, axis + 1, x_dims.size()));
    const std::vector<int16_t> x = RandomValues<int16_t>(rng, Count(x_dims), 30000);
    const std::vector<int64_t> index = RandomIndices(rng, Count(index_dims), x_dims[axis], policy);
    TestInstruction test(Opcode::kTake);
    test.Tensor(isa::take::kX, DType::kI16, x_dims, x);
    SetIndex(test, rng, isa::take::kIndex, index_dims, index);
    std::vector<int16_t> expected(static_cast<size_t>(Count(y_dims)));
    test.Tensor(isa::take::kY, DType::kI16, y_dims, expected);
    test.Integer(isa::take::kAxis, static_cast<int64_t>(axis));
    test.Integer(isa::take::kPolicy, static_cast<int64_t>(policy));
    for (size_t i = 0; i < expected.size(); ++i) {
      const Place place = PlaceOf(y_dims, static_cast<int64_t>(i));
      Place from = Part(place, 0, axis);
      from.push_back(Inside(index[IndexOf(index_dims, Part(place, axis, axis + index_dims.size()))],
                            x_dims[axis], policy));
      from = Joined(from, Part(place, axis + index_dims.size(), place.size()));
      expected[i] = x[IndexOf(x_dims, from)];
    }
    test.Run(kernels::ScalarKernels(), rng);
    EXPECT_EQ(test.Read<int16_t>(isa::take::kY), expected) << "round " << round;
    EXPECT_EQ(test.Fault(), "");
  }
}

TEST(Take, TakesColumnsOfMatrices) {
  Rng rng(2);
  for (const int64_t axis : {0, 1}) {
    const std::vector<float> x = RandomReals(rng, 4 * 9);
    const std::vector<int64_t> index = {3, 0, 1};
    const int64_t rows = axis == 0 ? 3 : 4, cols = axis == 0 ? 4 : 3;
    std::vector<float> y(static_cast<size_t>(rows * 8), -1.0f);
    TestInstruction test(Opcode::kTake);
    test.Matrix(isa::take::kX, DType::kF32, 4, 9, 2, 4, x);
    test.Tensor(isa::take::kIndex, DType::kI64, {3}, index);
    test.Matrix(isa::take::kY, DType::kF32, rows, 8, 3, cols, y);
    test.Integer(isa::take::kAxis, axis);
    test.Run(kernels::ScalarKernels(), rng);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        y[static_cast<size_t>(r * 8 + 3 + c)] =
            axis == 0 ? x[static_cast<size_t>(index[static_cast<size_t>(r)] * 9 + 2 + c)]
                      : x[static_cast<size_t>(r * 9 + 2 + index[static_cast<size_t>(c)])];
    EXPECT_EQ(test.Read<float>(isa::take::kY), y);
  }
}

// A launch with a bad index fails, and reads nothing outside.
TEST(Take, RaisesAnIndexOutside) {
  Rng rng(3);
  for (const int64_t bad : {int64_t{3}, int64_t{-1}, INT64_MIN, INT64_MAX}) {
    TestInstruction test(Opcode::kTake);
    test.Tensor(isa::take::kX, DType::kF32, {3}, std::vector<float>{1, 2, 3});
    test.Tensor(isa::take::kIndex, DType::kI64, {2}, std::vector<int64_t>{2, bad});
    test.Tensor(isa::take::kY, DType::kF32, {2}, std::vector<float>{0, 0});
    test.Run(kernels::ScalarKernels(), rng);
    EXPECT_EQ(test.Fault(), "take b2: index " + std::to_string(bad) + " is not in [0, 3)");
    EXPECT_EQ(test.Read<float>(isa::take::kY)[0], 3);
  }
}

// Where x has no elements there is nothing to go on with but zeros.
TEST(Take, TakesNothingFromNothing) {
  Rng rng(4);
  for (const IndexPolicy policy : {IndexPolicy::kError, IndexPolicy::kWrap, IndexPolicy::kClamp}) {
    TestInstruction test(Opcode::kTake);
    test.Tensor(isa::take::kX, DType::kF32, {0, 2}, std::vector<float>{});
    test.Tensor(isa::take::kIndex, DType::kI64, {1}, std::vector<int64_t>{0});
    test.Tensor(isa::take::kY, DType::kF32, {1, 2}, std::vector<float>{5, 5});
    test.Integer(isa::take::kPolicy, static_cast<int64_t>(policy));
    test.Run(kernels::ScalarKernels(), rng);
    EXPECT_NE(test.Fault(), "");
    EXPECT_EQ(test.Read<float>(isa::take::kY), (std::vector<float>{0, 0}));
  }
}

// Dimensions no larger than those of `dims`, but for `axis`.
Place Smaller(Rng& rng, const Place& dims, size_t axis) {
  Place smaller = dims;
  for (size_t d = 0; d < dims.size(); ++d)
    smaller[d] =
        static_cast<int64_t>(1 + rng.Below(d == axis ? 7 : static_cast<uint64_t>(dims[d])));
  return smaller;
}

TEST(TakeAlong, TakesOneElementForEachIndex) {
  Rng rng(5);
  for (int round = 0; round < 150; ++round) {
    const Place x_dims = RandomDims(rng, 1 + rng.Below(4), 6);
    const size_t axis = rng.Below(x_dims.size());
    const Place y_dims = Smaller(rng, x_dims, axis);
    const IndexPolicy policy = RandomPolicy(rng);
    const std::vector<int64_t> x = RandomValues<int64_t>(rng, Count(x_dims), 30000);
    const std::vector<int64_t> index = RandomIndices(rng, Count(y_dims), x_dims[axis], policy);
    TestInstruction test(Opcode::kTakeAlong);
    test.Tensor(isa::take_along::kX, DType::kI64, x_dims, x);
    SetIndex(test, rng, isa::take_along::kIndex, y_dims, index);
    std::vector<int64_t> expected(index.size());
    test.Tensor(isa::take_along::kY, DType::kI64, y_dims, expected);
    test.Integer(isa::take_along::kAxis, static_cast<int64_t>(axis));
    test.Integer(isa::take_along::kPolicy, static_cast<int64_t>(policy));
    for (size_t i = 0; i < expected.size(); ++i) {
      Place from = PlaceOf(y_dims, static_cast<int64_t>(i));
      from[axis] = Inside(index[i], x_dims[axis], policy);
      expected[i] = x[IndexOf(x_dims, from)];
    }
    test.Run(kernels::ScalarKernels(), rng);
    EXPECT_EQ(test.Read<int64_t>(isa::take_along::kY), expected) << "round " << round;
    EXPECT_EQ(test.Fault(), "");
  }
}

// Random tuples of indices into axes begin, begin + 1 ... of x.
std::vector<int64_t> RandomTuples(Rng& rng, int64_t tuples, const Place& axes, IndexPolicy policy) {
  std::vector<int64_t> indices;
  for (int64_t t = 0; t < tuples; ++t)
    for (const int64_t n : axes) indices.push_back(RandomIndices(rng, 1, n, policy)[0]);
  return indices;
}

// Where tuple `tuple` leads to.
Place Named(const std::vector<int64_t>& indices, size_t tuple, const Place& axes,
            IndexPolicy policy) {
  Place place;
  for (size_t i = 0; i < axes.size(); ++i)
    place.push_back(Inside(indices[tuple * axes.size() + i], axes[i], policy));
  return place;
}

TEST(GatherNd, TakesTheSlicesOfTuples) {
  Rng rng(6);
  for (int round = 0; round < 200; ++round) {
    const Place x_dims = RandomDims(rng, 1 + rng.Below(5), 5);
    const size_t batch = rng.Below(std::min<size_t>(x_dims.size(), 3));
    const size_t depth = rng.Below(x_dims.size() - batch + 1);
    const Place axes = Part(x_dims, batch, batch + depth);
    const Place batch_dims = Part(x_dims, 0, batch);
    const Place tuple_dims = Joined(batch_dims, RandomDims(rng, rng.Below(3), 4));
    const Place index_dims = Joined(tuple_dims, {static_cast<int64_t>(depth)});
    const Place y_dims = Joined(tuple_dims, Part(x_dims, batch + depth, x_dims.size()));
    const IndexPolicy policy = RandomPolicy(rng);
    const std::vector<int32_t> x = RandomValues<int32_t>(rng, Count(x_dims), 30000);
    const std::vector<int64_t> index = RandomTuples(rng, Count(tuple_dims), axes, policy);
    TestInstruction test(Opcode::kGatherNd);
    test.Tensor(isa::gather_nd::kX, DType::kI32, x_dims, x);
    SetIndex(test, rng, isa::gather_nd::kIndex, index_dims, index);
    std::vector<int32_t> expected(static_cast<size_t>(Count(y_dims)));
    test.Tensor(isa::gather_nd::kY, DType::kI32, y_dims, expected);
    test.Integer(isa::gather_nd::kBatchDims, static_cast<int64_t>(batch));
    test.Integer(isa::gather_nd::kPolicy, static_cast<int64_t>(policy));
    for (size_t i = 0; i < expected.size(); ++i) {
      const Place place = PlaceOf(y_dims, static_cast<int64_t>(i));
      const size_t tuple = IndexOf(tuple_dims, Part(place, 0, tuple_dims.size()));
      const Place from = Joined(Joined(Part(place, 0, batch), Named(index, tuple, axes, policy)),
                                Part(place, tuple_dims.size(), place.size()));
      expected[i] = x[IndexOf(x_dims, from)];
    }
    test.Run(kernels::ScalarKernels(), rng);
    EXPECT_EQ(test.Read<int32_t>(isa::gather_nd::kY), expected) << "round " << round;
    EXPECT_EQ(test.Fault(), "");
  }
}

// ---- scatter ----

template <typename T>
T Scattered(T old, T update, Scattering scattering) {
  switch (scattering) {
    case Scattering::kSet:
      return update;
    case Scattering::kAdd:
      return static_cast<T>(old + update);
    case Scattering::kMul:
      return static_cast<T>(old * update);
    case Scattering::kMax:
      return std::max(old, update);
    case Scattering::kMin:
      return std::min(old, update);
  }
  return old;
}

template <typename T>
void ScatterElements(Rng& rng, DType type) {
  const Place y_dims = RandomDims(rng, 1 + rng.Below(4), 6);
  const size_t axis = rng.Below(y_dims.size());
  const Place dims = Smaller(rng, y_dims, axis);
  const IndexPolicy policy = RandomPolicy(rng);
  const auto scattering = static_cast<Scattering>(rng.Below(kScatteringCount));
  const std::vector<T> x = RandomValues<T>(rng, Count(y_dims), 7);
  const std::vector<T> updates = RandomValues<T>(rng, Count(dims), 7);
  const std::vector<int64_t> index = RandomIndices(rng, Count(dims), y_dims[axis], policy);
  TestInstruction test(Opcode::kScatter);
  SetIndex(test, rng, isa::scatter::kIndex, dims, index);
  test.Tensor(isa::scatter::kUpdates, type, dims, updates);
  test.Tensor(isa::scatter::kY, type, y_dims, x);
  test.Integer(isa::scatter::kMode, static_cast<int64_t>(ScatterMode::kElements));
  test.Integer(isa::scatter::kAxis, static_cast<int64_t>(axis));
  test.Integer(isa::scatter::kReduction, static_cast<int64_t>(scattering));
  test.Integer(isa::scatter::kPolicy, static_cast<int64_t>(policy));
  std::vector<T> expected = x;
  for (size_t i = 0; i < updates.size(); ++i) {
    Place to = PlaceOf(dims, static_cast<int64_t>(i));
    to[axis] = Inside(index[i], y_dims[axis], policy);
    T& element = expected[IndexOf(y_dims, to)];
    element = Scattered(element, updates[i], scattering);
  }
  test.Run(kernels::ScalarKernels(), rng);
  EXPECT_EQ(test.Read<T>(isa::scatter::kY), expected) << Name(type);
  EXPECT_EQ(test.Fault(), "");
}

template <typename T>
void ScatterNd(Rng& rng, DType type) {
  const Place y_dims = RandomDims(rng, 1 + rng.Below(4), rng.Below(4) == 0 ? 17 : 5);
  const size_t depth = rng.Below(y_dims.size() + 1);
  const Place axes = Part(y_dims, 0, depth);
  const Place tuple_dims = RandomDims(rng, rng.Below(3), 5);
  const Place dims = Joined(tuple_dims, Part(y_dims, depth, y_dims.size()));
  const IndexPolicy policy = RandomPolicy(rng);
  const auto scattering = static_cast<Scattering>(rng.Below(kScatteringCount));
  const std::vector<T> x = RandomValues<T>(rng, Count(y_dims), 7);
  const std::vector<T> updates = RandomValues<T>(rng, Count(dims), 7);
  const std::vector<int64_t> index = RandomTuples(rng, Count(tuple_dims), axes, policy);
  TestInstruction test(Opcode::kScatter);
  SetIndex(test, rng, isa::scatter::kIndex, Joined(tuple_dims, {static_cast<int64_t>(depth)}),
           index);
  test.Tensor(isa::scatter::kUpdates, type, dims, updates);
  test.Tensor(isa::scatter::kY, type, y_dims, x);
  test.Integer(isa::scatter::kMode, static_cast<int64_t>(ScatterMode::kNd));
  test.Integer(isa::scatter::kReduction, static_cast<int64_t>(scattering));
  test.Integer(isa::scatter::kPolicy, static_cast<int64_t>(policy));
  std::vector<T> expected = x;
  for (size_t i = 0; i < updates.size(); ++i) {
    const Place place = PlaceOf(dims, static_cast<int64_t>(i));
    const size_t tuple = IndexOf(tuple_dims, Part(place, 0, tuple_dims.size()));
    const Place to =
        Joined(Named(index, tuple, axes, policy), Part(place, tuple_dims.size(), place.size()));
    T& element = expected[IndexOf(y_dims, to)];
    element = Scattered(element, updates[i], scattering);
  }
  test.Run(kernels::ScalarKernels(), rng);
  EXPECT_EQ(test.Read<T>(isa::scatter::kY), expected) << Name(type);
  EXPECT_EQ(test.Fault(), "");
}

TEST(Scatter, ChangesElementsInOrder) {
  Rng rng(7);
  for (int round = 0; round < 100; ++round) {
    ScatterElements<float>(rng, DType::kF32);
    ScatterElements<int8_t>(rng, DType::kI8);
    ScatterElements<uint16_t>(rng, DType::kU16);
    ScatterElements<int64_t>(rng, DType::kI64);
    ScatterNd<double>(rng, DType::kF64);
    ScatterNd<int16_t>(rng, DType::kI16);
    ScatterNd<uint32_t>(rng, DType::kU32);
    ScatterNd<uint8_t>(rng, DType::kU8);
  }
}

TEST(Scatter, TakesHalvesAndNan) {
  Rng rng(8);
  const auto run = [&](DType type, Scattering scattering, auto x, auto updates) {
    TestInstruction test(Opcode::kScatter);
    test.Tensor(isa::scatter::kIndex, DType::kI64, {2, 1}, std::vector<int64_t>{1, 1});
    test.Tensor(isa::scatter::kUpdates, type, {2}, updates);
    test.Tensor(isa::scatter::kY, type, {2}, x);
    test.Integer(isa::scatter::kMode, static_cast<int64_t>(ScatterMode::kNd));
    test.Integer(isa::scatter::kReduction, static_cast<int64_t>(scattering));
    test.Run(kernels::ScalarKernels(), rng);
    return test.Read<typename decltype(x)::value_type>(isa::scatter::kY);
  };
  const auto half = [](float value) { return F32ToF16(value); };
  EXPECT_EQ(run(DType::kF16, Scattering::kAdd, std::vector{half(1), half(2)},
                std::vector{half(0.5f), half(-4)})[1],
            half(-1.5f));
  EXPECT_EQ(run(DType::kBf16, Scattering::kMul, std::vector{F32ToBf16(1), F32ToBf16(2)},
                std::vector{F32ToBf16(3), F32ToBf16(-4)})[1],
            F32ToBf16(-24));
  for (const Scattering scattering : {Scattering::kMax, Scattering::kMin})
    EXPECT_TRUE(std::isnan(
        run(DType::kF32, scattering, std::vector{0.0f, 1.0f}, std::vector{NAN, 2.0f})[1]));
}

TEST(Scatter, RaisesAnIndexOutside) {
  Rng rng(9);
  for (const ScatterMode mode : {ScatterMode::kElements, ScatterMode::kNd}) {
    TestInstruction test(Opcode::kScatter);
    test.Tensor(isa::scatter::kIndex, DType::kI32,
                mode == ScatterMode::kNd ? Place{2, 1} : Place{2}, std::vector<int32_t>{1, 7});
    test.Tensor(isa::scatter::kUpdates, DType::kF32, {2}, std::vector<float>{8, 9});
    test.Tensor(isa::scatter::kY, DType::kF32, {2}, std::vector<float>{1, 2});
    test.Integer(isa::scatter::kMode, static_cast<int64_t>(mode));
    test.Run(kernels::ScalarKernels(), rng);
    EXPECT_EQ(test.Fault(), "scatter b2: index 7 is not in [0, 2)");
    EXPECT_EQ(test.Read<float>(isa::scatter::kY)[1], 8);
  }
}

}  // namespace
}  // namespace millpower::device::cpu
