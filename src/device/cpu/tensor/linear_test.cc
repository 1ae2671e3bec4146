#include <cmath>

#include "device/cpu/tensor/test_instruction.h"
#include "device/cpu/tensor/test_shapes.h"
#include "kernels/tensor/element.h"

namespace millpower::device::cpu {
namespace {

using isa::Opcode;

// The i-th draw of a type: small integers, which sums keep exact, or reals.
template <DType kType>
std::vector<typename kernels::Element<kType>::Stored> Draw(Rng& rng, int64_t count, bool exact) {
  using E = kernels::Element<kType>;
  std::vector<typename E::Stored> values(static_cast<size_t>(count));
  for (auto& value : values) {
    const double real =
        exact ? static_cast<double>(rng.Below(7)) - (std::is_unsigned_v<typename E::Number> ? 0 : 3)
              : rng.Uniform(-1, 1);
    value = E::Round(static_cast<typename E::Number>(real));
  }
  return values;
}

// ---- contract ----

struct ContractCase {
  Place a_dims, b_dims, y_dims, leading;
  bool transpose_a, transpose_b;
  int64_t m, k, n;
};

// Leading dimensions of y, of which each operand has some, or 1 in their place.
Place Reduced(Rng& rng, const Place& leading) {
  Place dims = Part(leading, rng.Below(leading.size() + 1), leading.size());
  for (int64_t& dim : dims)
    if (rng.Below(3) == 0) dim = 1;
  return dims;
}

ContractCase RandomContract(Rng& rng, int64_t max) {
  ContractCase c;
  const auto size = [&] {
    return static_cast<int64_t>(rng.Below(4) == 0 ? 1 : 1 + rng.Below(static_cast<uint64_t>(max)));
  };
  c.m = size();
  c.k = size();
  c.n = size();
  c.transpose_a = rng.Below(2) != 0;
  c.transpose_b = rng.Below(2) != 0;
  c.leading = RandomDims(rng, rng.Below(4), 3);
  c.a_dims = Reduced(rng, c.leading);
  c.b_dims = Reduced(rng, c.leading);
  // What both lack is no dimension of y.
  Place leading(std::max(c.a_dims.size(), c.b_dims.size()), 1);
  for (const Place* dims : {&c.a_dims, &c.b_dims})
    for (size_t i = 1; i <= dims->size(); ++i) {
      int64_t& dim = leading[leading.size() - i];
      dim = std::max(dim, (*dims)[dims->size() - i]);
    }
  c.leading = leading;
  c.a_dims = Joined(c.a_dims, c.transpose_a ? Place{c.k, c.m} : Place{c.m, c.k});
  c.b_dims = Joined(c.b_dims, c.transpose_b ? Place{c.n, c.k} : Place{c.k, c.n});
  c.y_dims = Joined(c.leading, {c.m, c.n});
  return c;
}

// The place of a product in an operand whose leading dimensions broadcast.
Place Broadcast(const Place& dims, const Place& leading, int64_t row, int64_t col) {
  Place place(dims.size());
  for (size_t d = 0; d + 2 < dims.size(); ++d)
    place[d] = dims[d] == 1 ? 0 : leading[leading.size() - (dims.size() - 2) + d];
  place[dims.size() - 2] = row;
  place[dims.size() - 1] = col;
  return place;
}

template <DType kType>
void ContractOnce(Rng& rng, int64_t max, bool exact) {
  using E = kernels::Element<kType>;
  const ContractCase c = RandomContract(rng, max);
  const auto a = Draw<kType>(rng, Count(c.a_dims), exact);
  const auto b = Draw<kType>(rng, Count(c.b_dims), exact);
  TestInstruction test(Opcode::kContract);
  test.Tensor(isa::contract::kA, kType, c.a_dims, a);
  test.Tensor(isa::contract::kB, kType, c.b_dims, b);
  test.Tensor(isa::contract::kY, kType, c.y_dims,
              std::vector<typename E::Stored>(static_cast<size_t>(Count(c.y_dims))));
  test.Integer(isa::contract::kTransposeA, c.transpose_a);
  test.Integer(isa::contract::kTransposeB, c.transpose_b);
  std::vector<typename E::Stored> expected;
  for (int64_t i = 0; i < Count(c.y_dims); ++i) {
    const Place place = PlaceOf(c.y_dims, i);
    const Place leading = Part(place, 0, place.size() - 2);
    const int64_t row = place[place.size() - 2], col = place.back();
    typename E::Number sum = 0;
    for (int64_t k = 0; k < c.k; ++k) {
      const auto x =
          E::Widen(a[IndexOf(c.a_dims, Broadcast(c.a_dims, leading, c.transpose_a ? k : row,
                                                 c.transpose_a ? row : k))]);
      const auto w =
          E::Widen(b[IndexOf(c.b_dims, Broadcast(c.b_dims, leading, c.transpose_b ? col : k,
                                                 c.transpose_b ? k : col))]);
      if constexpr (std::is_same_v<typename E::Number, float>)
        sum = std::fma(x, w, sum);
      else
        sum = static_cast<typename E::Number>(sum + x * w);
    }
    expected.push_back(E::Round(sum));
  }
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    test.Write(isa::contract::kY, std::vector<typename E::Stored>(expected.size()));
    test.Run(*set, rng);
    const auto y = test.Read<typename E::Stored>(isa::contract::kY);
    EXPECT_EQ(TestInstruction::BytesOf(y), TestInstruction::BytesOf(expected))
        << Name(kType) << " " << set->name << " m " << c.m << " k " << c.k << " n " << c.n << " "
        << c.transpose_a << c.transpose_b;
  }
}

TEST(Contract, HasTheBitsOfOneSumInOrder) {
  Rng rng(1);
  for (int round = 0; round < 150; ++round) ContractOnce<DType::kF32>(rng, 40, false);
  for (int round = 0; round < 6; ++round) ContractOnce<DType::kF32>(rng, 150, false);
  for (int round = 0; round < 40; ++round) {
    ContractOnce<DType::kF64>(rng, 40, false);
    ContractOnce<DType::kF16>(rng, 90, false);
    ContractOnce<DType::kBf16>(rng, 90, false);
    ContractOnce<DType::kI8>(rng, 40, true);
    ContractOnce<DType::kI16>(rng, 40, true);
    ContractOnce<DType::kI32>(rng, 40, true);
    ContractOnce<DType::kI64>(rng, 40, true);
    ContractOnce<DType::kU8>(rng, 40, true);
    ContractOnce<DType::kU16>(rng, 40, true);
    ContractOnce<DType::kU32>(rng, 40, true);
    ContractOnce<DType::kU64>(rng, 40, true);
  }
}

// More steps than are laid out together, and more columns and rows.
TEST(Contract, CutsLongSums) {
  Rng rng(9);
  for (const bool transpose_b : {false, true}) {
    for (const Place& mkn : {Place{33, 600, 300}, {150, 513, 7}}) {
      const int64_t m = mkn[0], k = mkn[1], n = mkn[2];
      const std::vector<float> a = RandomReals(rng, m * k), b = RandomReals(rng, k * n);
      TestInstruction test(Opcode::kContract);
      test.Tensor(isa::contract::kA, DType::kF32, {m, k}, a);
      test.Tensor(isa::contract::kB, DType::kF32, transpose_b ? Place{n, k} : Place{k, n}, b);
      test.Tensor(isa::contract::kY, DType::kF32, {m, n},
                  std::vector<float>(static_cast<size_t>(m * n)));
      test.Integer(isa::contract::kTransposeB, transpose_b);
      std::vector<float> expected(static_cast<size_t>(m * n));
      for (int64_t i = 0; i < m * n; ++i)
        for (int64_t s = 0; s < k; ++s)
          expected[static_cast<size_t>(i)] =
              std::fma(a[static_cast<size_t>(i / n * k + s)],
                       b[static_cast<size_t>(transpose_b ? i % n * k + s : s * n + i % n)],
                       expected[static_cast<size_t>(i)]);
      for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
        test.Run(*set, rng);
        EXPECT_EQ(test.Read<float>(isa::contract::kY), expected) << set->name;
      }
    }
  }
}

