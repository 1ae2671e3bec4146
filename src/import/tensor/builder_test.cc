#include "import/tensor/builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

namespace millpower::import {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BuilderTest : public ::testing::Test {
 protected:
  BuilderTest() : b("test") { b.AddSymbol("batch", 64); }

  Tensor Batched(std::vector<int64_t> sizes, DType dtype = DType::kF32) {
    ir::Shape shape = {ir::Symbol("batch")};
    for (const int64_t size : sizes) shape.push_back(ir::Constant(size));
    return b.Input("x" + std::to_string(count_++), dtype, shape);
  }
  static std::string Text(const ir::Shape& shape) { return ir::ToString(shape); }
  std::string ShapeOf(const Result<Tensor>& x) {
    return x ? Text(b.shape(*x)) : "error: " + x.error().message;
  }
  Tensor Ints(std::vector<int64_t> values) {
    std::vector<Size> sizes(values.begin(), values.end());
    return b.Sizes(sizes);
  }
  // Operators of the graph that computes `x`, in order.
  std::vector<std::string> Ops(Tensor x) {
    EXPECT_TRUE(b.Output("y", x));
    auto built = std::move(b).Build();
    EXPECT_TRUE(built) << built.error().message;
    std::vector<std::string> ops;
    if (built)
      for (const ir::Node& node : built->graph.nodes()) ops.emplace_back(ir::Name(node.op));
    return ops;
  }

