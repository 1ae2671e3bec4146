// Reductions, running sums, softmax and layer_norm against naive sums in long double.
#include "kernels/tensor/reduce.h"

#include <algorithm>

#include "kernels/tensor/rows.h"
#include "kernels/tensor/test_values.h"

namespace millpower::kernels {
namespace {

bool IsPlace(Reduction kind) {
  return kind >= Reduction::kArgMax && kind <= Reduction::kLastArgMin;
}
DType ResultType(Reduction kind, DType type) { return IsPlace(kind) ? DType::kI64 : type; }

bool IsLast(Reduction kind) {
  return kind == Reduction::kLastArgMax || kind == Reduction::kLastArgMin;
}
bool IsLargest(Reduction kind) {
  return kind == Reduction::kMax || kind == Reduction::kArgMax || kind == Reduction::kLastArgMax;
}

// Of a list that is not empty.
Number Reduced(Reduction kind, DType type, const std::vector<Number>& list) {
  if (IsPlace(kind) || kind == Reduction::kMax || kind == Reduction::kMin) {
    size_t best = 0;
    const auto is_nan = [](const Number& x) { return x.is_real && std::isnan(x.real); };
    for (size_t i = 1; i < list.size(); ++i) {
      const Number &x = list[i], &top = list[best];
      const bool better = IsLargest(kind) ? x.AsReal() > top.AsReal() : x.AsReal() < top.AsReal();
      const bool equal = x.AsReal() == top.AsReal() || (is_nan(x) && is_nan(top));
      if ((is_nan(x) && !is_nan(top)) || (better && !is_nan(top)) || (equal && IsLast(kind)))
        best = i;
    }
    return IsPlace(kind) ? Number::Of(static_cast<Integer>(best)) : list[best];
  }
  if (type == DType::kBool) {
    const auto is_set = [](const Number& x) { return x.integer != 0; };
    return Number::Of(Integer{kind == Reduction::kAny ? std::ranges::any_of(list, is_set)
                                                      : std::ranges::all_of(list, is_set)});
  }
  const bool product = kind == Reduction::kProduct;
  long double real = product ? 1 : 0;
  Integer integer = product ? 1 : 0;
  for (const Number& x : list) {
    real = product ? real * x.AsReal() : real + x.AsReal();
    integer = Wrap(product ? integer * x.integer : integer + x.integer, DType::kI64);
  }
  if (IsReal(type))
    return Number::Of(kind == Reduction::kMean ? real / static_cast<long double>(list.size())
                                               : real);
  if (kind == Reduction::kMean) {
    if (type == DType::kU64) integer = Wrap(integer, DType::kU64);
    integer /= static_cast<Integer>(list.size());
  }
  return Number::Of(Wrap(integer, type));
}

struct Case {
  int rank = 0;
  AxisSizes dims{};
  uint32_t axes = 0;
  AxisStrides x_strides{}, y_strides{};
  int64_t x_elements = 1, y_elements = 1;
};

Case MakeCase(std::vector<int64_t> dims, uint32_t axes, int64_t gap = 0) {
  Case c{.rank = static_cast<int>(dims.size()), .axes = axes};
  for (int axis = c.rank - 1; axis >= 0; --axis) {
    const auto at = static_cast<size_t>(axis);
    c.dims[at] = dims[at];
    c.x_strides[at] = c.x_elements;
    c.x_elements *= dims[at];
    if (axis == c.rank - 1) c.x_elements += gap;
    c.y_strides[at] = c.y_elements;
    if ((axes >> axis & 1) == 0) c.y_elements *= dims[at];
  }
  return c;
}

Case RandomCase(Rng& rng) {
  std::vector<int64_t> dims;
  int64_t room = 6000;
  for (uint64_t axes = 1 + rng.Below(4); axes > 0; --axes) {
    const int64_t dim = 1 + static_cast<int64_t>(rng.Below(rng.Below(3) == 0 ? 1500 : 7));
    dims.push_back(std::max<int64_t>(1, std::min(dim, room)));
    room /= dims.back();
  }
  return MakeCase(dims, static_cast<uint32_t>(rng.Below(1u << dims.size())),
                  static_cast<int64_t>(rng.Below(2) * rng.Below(4)));
}

// Calls visit(list number, offset in x) for each element of x in row-major order.
template <class Visit>
void ForElements(const Case& c, const Visit& visit) {
  AxisSizes at{};
  int64_t total = 1;
  for (int axis = 0; axis < c.rank; ++axis) total *= c.dims[static_cast<size_t>(axis)];
  for (int64_t i = 0; i < total; ++i) {
    int64_t rest = i, x = 0, y = 0;
    for (int axis = c.rank - 1; axis >= 0; --axis) {
      const auto a = static_cast<size_t>(axis);
      at[a] = rest % c.dims[a];
      rest /= c.dims[a];
      x += at[a] * c.x_strides[a];
      if ((c.axes >> axis & 1) == 0) y += at[a] * c.y_strides[a];
    }
    visit(y, x);
  }
}

TestTensor ReduceAll(const ElementKernels& set, Reduction kind, const Case& c,
                     const TestTensor& x) {
  TestTensor y(ResultType(kind, x.type()), c.y_elements);
  const AxisTensors tensors{.rank = c.rank,
                            .dims = c.dims,
                            .x = x.data(),
                            .x_strides = c.x_strides,
                            .y = y.data(),
                            .y_strides = c.y_strides};
  const ReduceKernel kernel(set, kind, x.type(), c.axes);
  const int64_t units = kernel.Units(tensors);
  EXPECT_GE(kernel.UnitCost(tensors), 1);
  kernel.Run(tensors, units / 3, units);  // in any order
  kernel.Run(tensors, 0, units / 3);
  return y;
}

bool Reduces(Reduction kind, DType type) {
  return ElementKernelsOf(ScalarKernels()).find_reduction(kind, ComputeType(type)) != nullptr;
}

// Sums of halves and f32 are exact to a rounding: f64 holds them. Products and f64 are not.
long double Tolerance(Reduction kind, DType type, long double sum_of_magnitudes,
                      long double value) {
  const long double own = type == DType::kF64 ? 0 : 0.51L;
  if (kind == Reduction::kProduct) return 0.51L + (type == DType::kF64 ? 1500 : 0);
  const long double ulp = std::abs(value) * (type == DType::kF64 ? 0x1p-53L : 0x1p-24L);
  return own + 1 + (ulp > 0 ? 6000 * 0x1p-53L * sum_of_magnitudes / ulp : 0);
}

TEST(Reduce, AgreesWithANaiveOne) {
  Rng rng(31);
  for (int round = 0; round < 25; ++round) {
    const Case c = RandomCase(rng);
    for (const DType type : kElementTypes)
      for (int number = 0; number < kReductionCount; ++number) {
        const auto kind = static_cast<Reduction>(number);
        if (!Reduces(kind, type)) continue;
        SCOPED_TRACE(std::to_string(round) + " kind " + std::to_string(number) + " of " +
                     Name(type));
        TestTensor x = RandomTensor(rng, type, c.x_elements);
        if (IsReal(type) && kind != Reduction::kSum && rng.Below(3) == 0)
          x.Set(static_cast<int64_t>(rng.Below(static_cast<uint64_t>(x.count()))),
                Number::Of(std::numeric_limits<long double>::quiet_NaN()));
        if (kind == Reduction::kProduct && IsReal(type))
          for (int64_t i = 0; i < x.count(); ++i)
            x.Set(i, Number::Of(static_cast<long double>(rng.Uniform(0.99f, 1.01f))));
        std::vector<std::vector<Number>> lists(static_cast<size_t>(c.y_elements));
        ForElements(c, [&](int64_t list, int64_t at) {
          lists[static_cast<size_t>(list)].push_back(x.at(at));
        });
        const TestTensor y = ReduceAll(ElementKernelsOf(ScalarKernels()), kind, c, x);
        for (int64_t i = 0; i < c.y_elements; ++i) {
          const std::vector<Number>& list = lists[static_cast<size_t>(i)];
          const Number expected = Reduced(kind, type, list);
          if (!IsReal(y.type())) {
            ASSERT_TRUE(y.at(i).integer == expected.integer)
                << i << ": " << static_cast<double>(y.at(i).AsReal()) << ", not "
                << static_cast<double>(expected.AsReal());
            continue;
          }
          long double magnitudes = 0;
          for (const Number& value : list) magnitudes += std::abs(value.real);
          if (kind == Reduction::kMean) magnitudes /= static_cast<long double>(list.size());
          ASSERT_LE(UlpsApart(y.at(i), expected.real, type),
                    Tolerance(kind, type, magnitudes, expected.real))
              << i << ": " << static_cast<double>(y.at(i).real) << ", not "
              << static_cast<double>(expected.real);
        }
      }
  }
}

TEST(Reduce, AllSetsGiveTheSameBits) {
  Rng rng(32);
  for (int round = 0; round < 15; ++round) {
    const Case c = RandomCase(rng);
    for (const DType type : {DType::kF32, DType::kBf16, DType::kI32})
      for (int number = 0; number < kReductionCount; ++number) {
        const auto kind = static_cast<Reduction>(number);
        if (!Reduces(kind, type)) continue;
        const TestTensor x = RandomTensor(rng, type, c.x_elements);
        const TestTensor expected = ReduceAll(ElementKernelsOf(ScalarKernels()), kind, c, x);
        ForEachElementSet([&](const ElementKernels& set) {
          const TestTensor y = ReduceAll(set, kind, c, x);
          for (int64_t i = 0; i < y.count(); ++i) ASSERT_TRUE(SameElement(y, expected, i)) << i;
        });
      }
  }
}

// Lists one by one and side by side have one arithmetic: a column alone gives what it gives among
// others.
TEST(Reduce, AListAloneIsAsInCompany) {
  Rng rng(33);
  for (const int64_t rows : {1, 15, 16, 17, 100, 3000}) {
    constexpr int64_t kCols = 70;
    const TestTensor x = RandomTensor(rng, DType::kF32, rows * kCols);
    const ElementKernels& set = ElementKernelsOf(*AvailableKernels().front());
    const TestTensor all = ReduceAll(set, Reduction::kSum, MakeCase({rows, kCols}, 0b01), x);
    for (int64_t col = 0; col < kCols; ++col) {
      TestTensor one(DType::kF32, rows);
      for (int64_t row = 0; row < rows; ++row) one.Set(row, x.at(row * kCols + col));
      const TestTensor alone = ReduceAll(set, Reduction::kSum, MakeCase({rows, 1}, 0b01), one);
      ASSERT_EQ(alone.at(0).real, all.at(col).real) << rows << " " << col;
    }
  }
}

TEST(Reduce, SumsStayExactOverMillions) {
  const Case c = MakeCase({4000000}, 1);
  TestTensor x(DType::kF32, c.x_elements);
  for (int64_t i = 0; i < x.count(); ++i) x.Set(i, Number::Of(0.1L));
  const TestTensor y =
      ReduceAll(ElementKernelsOf(*AvailableKernels().front()), Reduction::kSum, c, x);
  EXPECT_LE(UlpsApart(y.at(0), x.at(0).real * 4000000, DType::kF32), 0.51L);
}

TEST(Cumulate, AgreesWithANaiveOne) {
  Rng rng(34);
  for (int round = 0; round < 25; ++round) {
    Case c = RandomCase(rng);
    const auto axis = static_cast<int>(rng.Below(static_cast<uint64_t>(c.rank)));
    c = MakeCase(std::vector(c.dims.begin(), c.dims.begin() + c.rank), 1u << axis,
                 static_cast<int64_t>(rng.Below(3)));
    const bool exclusive = rng.Below(2) == 1, reverse = rng.Below(2) == 1;
    for (const DType type : kElementTypes) {
      if (type == DType::kBool) continue;
      for (const Reduction kind : {Reduction::kSum, Reduction::kProduct}) {
        SCOPED_TRACE(std::to_string(round) + " of " + Name(type));
        TestTensor x = RandomTensor(rng, type, c.x_elements);
        for (int64_t i = 0; kind == Reduction::kProduct && IsReal(type) && i < x.count(); ++i)
          x.Set(i, Number::Of(static_cast<long double>(rng.Uniform(0.99f, 1.01f))));
        TestTensor y(type, c.x_elements);
        const AxisTensors tensors{.rank = c.rank,
                                  .dims = c.dims,
                                  .x = x.data(),
                                  .x_strides = c.x_strides,
                                  .y = y.data(),
                                  .y_strides = c.x_strides};
        const CumulateKernel kernel(kind, type, axis, exclusive, reverse);
        const int64_t units = kernel.Units(tensors);
        kernel.Run(tensors, units / 2, units);
        kernel.Run(tensors, 0, units / 2);

        std::vector<std::vector<int64_t>> lists(static_cast<size_t>(c.y_elements));
        ForElements(
            c, [&](int64_t list, int64_t at) { lists[static_cast<size_t>(list)].push_back(at); });
        for (std::vector<int64_t>& list : lists) {
          if (reverse) std::ranges::reverse(list);
          std::vector<Number> before;
          for (const int64_t at : list) {
            if (!exclusive) before.push_back(x.at(at));
            Number expected = Reduced(kind, type, before);
            ASSERT_TRUE(y.at(at).integer == expected.integer) << at;
            if (IsReal(type)) {
              long double sum = 0;
              for (const Number& value : before) sum += std::abs(value.real);
              ASSERT_LE(UlpsApart(y.at(at), expected.real, type),
                        Tolerance(kind, type, sum, expected.real));
            }
            if (exclusive) before.push_back(x.at(at));
            if (before.size() > 60) break;  // quadratic
          }
        }
      }
    }
  }
}

// ---- Rows ----

struct RowTest {
  DType type;
  int64_t rows, n, x_gap, y_gap;
};
std::vector<RowTest> RowTests() {
  std::vector<RowTest> tests;
  for (const DType type : {DType::kF32, DType::kF64, DType::kF16, DType::kBf16})
    for (const int64_t n : {1, 3, 15, 16, 17, 100, 1000})
      tests.push_back({type, 5, n, n % 3, n % 2});
  return tests;
}

// By how much a result may be off relative to the largest of its row.
long double Relative(DType type) {
  return type == DType::kF64   ? 1e-14L
         : type == DType::kF32 ? 4e-7L
         : type == DType::kF16 ? 1e-3L
                               : 8e-3L;
}

void ExpectClose(const TestTensor& y, int64_t first, const std::vector<long double>& expected) {
  long double largest = 0;
  for (const long double value : expected)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    const long double got = y.at(first + static_cast<int64_t>(i)).real;
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(got)) << i;
    } else if (std::isinf(expected[i])) {
      ASSERT_EQ(got, expected[i]) << i;
    } else {
      ASSERT_NEAR(static_cast<double>(got), static_cast<double>(expected[i]),
                  static_cast<double>(largest * Relative(y.type())))
          << i;
    }
  }
}