TEST(Contract, WrapsIntegersAround) {
  Rng rng(2);
  TestInstruction test(Opcode::kContract);
  test.Tensor(isa::contract::kA, DType::kI8, {1, 2}, std::vector<int8_t>{100, -128});
  test.Tensor(isa::contract::kB, DType::kI8, {2, 1}, std::vector<int8_t>{3, -128});
  test.Tensor(isa::contract::kY, DType::kI8, {1, 1}, std::vector<int8_t>{0});
  test.Run(kernels::ScalarKernels(), rng);
  EXPECT_EQ(test.Read<int8_t>(isa::contract::kY)[0], static_cast<int8_t>(300 + 16384));
}

TEST(Contract, TakesColumnsOfMatrices) {
  Rng rng(3);
  const int64_t m = 5, k = 7, n = 20;
  const std::vector<float> a = RandomReals(rng, m * 10), b = RandomReals(rng, k * 30);
  std::vector<float> y(m * 25, -1.0f);
  TestInstruction test(Opcode::kContract);
  test.Matrix(isa::contract::kA, DType::kF32, m, 10, 2, k, a);
  test.Matrix(isa::contract::kB, DType::kF32, k, 30, 3, n, b);
  test.Matrix(isa::contract::kY, DType::kF32, m, 25, 4, n, y);
  test.Run(*kernels::AvailableKernels().front(), rng);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t s = 0; s < k; ++s)
        sum = std::fma(a[static_cast<size_t>(i * 10 + 2 + s)],
                       b[static_cast<size_t>(s * 30 + 3 + j)], sum);
      y[static_cast<size_t>(i * 25 + 4 + j)] = sum;
    }
  EXPECT_EQ(test.Read<float>(isa::contract::kY), y);
}