  TensorBuilder b;
  int count_ = 0;
};

TEST_F(BuilderTest, ArithmeticOnShapesLeavesNoNodes) {
  const Tensor x = Batched({26, 16});
  // As exporters have it: reshape to [shape(x)[0], -1].
  const Tensor sizes = b.Sizes({b.dim(x, 0), b.dim(x, 1), b.dim(x, 2)});
  const Tensor first = *b.Take(sizes, b.SizeScalar(0), 0);
  const Tensor one = *b.Unsqueeze(first, 0);
  const Tensor parts[] = {one, Ints({-1})};
  const Tensor target = *b.Join(parts, 0);
  const auto known = b.KnownSizes(target);
  ASSERT_TRUE(known);
  EXPECT_EQ((*known)[0].ToString(), "batch");
  const auto y = b.Reshape(x, *known);
  EXPECT_EQ(ShapeOf(y), "[batch, 416]");
  EXPECT_THAT(Ops(*y), ElementsAre("reshape"));
}

TEST_F(BuilderTest, KnownIntegersFollowPythonsRules) {
  const auto value = [&](MapOp op, int64_t x, int64_t y) {
    return b.KnownIntegers(*b.Binary(op, Ints({x}), Ints({y})))->front();
  };
  EXPECT_EQ(value(MapOp::kFloorDiv, -7, 2), -4);
  EXPECT_EQ(value(MapOp::kDiv, -7, 2), -3);
  EXPECT_EQ(value(MapOp::kMod, -7, 3), 2);
  EXPECT_EQ(value(MapOp::kFmod, -7, 3), -1);
  EXPECT_EQ(value(MapOp::kDiv, 7, 0), 0);
}

TEST_F(BuilderTest, CastsOfKnownNumbersSaturate) {
  const auto cast = [&](double value, DType to) {
    return b.KnownIntegers(*b.Cast(b.Scalar(DType::kF64, value), to))->front();
  };
  EXPECT_EQ(cast(-1e30, DType::kI64), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(cast(1e30, DType::kI64), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(cast(-1e30, DType::kI32), std::numeric_limits<int32_t>::min());
  EXPECT_EQ(cast(300, DType::kU8), 255);
  EXPECT_EQ(cast(-3, DType::kU8), 0);
  EXPECT_EQ(cast(-2.9, DType::kI8), -2);
}

TEST_F(BuilderTest, ComparesSymbolsWhereThatCanBeProven) {
  const Tensor batch = b.SizeScalar(Size::Symbol("batch"));
  EXPECT_THAT(b.KnownIntegers(*b.Binary(MapOp::kEqual, batch, b.SizeScalar(-1))),
              ::testing::Optional(ElementsAre(0)));
  EXPECT_THAT(b.KnownIntegers(*b.Binary(MapOp::kGreater, batch, b.SizeScalar(0))),
              ::testing::Optional(ElementsAre(1)));
  EXPECT_FALSE(b.KnownSizes(*b.Binary(MapOp::kGreater, batch, b.SizeScalar(1))));
}

TEST_F(BuilderTest, SymbolicSizesBecomeNumbersWhenComputedWith) {
  const Tensor x = Batched({});
  const Tensor count = *b.Cast(b.SizeScalar(Size::Symbol("batch")), DType::kF32);
  EXPECT_THAT(Ops(*b.Binary(MapOp::kDiv, x, count)), ElementsAre("map", "map"));
}

TEST_F(BuilderTest, SlicesAsNumpyDoes) {
  const Tensor x = Batched({10});
  EXPECT_EQ(ShapeOf(b.Slice(x, 1, Size(2), Size(100))), "[batch, 8]");
  EXPECT_EQ(ShapeOf(b.Slice(x, 1, Size(-3), std::nullopt)), "[batch, 3]");
  EXPECT_EQ(ShapeOf(b.Slice(x, 1, std::nullopt, std::nullopt, -1)), "[batch, 10]");
  EXPECT_EQ(ShapeOf(b.Slice(x, 1, Size(8), Size(1), -3)), "[batch, 3]");
  EXPECT_EQ(ShapeOf(b.Slice(x, 0, Size(1), std::nullopt)), "[batch-1, 10]");
  EXPECT_EQ(ShapeOf(b.Slice(x, 0, std::nullopt, Size(-1))), "[batch-1, 10]");
  EXPECT_THAT(ShapeOf(b.Slice(x, 1, Size(5), Size(5))), HasSubstr("empty"));
  const Tensor known = Ints({1, 2, 3, 4, 5});
  EXPECT_THAT(*b.KnownIntegers(*b.Slice(known, 0, std::nullopt, std::nullopt, -2)),
              ElementsAre(5, 3, 1));
}

TEST_F(BuilderTest, FoldsRearrangements) {
  const Tensor x =
      *b.Reshape(Ints({1, 2, 3, 4, 5, 6}), ir::Shape{ir::Constant(2), ir::Constant(3)});
  EXPECT_THAT(*b.KnownIntegers(*b.Transpose(x, {1, 0})), ElementsAre(1, 4, 2, 5, 3, 6));
  EXPECT_THAT(*b.KnownIntegers(*b.Take(x, Ints({-1, 0}), 1)), ElementsAre(3, 1, 6, 4));
  EXPECT_THAT(*b.KnownIntegers(
                  *b.Expand(*b.Take(x, b.SizeScalar(1), 0), {ir::Constant(2), ir::Constant(3)})),
              ElementsAre(4, 5, 6, 4, 5, 6));
  EXPECT_THAT(*b.KnownIntegers(*b.Reduce(Reduction::kProduct, x, {}, false)), ElementsAre(720));
}

TEST_F(BuilderTest, ScalarsBecomeTermsOfTheExpression) {
  const Tensor x = Batched({3});
  const Tensor y = *b.Binary(MapOp::kMul, x, b.Scalar(DType::kF32, 2));
  ASSERT_TRUE(b.Output("y", y));
  const auto built = std::move(b).Build();
  ASSERT_TRUE(built);
  EXPECT_EQ(built->graph.nodes()[0].inputs.size(), 1u);
  EXPECT_THAT(ir::ToText(built->graph), HasSubstr("const:f32(2)"));
}

TEST_F(BuilderTest, MatrixProductsTakeNumpysRanks) {
  const Tensor x = Batched({4, 5});
  const Tensor row = b.Input("row", DType::kF32, {ir::Constant(5)});
  const Tensor w = b.Weight("w", DType::kF32, {5, 7});
  EXPECT_EQ(ShapeOf(b.MatMul(x, w)), "[batch, 4, 7]");
  EXPECT_EQ(ShapeOf(b.MatMul(x, row)), "[batch, 4]");
  EXPECT_EQ(ShapeOf(b.MatMul(row, w)), "[7]");
  EXPECT_EQ(ShapeOf(b.MatMul(row, row)), "[]");
  EXPECT_THAT(ShapeOf(b.MatMul(x, x)), HasSubstr("differ in what is summed over"));
}

TEST_F(BuilderTest, EinsumGivesTheShapesItSpells) {
  const Tensor x = Batched({4, 5});
  const Tensor y = Batched({6, 5});
  const Tensor square = Batched({3, 3});
  const auto shape_of = [&](const char* text, std::vector<Tensor> operands) {
    return ShapeOf(b.Einsum(text, operands));
  };
  EXPECT_EQ(shape_of("bij,bkj->bik", {x, y}), "[batch, 4, 6]");
  EXPECT_EQ(shape_of("bij,bkj->kb", {x, y}), "[6, batch]");
  EXPECT_EQ(shape_of("bij,bkj", {x, y}), "[4, 6]");
  EXPECT_EQ(shape_of("...ij->...ji", {x}), "[batch, 5, 4]");
  EXPECT_EQ(shape_of("bii->bi", {square}), "[batch, 3]");
  EXPECT_EQ(shape_of("bii->b", {square}), "[batch]");
  EXPECT_EQ(shape_of("...i,...i->...", {x, x}), "[batch, 4]");
  EXPECT_THAT(shape_of("bij->bz", {x}), HasSubstr("label"));
  EXPECT_THAT(shape_of("bi->b", {x}), HasSubstr("rank"));
}

TEST_F(BuilderTest, WindowsAndPadding) {
  const Tensor image = Batched({3, 8, 9});
  const Tensor w = b.Weight("w", DType::kF32, {4, 3, 3, 3});
  EXPECT_EQ(ShapeOf(b.Conv(image, w, {},
                           {.kernel = {3, 3},
                            .strides = {2, 1},
                            .pads_begin = {1, 1},
                            .pads_end = {1, 1},
                            .dilations = {1, 1}},
                           1)),
            "[batch, 4, 4, 9]");
  const Tensor back = b.Weight("back", DType::kF32, {3, 4, 3, 3});
  EXPECT_EQ(ShapeOf(b.ConvTranspose(image, back, {},
                                    {.kernel = {3, 3},
                                     .strides = {2, 2},
                                     .pads_begin = {0, 0},
                                     .pads_end = {0, 0},
                                     .dilations = {1, 1}},
                                    1, {1, 1})),
            "[batch, 4, 18, 20]");
  const TensorBuilder::Window pool = {.kernel = {3, 3},
                                      .strides = {2, 2},
                                      .pads_begin = {0, 0},
                                      .pads_end = {0, 0},
                                      .dilations = {1, 1}};
  EXPECT_EQ(ShapeOf(b.Pool(Pooling::kMax, image, pool, false, false)), "[batch, 3, 3, 4]");
  EXPECT_EQ(ShapeOf(b.Pool(Pooling::kMax, image, pool, true, false)), "[batch, 3, 4, 4]");
  EXPECT_EQ(ShapeOf(b.Pad(image, {0, 0, 1, -2}, {0, 0, 0, 1}, 0)), "[batch, 3, 9, 8]");
  const Tensor known = Ints({1, 2, 3});
  EXPECT_THAT(*b.KnownIntegers(*b.PadBy(known, {2}, {2}, TensorBuilder::PadMode::kReflect)),
              ElementsAre(3, 2, 1, 2, 3, 2, 1));
  EXPECT_THAT(*b.KnownIntegers(*b.PadBy(known, {2}, {2}, TensorBuilder::PadMode::kSymmetric)),
              ElementsAre(2, 1, 1, 2, 3, 3, 2));
}

TEST_F(BuilderTest, OutputsAreValuesOfTheirOwn) {
  const Tensor x = Batched({2});
  ASSERT_TRUE(b.Output("a", x));
  ASSERT_TRUE(b.Output("b", x));
  EXPECT_FALSE(b.Output("b", x));
  const auto built = std::move(b).Build();
  ASSERT_TRUE(built) << built.error().message;
  ASSERT_EQ(built->outputs.size(), 2u);
  EXPECT_NE(built->outputs[0].value, built->outputs[1].value);
}

TEST_F(BuilderTest, NamesOfAnySortBecomeSoundOnes) {
  EXPECT_EQ(b.SymbolName("batch size"), "batch_size");
  EXPECT_EQ(b.SymbolName("batch/size"), "batch_size_2");
  EXPECT_EQ(b.SymbolName("batch size"), "batch_size");
  EXPECT_EQ(b.SymbolName("0d"), "s0d");
}

}  // namespace
}  // namespace millpower::import