RowTensors RowsOf(const RowTest& test, const TestTensor& x, TestTensor& y) {
  return {.type = test.type,
          .x = x.data(),
          .y = y.data(),
          .n = test.n,
          .x_stride = test.n + test.x_gap,
          .y_stride = test.n + test.y_gap};
}

TEST(Softmax, AgreesWithANaiveOneInEverySet) {
  for (const RowTest& test : RowTests())
    for (const bool log : {false, true}) {
      SCOPED_TRACE(std::string(Name(test.type)) + " " + std::to_string(test.n));
      Rng rng(test.n);
      TestTensor x = RandomTensor(rng, test.type, test.rows * (test.n + test.x_gap));
      const auto infinity = std::numeric_limits<long double>::infinity();
      for (int64_t i = 0; i < test.n; ++i) x.Set(i, Number::Of(-infinity));  // row 0
      if (test.n > 1) x.Set(test.n + test.x_gap, Number::Of(-infinity));     // in row 1
      std::vector<float> scratch(static_cast<size_t>(test.n));
      TestTensor first(test.type, 0);
      ForEachElementSet([&](const ElementKernels& set) {
        TestTensor y(test.type, test.rows * (test.n + test.y_gap));
        SoftmaxRows(set, RowsOf(test, x, y), log, scratch.data(), 0, test.rows);
        for (int64_t row = 0; row < test.rows; ++row) {
          std::vector<long double> expected;
          long double max = -infinity, sum = 0;
          for (int64_t i = 0; i < test.n; ++i)
            expected.push_back(x.at(row * (test.n + test.x_gap) + i).real);
          for (const long double value : expected) max = std::max(max, value);
          for (const long double value : expected) sum += std::exp(value - max);
          for (long double& value : expected)
            value = log ? value - max - std::log(sum) : std::exp(value - max) / sum;
          ExpectClose(y, row * (test.n + test.y_gap), expected);
        }
        if (first.count() == 0) first = y;
        for (int64_t i = 0; i < y.count(); ++i) ASSERT_TRUE(SameElement(y, first, i)) << i;
      });
    }
}