// Sums over nothing are 0; products of nothing are none.
TEST(Contract, TakesEmptyOperands) {
  Rng rng(4);
  for (const Place& mkn : {Place{3, 0, 20}, {0, 4, 5}, {4, 4, 0}}) {
    TestInstruction test(Opcode::kContract);
    test.Tensor(isa::contract::kA, DType::kF32, {mkn[0], mkn[1]},
                RandomReals(rng, mkn[0] * mkn[1]));
    test.Tensor(isa::contract::kB, DType::kF32, {mkn[1], mkn[2]},
                RandomReals(rng, mkn[1] * mkn[2]));
    test.Tensor(isa::contract::kY, DType::kF32, {mkn[0], mkn[2]},
                RandomReals(rng, mkn[0] * mkn[2]));
    test.Run(*kernels::AvailableKernels().front(), rng);
    for (const float y : test.Read<float>(isa::contract::kY)) EXPECT_EQ(y, 0);
  }
}

// Whatever the number of threads that its rows are cut for.
TEST(MatMul, HasTheBitsOfOneSumInOrder) {
  Rng rng(10);
  for (const int64_t rows : {1, 63, 130, 400}) {
    for (const int64_t n : {5, 40, 300}) {
      const int64_t k = 11;
      const std::vector<float> x = RandomReals(rng, rows * k), w = RandomReals(rng, n * k);
      const std::vector<float> bias = RandomReals(rng, n);
      std::vector<std::byte> packed(static_cast<size_t>(isa::PackedBytes(n, k, DType::kF32)));
      for (int64_t i = 0; i < n * k; ++i)
        std::memcpy(packed.data() + isa::PackedOffset(i / k, i % k, k, DType::kF32),
                    &w[static_cast<size_t>(i)], 4);
      TestInstruction test(Opcode::kMatMul);
      test.Matrix(isa::matmul::kX, DType::kF32, rows, k, 0, k, x);
      test.Packed(isa::matmul::kW, n, k, packed);
      test.Matrix(isa::matmul::kBias, DType::kF32, 1, n, 0, n, bias);
      test.Matrix(isa::matmul::kY, DType::kF32, rows, n, 0, n,
                  std::vector<float>(static_cast<size_t>(rows * n)));
      test.Integer(isa::matmul::kEpilogue, static_cast<int64_t>(isa::Epilogue::kRelu));
      std::vector<float> expected;
      for (int64_t i = 0; i < rows * n; ++i) {
        float sum = 0;
        for (int64_t s = 0; s < k; ++s)
          sum = std::fma(x[static_cast<size_t>(i / n * k + s)],
                         w[static_cast<size_t>(i % n * k + s)], sum);
        expected.push_back(std::max(sum + bias[static_cast<size_t>(i % n)], 0.0f));
      }
      for (const int threads : {1, 2, 7}) {
        test.Write(isa::matmul::kY, std::vector<float>(expected.size()));
        test.Run(*kernels::AvailableKernels().front(), rng, threads);
        EXPECT_EQ(test.Read<float>(isa::matmul::kY), expected) << rows << " " << n;
      }
    }
  }
}

