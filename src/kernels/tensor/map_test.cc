// Broadcasting, strides, ranges and sizes of maps against a naive walk over coordinates.
#include "kernels/tensor/map.h"

#include <algorithm>

#include "kernels/tensor/test_values.h"

namespace millpower::kernels {
namespace {

struct Layout {
  AxisStrides strides{};
  int64_t elements = 1;  // of the memory behind it
};

// Row-major over the axes that are not broadcast; `gap` more elements after each row of the last.
Layout MakeLayout(int rank, const AxisSizes& dims, uint32_t broadcast, int64_t gap) {
  Layout layout;
  for (int axis = rank - 1; axis >= 0; --axis) {
    const auto at = static_cast<size_t>(axis);
    if ((broadcast >> axis & 1) != 0) continue;
    layout.strides[at] = layout.elements;
    layout.elements *= dims[at];
    if (axis == rank - 1) layout.elements += gap;
  }
  return layout;
}

int64_t OffsetOf(const AxisSizes& coordinates, const AxisStrides& strides) {
  int64_t offset = 0;
  for (size_t axis = 0; axis < coordinates.size(); ++axis)
    offset += coordinates[axis] * strides[axis];
  return offset;
}

AxisSizes CoordinatesOf(int64_t element, int rank, const AxisSizes& dims) {
  AxisSizes coordinates{};
  for (int axis = rank - 1; axis >= 0; --axis) {
    const auto at = static_cast<size_t>(axis);
    coordinates[at] = element % dims[at];
    element /= dims[at];
  }
  return coordinates;
}

// y = x0 + x1 * (coordinate along `axis` + size 1), all in `type` - by i32, so that it is exact.
Expression AffineExpression(DType type, int axis) {
  Expression e;
  const int16_t x0 = e.Load(0, type), x1 = e.Load(1, type);
  const int16_t sum = e.Apply(MapOp::kAdd, DType::kI64, {e.Index(axis), e.Size(1)});
  const int16_t factor = e.Apply(MapOp::kCast, type, {sum});
  e.Apply(MapOp::kAdd, type, {x0, e.Apply(MapOp::kMul, type, {x1, factor})});
  return e;
}

struct Case {
  int rank = 0;
  AxisSizes dims{};
  int axis = 0;
  DType type = DType::kI32;
  Layout x[2], y;
};

Case RandomCase(Rng& rng) {
  Case c;
  c.rank = 1 + static_cast<int>(rng.Below(5));
  int64_t room = 3000;
  for (int axis = 0; axis < c.rank; ++axis) {
    const int64_t dim = 1 + static_cast<int64_t>(rng.Below(rng.Below(3) == 0 ? 900 : 6));
    c.dims[static_cast<size_t>(axis)] = std::max<int64_t>(1, std::min(dim, room));
    room /= c.dims[static_cast<size_t>(axis)];
  }
  c.axis = static_cast<int>(rng.Below(static_cast<uint64_t>(c.rank)));
  constexpr DType kTypes[] = {DType::kI32, DType::kU8,  DType::kI64,
                              DType::kF16, DType::kF32, DType::kI16};
  c.type = kTypes[rng.Below(6)];
  for (Layout& x : c.x)
    x = MakeLayout(c.rank, c.dims, static_cast<uint32_t>(rng.Below(4) == 0 ? 0 : rng.Below(32)),
                   static_cast<int64_t>(rng.Below(2) * rng.Below(4)));
  c.y = MakeLayout(c.rank, c.dims, 0, static_cast<int64_t>(rng.Below(2) * rng.Below(4)));
  return c;
}

Number Affine(const Number& x0, const Number& x1, int64_t factor, DType type) {
  if (!IsReal(type)) {
    const Integer product = Wrap(x1.integer * Wrap(factor, type), type);
    return Number::Of(Wrap(x0.integer + product, type));
  }
  const Number f = Rounded(Number::Of(static_cast<long double>(factor)), type);
  const Number product = Rounded(Number::Of(x1.real * f.real), type);
  return Rounded(Number::Of(x0.real + product.real), type);
}

TEST(Map, BroadcastsAsANaiveWalkDoes) {
  Rng rng(20);
  for (int round = 0; round < 600; ++round) {
    SCOPED_TRACE(round);
    const Case c = RandomCase(rng);
    const MapKernel kernel(ElementKernelsOf(*AvailableKernels().front()),
                           AffineExpression(c.type, c.axis));
    const TestTensor x0 = RandomTensor(rng, c.type, c.x[0].elements);
    const TestTensor x1 = RandomTensor(rng, c.type, c.x[1].elements);
    TestTensor y(c.type, c.y.elements), untouched(c.type, c.y.elements);
    const MapTensors tensors{.rank = c.rank,
                             .dims = c.dims,
                             .y = y.data(),
                             .y_strides = c.y.strides,
                             .x = {x0.data(), x1.data()},
                             .x_strides = {c.x[0].strides, c.x[1].strides}};
    int64_t elements = 1;
    for (int axis = 0; axis < c.rank; ++axis) elements *= c.dims[static_cast<size_t>(axis)];
    const int64_t sizes[] = {-1, 5};
    // In ranges that begin anywhere.
    for (int64_t begin = 0; begin < elements;) {
      const int64_t end =
          std::min(elements, begin + 1 + static_cast<int64_t>(rng.Below(2) * rng.Below(2000)) +
                                 (rng.Below(2) == 0 ? 700 : 0));
      kernel.Run(tensors, sizes, begin, end);
      begin = end;
    }
    for (int64_t i = 0; i < elements; ++i) {
      const AxisSizes at = CoordinatesOf(i, c.rank, c.dims);
      const Number expected =
          Affine(x0.at(OffsetOf(at, c.x[0].strides)), x1.at(OffsetOf(at, c.x[1].strides)),
                 at[static_cast<size_t>(c.axis)] + 5, c.type);
      const Number got = y.at(OffsetOf(at, c.y.strides));
      untouched.Set(OffsetOf(at, c.y.strides), got);
      ASSERT_TRUE(got.integer == expected.integer && !(got.real != expected.real))
          << i << " of " << elements << ": " << static_cast<double>(got.AsReal()) << ", not "
          << static_cast<double>(expected.AsReal());
    }
    ASSERT_EQ(y.bytes(), untouched.bytes()) << "wrote beside the result";
  }
}

// A bias for each column, a factor for each row, and a scalar: what models are made of.
TEST(Map, RowsColumnsAndScalars) {
  Expression e;
  const int16_t scaled =
      e.Apply(MapOp::kMul, DType::kF32, {e.Load(0, DType::kF32), e.Load(1, DType::kF32)});
  const int16_t biased = e.Apply(MapOp::kAdd, DType::kF32, {scaled, e.Load(2, DType::kF32)});
  e.Apply(MapOp::kMax, DType::kF32, {biased, e.Load(3, DType::kF32)});
  for (const int64_t cols : {1, 7, 16, 300, 512, 513, 1200}) {
    const int64_t rows = 3000 / cols + 2;
    Rng rng(cols);
    const TestTensor x = RandomTensor(rng, DType::kF32, rows * cols);
    const TestTensor row = RandomTensor(rng, DType::kF32, cols);
    const TestTensor column = RandomTensor(rng, DType::kF32, rows);
    const TestTensor scalar = RandomTensor(rng, DType::kF32, 1);
    TestTensor y(DType::kF32, rows * cols);
    MapTensors tensors{.rank = 2, .dims = {rows, cols}, .y = y.data(), .y_strides = {cols, 1}};
    tensors.x = {x.data(), column.data(), row.data(), scalar.data()};
    tensors.x_strides = {{{cols, 1}, {1, 0}, {0, 1}, {0, 0}}};
    MapKernel(ElementKernelsOf(ScalarKernels()), e).Run(tensors, {}, 0, rows * cols);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const auto value = [](const TestTensor& t, int64_t at) {
        return static_cast<float>(t.at(at).real);
      };
      const float expected =
          std::max(value(x, i) * value(column, i / cols) + value(row, i % cols), value(scalar, 0));
      ASSERT_EQ(value(y, i), expected) << i;
    }
  }
}

TEST(Map, WritesOverAnOperandOfItsOwnLayout) {
  Expression e;
  const int16_t x = e.Load(0, DType::kF32);
  const int16_t twice = e.Apply(MapOp::kAdd, DType::kF32, {x, x});
  e.Apply(MapOp::kSub, DType::kF32, {e.Load(1, DType::kF32), twice});
  Rng rng(4);
  TestTensor a = RandomTensor(rng, DType::kF32, 2000);
  const TestTensor b = RandomTensor(rng, DType::kF32, 2000), before = a;
  MapTensors tensors{.rank = 1, .dims = {2000}, .y = a.data(), .y_strides = {1}};
  tensors.x = {a.data(), b.data()};
  tensors.x_strides = {{{1}, {1}}};
  MapKernel(ElementKernelsOf(*AvailableKernels().front()), e).Run(tensors, {}, 0, 2000);
  for (int64_t i = 0; i < 2000; ++i)
    ASSERT_EQ(a.at(i).real, static_cast<float>(b.at(i).real - 2 * before.at(i).real)) << i;
}

// The result is an operand, a constant, a coordinate or a size; terms are loaded twice or unused.
TEST(Map, ResultsThatNothingComputes) {
  const auto run = [](const Expression& e, DType type, const TestTensor& x) {
    TestTensor y(type, 1500);
    MapTensors tensors{.rank = 2, .dims = {3, 500}, .y = y.data(), .y_strides = {500, 1}};
    tensors.x[0] = x.data();
    tensors.x_strides[0] = {0, 1};
    const int64_t sizes[] = {42};
    MapKernel(ElementKernelsOf(ScalarKernels()), e).Run(tensors, sizes, 0, 1500);
    return y;
  };
  Rng rng(6);
  for (const DType type : kElementTypes) {
    SCOPED_TRACE(Name(type));
    const TestTensor x = RandomTensor(rng, type, 500);
    Expression load;
    load.Load(0, type);
    load.Apply(MapOp::kEqual, DType::kBool, {0, 0});  // unused
    load.Load(0, type);
    const TestTensor y = run(load, type, x);
    for (int64_t i = 0; i < 1500; ++i) ASSERT_EQ(y.at(i).AsReal(), x.at(i % 500).AsReal()) << i;

    Expression constant;
    if (IsReal(type))
      constant.Constant(type, 1 + 0x1p-11 + 0x1p-40);
    else
      constant.Constant(type, int64_t{-3});
    const Number expected = IsReal(type)
                                ? Rounded(Number::Of(type == DType::kF16   ? 1 + 0x1p-10L
                                                     : type == DType::kF64 ? 1 + 0x1p-11L + 0x1p-40L
                                                                           : 1 + 0x1p-11L),
                                          type)
                            : type == DType::kBool ? Number::Of(Integer{1})
                                                   : Number::Of(Wrap(-3, type));
    const TestTensor filled = run(constant, type, x);
    for (int64_t i = 0; i < 1500; ++i) ASSERT_EQ(filled.at(i).AsReal(), expected.AsReal()) << i;
  }
  const TestTensor x = RandomTensor(rng, DType::kF32, 500);
  Expression index, size;
  index.Index(0);
  size.Size(0);
  const TestTensor y = run(index, DType::kI64, x), z = run(size, DType::kI64, x);
  for (int64_t i = 0; i < 1500; ++i) {
    ASSERT_EQ(static_cast<int64_t>(y.at(i).integer), i / 500);
    ASSERT_EQ(static_cast<int64_t>(z.at(i).integer), 42);
  }
}

// As many terms as there may be, all alive to the end.
TEST(Map, OfSixtyFourTerms) {
  Expression e;
  std::vector<int16_t> alive = {e.Load(0, DType::kF64)};
  while (alive.size() < 32)
    alive.push_back(e.Apply(MapOp::kAdd, DType::kF64, {alive.back(), alive[0]}));
  int16_t sum = alive[0];
  for (size_t i = 1; i < alive.size(); ++i)
    sum = e.Apply(MapOp::kAdd, DType::kF64, {sum, alive[i]});
  e.Apply(MapOp::kNeg, DType::kF64, {sum});
  ASSERT_EQ(e.terms.size(), size_t{kMaxTerms});
  TestTensor x(DType::kF64, 1000), y(DType::kF64, 1000);
  for (int64_t i = 0; i < 1000; ++i) x.Set(i, Number::Of(static_cast<long double>(i)));
  MapTensors tensors{.rank = 1, .dims = {1000}, .y = y.data(), .y_strides = {1}};
  tensors.x[0] = x.data();
  tensors.x_strides[0] = {1};
  MapKernel(ElementKernelsOf(ScalarKernels()), e).Run(tensors, {}, 0, 1000);
  for (int64_t i = 0; i < 1000; ++i)
    ASSERT_EQ(y.at(i).real, static_cast<long double>(-i * 33 * 16)) << i;
}

TEST(Nest, MergesWhatLiesInOrder) {
  const AxisSizes dims = {4, 1, 5, 6};
  const AxisStrides contiguous = {30, 30, 6, 1}, bias = {0, 0, 0, 1};
  const Nest one = MakeNest(4, dims, std::span(&contiguous, 1));
  EXPECT_EQ(one.rank, 1);
  EXPECT_EQ(one.inner(), 120);
  EXPECT_TRUE(one.IsLinear(0));
  const AxisStrides both[] = {contiguous, bias};
  const Nest two = MakeNest(4, dims, both);
  EXPECT_EQ(two.rank, 2);
  EXPECT_EQ(two.dims[0], 20);
  EXPECT_FALSE(two.IsLinear(1));
  const Nest some = MakeNest(4, dims, std::span(&contiguous, 1), 0b0101);
  EXPECT_EQ(some.Elements(), 20);
  EXPECT_EQ(some.inner_stride(0), 6);
  const Nest none = MakeNest(4, dims, std::span(&contiguous, 1), 0b0010);
  EXPECT_EQ(none.rank, 1);
  EXPECT_EQ(none.inner(), 1);
}

}  // namespace
}  // namespace millpower::kernels