TEST(LayerNorm, AgreesWithANaiveOneInEverySet) {
  for (const RowTest& test : RowTests())
    for (const int present : {0, 1, 2, 3}) {
      SCOPED_TRACE(std::string(Name(test.type)) + " " + std::to_string(test.n));
      Rng rng(test.n + present);
      TestTensor x = RandomTensor(rng, test.type, test.rows * (test.n + test.x_gap));
      for (int64_t i = 0; i < test.n; ++i)  // far from zero
        x.Set(i, Number::Of(1000 + x.at(i).real));
      const TestTensor weight = RandomTensor(rng, test.type, test.n);
      const TestTensor bias = RandomTensor(rng, test.type, test.n);
      std::vector<float> scratch(static_cast<size_t>(3 * test.n));
      TestTensor first(test.type, 0);
      ForEachElementSet([&](const ElementKernels& set) {
        TestTensor y(test.type, test.rows * (test.n + test.y_gap));
        LayerNormRows(set, RowsOf(test, x, y), (present & 1) != 0 ? weight.data() : nullptr,
                      (present & 2) != 0 ? bias.data() : nullptr, 1e-5, scratch.data(), 0,
                      test.rows);
        for (int64_t row = 0; row < test.rows; ++row) {
          std::vector<long double> expected;
          long double mean = 0, variance = 0;
          for (int64_t i = 0; i < test.n; ++i)
            expected.push_back(x.at(row * (test.n + test.x_gap) + i).real);
          for (const long double value : expected) mean += value;
          mean /= static_cast<long double>(test.n);
          for (const long double value : expected) variance += (value - mean) * (value - mean);
          variance /= static_cast<long double>(test.n);
          for (int64_t i = 0; i < test.n; ++i) {
            long double& value = expected[static_cast<size_t>(i)];
            value = (value - mean) / std::sqrt(variance + 1e-5L);
            if ((present & 1) != 0) value *= weight.at(i).real;
            if ((present & 2) != 0) value += bias.at(i).real;
          }
          // x itself is known to half a unit of f32 only, 3e-5 near 1000: (x - mean) is not.
          if (row > 0 || test.type == DType::kF64)
            ExpectClose(y, row * (test.n + test.y_gap), expected);
        }
        if (first.count() == 0) first = y;
        for (int64_t i = 0; i < y.count(); ++i) ASSERT_TRUE(SameElement(y, first, i)) << i;
      });
    }
}

}  // namespace
}  // namespace millpower::kernels