// ---- conv and pool ----

struct WindowCase {
  Place in, kernel, strides, dilations, pads_begin, pads_end, out;
};

WindowCase RandomWindow(Rng& rng, size_t rank, int64_t max) {
  WindowCase w;
  for (size_t d = 0; d < rank; ++d) {
    const auto draw = [&](uint64_t below) { return static_cast<int64_t>(rng.Below(below)); };
    w.kernel.push_back(1 + draw(4));
    w.dilations.push_back(1 + draw(3));
    w.strides.push_back(1 + draw(3));
    const int64_t reach = (w.kernel[d] - 1) * w.dilations[d] + 1;
    w.pads_begin.push_back(draw(static_cast<uint64_t>(reach)));
    w.pads_end.push_back(draw(3));
    const int64_t least = std::max<int64_t>(1, reach - w.pads_begin[d] - w.pads_end[d]);
    w.in.push_back(least + draw(static_cast<uint64_t>(max)));
    w.out.push_back((w.in[d] + w.pads_begin[d] + w.pads_end[d] - reach) / w.strides[d] + 1);
  }
  return w;
}

template <typename Attributes>
void SetWindow(TestInstruction& test, const WindowCase& w, Attributes strides,
               Attributes pads_begin, Attributes pads_end, Attributes dilations) {
  test.List(strides, w.strides);
  test.List(pads_begin, w.pads_begin);
  test.List(pads_end, w.pads_end);
  test.List(dilations, w.dilations);
}

// visit(place in x, in x or not, in the padding or x) of each tap, in order.
template <typename Visit>
void Taps(const WindowCase& w, const Place& out, const Visit& visit) {
  for (int64_t tap = 0; tap < Count(w.kernel); ++tap) {
    Place at = PlaceOf(w.kernel, tap);
    bool inside = true, padded = true;
    for (size_t d = 0; d < at.size(); ++d) {
      at[d] = out[d] * w.strides[d] - w.pads_begin[d] + at[d] * w.dilations[d];
      inside = inside && at[d] >= 0 && at[d] < w.in[d];
      padded = padded && at[d] >= -w.pads_begin[d] && at[d] < w.in[d] + w.pads_end[d];
    }
    visit(tap, at, inside, padded);
  }
}

template <DType kType>
void ConvOnce(Rng& rng, size_t rank, int64_t max, bool exact) {
  using E = kernels::Element<kType>;
  const WindowCase w = RandomWindow(rng, rank, max);
  const auto draw = [&](uint64_t below) { return static_cast<int64_t>(1 + rng.Below(below)); };
  const int64_t images = draw(2), groups = draw(3), in_channels = draw(5), out_channels = draw(9);
  const Place x_dims = Joined({images, groups * in_channels}, w.in);
  const Place w_dims = Joined({groups * out_channels, in_channels}, w.kernel);
  const Place y_dims = Joined({images, groups * out_channels}, w.out);
  const auto x = Draw<kType>(rng, Count(x_dims), exact);
  const auto weights = Draw<kType>(rng, Count(w_dims), exact);
  const auto bias = Draw<kType>(rng, groups * out_channels, exact);
  const bool with_bias = rng.Below(2) != 0;
  TestInstruction test(Opcode::kConv);
  test.Tensor(isa::conv::kX, kType, x_dims, x);
  test.Tensor(isa::conv::kW, kType, w_dims, weights);
  if (with_bias) test.Tensor(isa::conv::kBias, kType, {groups * out_channels}, bias);
  std::vector<typename E::Stored> expected(static_cast<size_t>(Count(y_dims)));
  test.Tensor(isa::conv::kY, kType, y_dims, expected);
  SetWindow(test, w, isa::conv::kStrides, isa::conv::kPadsBegin, isa::conv::kPadsEnd,
            isa::conv::kDilations);
  test.Integer(isa::conv::kGroups, groups);
  for (int64_t i = 0; i < Count(y_dims); ++i) {
    const Place place = PlaceOf(y_dims, i);
    const int64_t group = place[1] / out_channels;
    typename E::Number sum = 0;
    for (int64_t c = 0; c < in_channels; ++c)
      Taps(w, Part(place, 2, place.size()), [&](int64_t tap, const Place& at, bool inside, bool) {
        if (!inside) return;
        const auto value =
            E::Widen(x[IndexOf(x_dims, Joined({place[0], group * in_channels + c}, at))]);
        const auto weight = E::Widen(
            weights[static_cast<size_t>((place[1] * in_channels + c) * Count(w.kernel) + tap)]);
        if constexpr (kType == DType::kF32)
          sum = std::fma(weight, value, sum);
        else
          sum = static_cast<typename E::Number>(sum + value * weight);
      });
    if (with_bias)
      sum = static_cast<typename E::Number>(sum + E::Widen(bias[static_cast<size_t>(place[1])]));
    expected[static_cast<size_t>(i)] = E::Round(sum);
  }
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    test.Run(*set, rng);
    // == as numbers: what is outside adds 0 or nothing, which differ in the sign of a 0.
    const auto y = test.Read<typename E::Stored>(isa::conv::kY);
    for (size_t i = 0; i < y.size(); ++i)
      ASSERT_EQ(E::Widen(y[i]), E::Widen(expected[i]))
          << Name(kType) << " " << set->name << " " << i;
  }
}

