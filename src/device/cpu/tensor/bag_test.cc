#include <cmath>
#include <optional>

#include "device/cpu/tensor/test_instruction.h"
#include "device/cpu/tensor/test_shapes.h"
#include "isa/layout.h"

namespace millpower::device::cpu {
namespace {

using isa::Opcode;
namespace op = isa::embedding_bag;

constexpr DType kTableTypes[] = {DType::kF32, DType::kBf16, DType::kF16, DType::kI8, DType::kI4};

// A random table as bytes, by isa/layout.h, and the numbers it holds.
struct TestTable {
  TestTable(Rng& rng, DType type, int64_t rows, int64_t cols) : type(type), rows(rows), cols(cols) {
    const int64_t row_bytes = isa::TableRowBytes(cols, type);
    bytes.resize(static_cast<size_t>(rows * row_bytes));
    for (int64_t row = 0; row < rows; ++row) {
      std::byte* at = bytes.data() + row * row_bytes;
      const bool scaled = type == DType::kI8 || type == DType::kI4;
      const float scale = scaled ? rng.Uniform(0.01f, 0.1f) : 1.0f;
      if (scaled) std::memcpy(at, &scale, 4);
      scales.push_back(scale);
      for (int64_t c = 0; c < cols; ++c) {
        const float value = rng.Uniform(-1, 1);
        const auto put = [&](auto stored) {
          std::memcpy(at + c * SizeBytes(type), &stored, sizeof stored);
        };
        if (type == DType::kF32) {
          put(value);
          values.push_back(value);
        } else if (type == DType::kBf16) {
          put(F32ToBf16(value));
          values.push_back(Bf16ToF32(F32ToBf16(value)));
        } else if (type == DType::kF16) {
          put(F32ToF16(value));
          values.push_back(F16ToF32(F32ToF16(value)));
        } else if (type == DType::kI8) {
          const auto q = static_cast<int8_t>(rng.Below(256));
          at[4 + c] = static_cast<std::byte>(q);
          values.push_back(q);
        } else {
          const auto nibble = static_cast<uint8_t>(rng.Below(16));
          at[4 + c / 2] |= static_cast<std::byte>(c % 2 == 0 ? nibble : nibble << 4);
          values.push_back(static_cast<float>(nibble) - 8);
        }
      }
    }
  }
  DType type;
  int64_t rows, cols;
  std::vector<std::byte> bytes;
  std::vector<float> values, scales;
};

struct BagCase {
  Bag mode = Bag::kSum;
  IndexPolicy policy = IndexPolicy::kError;
  int64_t default_row = -1, padding_row = -1;
  std::vector<std::vector<int64_t>> bags = {};
  std::vector<std::vector<float>> weights = {};  // empty: none
};

// One bag by the definition: in order, in f32, each item's value times its weight and scale.
std::vector<float> Expected(const TestTable& table, const BagCase& c, size_t bag) {
  std::vector<float> y(static_cast<size_t>(table.cols), 0.0f);
  int64_t count = 0;
  for (size_t i = 0; i < c.bags[bag].size(); ++i) {
    int64_t row = c.bags[bag][i];
    if (row < 0 || row >= table.rows) {
      if (c.policy == IndexPolicy::kWrap)
        row += table.rows;
      else if (c.policy == IndexPolicy::kClamp)
        row = row < 0 ? 0 : table.rows - 1;
      else
        row = c.default_row;
    }
    if (row == c.padding_row && row >= 0) continue;
    float scale = c.weights.empty() ? 1.0f : c.weights[bag][i];
    if (row >= 0) scale = scale * table.scales[static_cast<size_t>(row)];
    for (int64_t col = 0; col < table.cols; ++col) {
      const float value = row < 0 ? 0 : table.values[static_cast<size_t>(row * table.cols + col)];
      float& sum = y[static_cast<size_t>(col)];
      if (c.mode == Bag::kMax)
        sum = count == 0 ? value * scale : std::max(sum, value * scale);
      else
        sum = std::fma(value, scale, sum);
    }
    ++count;
  }
  if (c.mode == Bag::kMean && count > 0)
    for (float& value : y) value /= static_cast<float>(count);
  return y;
}

enum class OffsetForm { kNone, kBegins, kEnds };

void RunAndCheck(Rng& rng, const TestTable& table, const BagCase& c, OffsetForm form) {
  std::vector<int64_t> index, offsets;
  std::vector<float> weights;
  for (size_t bag = 0; bag < c.bags.size(); ++bag) {
    offsets.push_back(std::ssize(index));
    index.insert(index.end(), c.bags[bag].begin(), c.bags[bag].end());
    if (!c.weights.empty())
      weights.insert(weights.end(), c.weights[bag].begin(), c.weights[bag].end());
  }
  if (form == OffsetForm::kEnds) offsets.push_back(std::ssize(index));
  const auto bags = static_cast<int64_t>(c.bags.size());
  const Place index_dims = form == OffsetForm::kNone
                               ? Place{bags, static_cast<int64_t>(c.bags[0].size())}
                               : Place{std::ssize(index)};
  TestInstruction test(Opcode::kEmbeddingBag);
  test.Table(op::kTable, table.type, table.rows, table.cols, table.bytes);
  const bool wide = rng.Below(2) != 0;
  const auto set_index = [&](int operand, const Place& dims, const std::vector<int64_t>& values) {
    if (wide)
      test.Tensor(operand, DType::kI64, dims, values);
    else
      test.Tensor(operand, DType::kI32, dims, std::vector<int32_t>(values.begin(), values.end()));
  };
  set_index(op::kIndex, index_dims, index);
  if (form != OffsetForm::kNone) set_index(op::kOffsets, {std::ssize(offsets)}, offsets);
  if (!c.weights.empty()) test.Tensor(op::kWeights, DType::kF32, index_dims, weights);
  test.Tensor(op::kY, DType::kF32, {bags, table.cols},
              std::vector<float>(static_cast<size_t>(bags * table.cols), NAN));
  test.Integer(op::kMode, static_cast<int64_t>(c.mode));
  test.Integer(op::kEnds, form == OffsetForm::kEnds);
  test.Integer(op::kPolicy, static_cast<int64_t>(c.policy));
  test.Integer(op::kDefaultRow, c.default_row);
  test.Integer(op::kPaddingRow, c.padding_row);
  std::vector<float> expected;
  for (size_t bag = 0; bag < c.bags.size(); ++bag) {
    const std::vector<float> one = Expected(table, c, bag);
    expected.insert(expected.end(), one.begin(), one.end());
  }
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    test.Run(*set, rng);
    // The bits, but for the sign of a 0.
    EXPECT_EQ(test.Read<float>(op::kY), expected)
        << set->name << " " << Name(table.type) << " cols " << table.cols << " mode "
        << static_cast<int>(c.mode) << " policy " << static_cast<int>(c.policy);
    EXPECT_EQ(test.Fault(), "");
  }
}

TEST(EmbeddingBag, PoolsRowsInOrder) {
  Rng rng(1);
  for (int round = 0; round < 300; ++round) {
    const auto draw = [&](uint64_t below) { return static_cast<int64_t>(rng.Below(below)); };
    const TestTable table(rng, kTableTypes[rng.Below(std::size(kTableTypes))], 1 + draw(40),
                          1 + draw(round % 5 == 0 ? 300 : 40));
    BagCase c{.mode = static_cast<Bag>(rng.Below(kBagCount)),
              .policy = static_cast<IndexPolicy>(rng.Below(kIndexPolicyCount))};
    if (rng.Below(2) != 0) c.padding_row = draw(static_cast<uint64_t>(table.rows));
    if (c.policy == IndexPolicy::kDefault && rng.Below(2) != 0)
      c.default_row = draw(static_cast<uint64_t>(table.rows));
    const auto form = static_cast<OffsetForm>(rng.Below(3));
    const bool weighted = rng.Below(3) == 0;
    const int64_t fixed = round % 20 == 0 ? 600 : draw(5);
    const int64_t bags = round % 7 == 0 ? 600 : 1 + draw(20);
    for (int64_t bag = 0; bag < (fixed == 600 ? 3 : bags); ++bag) {
      c.bags.emplace_back();
      if (weighted) c.weights.emplace_back();
      const int64_t length = form == OffsetForm::kNone || fixed == 600 ? fixed : draw(6);
      for (int64_t i = 0; i < length; ++i) {
        int64_t row = draw(static_cast<uint64_t>(3 * table.rows)) - table.rows;
        if (c.policy == IndexPolicy::kError) row = (row + table.rows) % table.rows;
        if (c.policy == IndexPolicy::kWrap)
          row = (row + table.rows) % (2 * table.rows) - table.rows;
        c.bags.back().push_back(row);
        if (weighted) c.weights.back().push_back(rng.Uniform(-2, 2));
      }
    }
    RunAndCheck(rng, table, c, form);
  }
}

// One feature's column of a matrix of ids, to its columns of a matrix of features.
TEST(EmbeddingBag, LooksUpColumnsOfMatrices) {
  Rng rng(2);
  const TestTable table(rng, DType::kF32, 9, 5);
  const std::vector<int32_t> ids = {0, 8, 0, /**/ 0, 3, 0, /**/ 0, 5, 0};
  std::vector<float> y(3 * 12, -1.0f);
  TestInstruction test(Opcode::kEmbeddingBag);
  test.Table(op::kTable, DType::kF32, 9, 5, table.bytes);
  test.Matrix(op::kIndex, DType::kI32, 3, 3, 1, 1, ids);
  test.Matrix(op::kY, DType::kF32, 3, 12, 4, 5, y);
  test.Integer(op::kDefaultRow, -1);
  test.Integer(op::kPaddingRow, -1);
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 5; ++c)
      y[r * 12 + 4 + c] = table.values[static_cast<size_t>(ids[r * 3 + 1]) * 5 + c];
  for (const kernels::KernelSet* set : kernels::AvailableKernels()) {
    test.Run(*set, rng);
    EXPECT_EQ(test.Read<float>(op::kY), y) << set->name;
  }
}

TEST(EmbeddingBag, RaisesAnIndexOutside) {
  Rng rng(3);
  const TestTable table(rng, DType::kI8, 4, 3);
  for (const int64_t bad : {int64_t{4}, int64_t{-1}, INT64_MIN}) {
    for (const IndexPolicy policy : {IndexPolicy::kError, IndexPolicy::kWrap}) {
      if (policy == IndexPolicy::kWrap && bad == -1) continue;
      TestInstruction test(Opcode::kEmbeddingBag);
      test.Table(op::kTable, DType::kI8, 4, 3, table.bytes);
      test.Tensor(op::kIndex, DType::kI64, {1, 2}, std::vector<int64_t>{1, bad});
      test.Tensor(op::kY, DType::kF32, {1, 3}, std::vector<float>(3));
      test.Integer(op::kPolicy, static_cast<int64_t>(policy));
      test.Integer(op::kDefaultRow, -1);
      test.Integer(op::kPaddingRow, -1);
      test.Run(*kernels::AvailableKernels().front(), rng);
      EXPECT_EQ(test.Fault(),
                "embedding_bag table: index " + std::to_string(bad) + " is not in [0, 4)");
    }
  }
}

// Offsets are input: whatever they say, nothing outside of the items is read.
TEST(EmbeddingBag, RaisesOffsetsThatMakeNoSense) {
  Rng rng(4);
  const TestTable table(rng, DType::kF32, 4, 3);
  for (const std::vector<int64_t>& offsets :
       {std::vector<int64_t>{0, 6}, {0, -1}, {2, 1}, {-5, 2}, {INT64_MAX, INT64_MIN}, {4, 9}}) {
    for (const bool ends : {false, true}) {
      TestInstruction test(Opcode::kEmbeddingBag);
      test.Table(op::kTable, DType::kF32, 4, 3, table.bytes);
      test.Tensor(op::kIndex, DType::kI64, {5}, std::vector<int64_t>{0, 1, 2, 3, 0});
      test.Tensor(op::kOffsets, DType::kI64, {2}, offsets);
      const int64_t bags = ends ? 1 : 2;
      test.Tensor(op::kY, DType::kF32, {bags, 3},
                  std::vector<float>(static_cast<size_t>(bags * 3), NAN));
      test.Integer(op::kEnds, ends);
      test.Integer(op::kDefaultRow, -1);
      test.Integer(op::kPaddingRow, -1);
      test.Run(*kernels::AvailableKernels().front(), rng);
      EXPECT_NE(test.Fault(), "") << offsets[0] << " " << offsets[1];
      EXPECT_EQ(test.Read<float>(op::kY)[0], 0);  // an empty bag
    }
  }
}

}  // namespace
}  // namespace millpower::device::cpu