TEST(Conv, HasTheBitsOfOneSumInOrder) {
  Rng rng(5);
  for (int round = 0; round < 60; ++round) {
    ConvOnce<DType::kF32>(rng, 1, 80, false);
    ConvOnce<DType::kF32>(rng, 2, 12, false);
    ConvOnce<DType::kF32>(rng, 3, 5, false);
    ConvOnce<DType::kF64>(rng, 2, 6, false);
    ConvOnce<DType::kF16>(rng, 2, 6, false);
    ConvOnce<DType::kI32>(rng, 2, 6, true);
    ConvOnce<DType::kI8>(rng, 1, 9, true);
  }
}

// More steps than are laid out together.
TEST(Conv, SumsManySteps) {
  Rng rng(6);
  const int64_t channels = 70, out = 9, in = 11;
  const std::vector<float> x = RandomReals(rng, channels * in * in);
  const std::vector<float> w = RandomReals(rng, out * channels * 9), bias = RandomReals(rng, out);
  TestInstruction test(Opcode::kConv);
  test.Tensor(isa::conv::kX, DType::kF32, {1, channels, in, in}, x);
  test.Tensor(isa::conv::kW, DType::kF32, {out, channels, 3, 3}, w);
  test.Tensor(isa::conv::kBias, DType::kF32, {out}, bias);
  test.Tensor(isa::conv::kY, DType::kF32, {1, out, 9, 9}, std::vector<float>(out * 81));
  for (const int list : {isa::conv::kStrides, isa::conv::kDilations}) test.List(list, {1, 1});
  for (const int list : {isa::conv::kPadsBegin, isa::conv::kPadsEnd}) test.List(list, {0, 0});
  test.Integer(isa::conv::kGroups, 1);
  std::vector<float> expected;
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < 81; ++i) {
      float sum = 0;
      for (int64_t s = 0; s < channels * 9; ++s)
        sum = std::fma(
            w[static_cast<size_t>(o * channels * 9 + s)],
            x[static_cast<size_t>(s / 9 * in * in + (i / 9 + s % 9 / 3) * in + i % 9 + s % 3)],
            sum);
      expected.push_back(sum + bias[static_cast<size_t>(o)]);
    }
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    test.Run(*set, rng);
    EXPECT_EQ(test.Read<float>(isa::conv::kY), expected) << set->name;
  }
}

template <DType kType>
void PoolOnce(Rng& rng, size_t rank, bool exact) {
  using E = kernels::Element<kType>;
  using Number = typename E::Number;
  WindowCase w = RandomWindow(rng, rank, 9);
  // As a ceiling would have it: the last window reaches beyond the padding.
  for (size_t d = 0; d < rank; ++d)
    if (rng.Below(2) != 0 && w.out[d] * w.strides[d] < w.in[d] + w.pads_begin[d]) ++w.out[d];
  const auto kind = static_cast<Pooling>(rng.Below(kPoolingCount));
  const bool count_padding = rng.Below(2) != 0;
  const Place x_dims = Joined({2, 3}, w.in), y_dims = Joined({2, 3}, w.out);
  const auto x = Draw<kType>(rng, Count(x_dims), exact);
  TestInstruction test(Opcode::kPool);
  test.Tensor(isa::pool::kX, kType, x_dims, x);
  const auto outputs = static_cast<size_t>(Count(y_dims));
  if (kind == Pooling::kArgMax)
    test.Tensor(isa::pool::kY, DType::kI64, y_dims, std::vector<int64_t>(outputs));
  else
    test.Tensor(isa::pool::kY, kType, y_dims, std::vector<typename E::Stored>(outputs));
  SetWindow(test, w, isa::pool::kStrides, isa::pool::kPadsBegin, isa::pool::kPadsEnd,
            isa::pool::kDilations);
  test.List(isa::pool::kKernel, w.kernel);
  test.Integer(isa::pool::kKind, static_cast<int64_t>(kind));
  test.Integer(isa::pool::kCountPadding, count_padding);
  test.Run(kernels::ScalarKernels(), rng);
  for (size_t i = 0; i < outputs; ++i) {
    const Place place = PlaceOf(y_dims, static_cast<int64_t>(i));
    int64_t best_at = -1, elements = 0, counted = 0;
    Number best{};
    // Small values: no sum wraps around.
    Number sum = 0;
    Taps(w, Part(place, 2, place.size()), [&](int64_t, const Place& at, bool inside, bool padded) {
      counted += padded ? 1 : 0;
      if (!inside) return;
      const auto from = IndexOf(x_dims, Joined({place[0], place[1]}, at));
      const Number value = E::Widen(x[from]);
      sum = static_cast<Number>(sum + value);
      ++elements;
      if (best_at >= 0 && value <= best) return;
      best = value;
      best_at = static_cast<int64_t>(from);
    });
    if (elements == 0) continue;
    if (kind == Pooling::kArgMax) {
      EXPECT_EQ(test.Read<int64_t>(isa::pool::kY)[i], best_at);
      continue;
    }
    const auto y = test.Read<typename E::Stored>(isa::pool::kY)[i];
    const Number expected =
        kind == Pooling::kMax ? best
        : kind == Pooling::kSum
            ? sum
            : static_cast<Number>(sum / static_cast<Number>(count_padding ? counted : elements));
    EXPECT_EQ(y, E::Round(expected)) << Name(kType) << " kind " << static_cast<int>(kind);
  }
}

TEST(Pool, ReducesWindows) {
  Rng rng(7);
  for (int round = 0; round < 40; ++round) {
    for (const size_t rank : {1, 2, 3}) PoolOnce<DType::kF32>(rng, rank, false);
    PoolOnce<DType::kF64>(rng, 2, false);
    PoolOnce<DType::kBf16>(rng, 2, false);
    PoolOnce<DType::kI32>(rng, 2, true);
    PoolOnce<DType::kI8>(rng, 1, true);
    PoolOnce<DType::kU8>(rng, 1, true);
  }
}

TEST(Pool, FindsTheFirstNan) {
  Rng rng(8);
  TestInstruction test(Opcode::kPool);
  test.Tensor(isa::pool::kX, DType::kF32, {1, 1, 4}, std::vector<float>{9, NAN, NAN, INFINITY});
  test.Tensor(isa::pool::kY, DType::kI64, {1, 1, 1}, std::vector<int64_t>{0});
  for (const int list : {isa::pool::kStrides, isa::pool::kDilations}) test.List(list, {1});
  for (const int list : {isa::pool::kPadsBegin, isa::pool::kPadsEnd}) test.List(list, {0});
  test.List(isa::pool::kKernel, {4});
  test.Integer(isa::pool::kKind, static_cast<int64_t>(Pooling::kArgMax));
  test.Run(kernels::ScalarKernels(), rng);
  EXPECT_EQ(test.Read<int64_t>(isa::pool::kY)[0], 1);
}

}  // namespace
}  // namespace millpower::device::cpu
