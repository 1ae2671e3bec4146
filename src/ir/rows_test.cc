#include "ir/rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/expression.h"

namespace millpower::ir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RowsTest : public ::testing::Test {
 protected:
  RowsTest() {
    graph.name = "rows";
    graph.AddSymbol("batch", 32);
    graph.AddSymbol("items", 128);
    x = Input("x", {Symbol("batch"), Constant(6)});
  }

  ValueId Input(const std::string& name, Shape shape, DType dtype = DType::kF32) {
    return graph.AddInput(name, dtype, std::move(shape));
  }
  ValueId Weight(Shape shape) {
    return graph.AddWeight("w" + std::to_string(count_++), DType::kF32, std::move(shape));
  }
  ValueId Add(Op op, std::vector<ValueId> inputs, Attributes attributes) {
    const auto added =
        graph.AddNode(op, "v" + std::to_string(count_++), std::move(inputs), std::move(attributes));
    CHECK(added) << added.error().message;
    return *added;
  }
  ValueId Map(const Expression& code, std::vector<ValueId> inputs, Shape shape) {
    return Add(Op::kMap, std::move(inputs),
               {{"code", code.Encode()}, {"sizes", Shape{}}, {"shape", std::move(shape)}});
  }
  ValueId Reduce(ValueId v, int64_t axis) {
    return Add(Op::kReduce, {v}, {{"kind", int64_t{0}}, {"axes", std::vector<int64_t>{axis}}});
  }
  ValueId Contract(ValueId a, ValueId b, int64_t transpose_a = 0, int64_t transpose_b = 0) {
    return Add(Op::kContract, {a, b}, {{"transpose_a", transpose_a}, {"transpose_b", transpose_b}});
  }
  ValueId Reshape(ValueId v, Shape shape) {
    return Add(Op::kReshape, {v}, {{"shape", std::move(shape)}});
  }
  ValueId Bag(ValueId ids, ValueId offsets) {
    return Add(Op::kEmbeddingBag, {Weight({Constant(10), Constant(4)}), ids, offsets, kNoValue},
               {{"mode", int64_t{0}},
                {"ends", int64_t{0}},
                {"policy", int64_t{0}},
                {"default_row", int64_t{-1}},
                {"padding_row", int64_t{-1}}});
  }
  RowAnalysis Analyse(ValueId output) {
    graph.AddOutput(output);
    return AnalyseRows(graph, "batch");
  }

  Graph graph;
  ValueId x = kNoValue;
  int count_ = 0;
};

TEST_F(RowsTest, RowsOfAnMlpAreIndependent) {
  Expression relu;
  relu.Apply(MapOp::kRelu, DType::kF32, {relu.Load(0, DType::kF32)});
  const ValueId h =
      Map(relu, {Contract(x, Weight({Constant(6), Constant(4)}))}, {Symbol("batch"), Constant(4)});
  EXPECT_TRUE(Analyse(Contract(h, Weight({Constant(4), Constant(1)}))).independent);
}

TEST_F(RowsTest, SumsOverTheBatchMixRows) {
  const RowAnalysis rows = Analyse(Reduce(x, 0));
  EXPECT_FALSE(rows.independent);
  EXPECT_THAT(rows.why_not, HasSubstr("reduce"));
}

TEST_F(RowsTest, SumsOverColumnsDoNot) { EXPECT_TRUE(Analyse(Reduce(x, 1)).independent); }

TEST_F(RowsTest, ProductsOfRowsWithRowsMixThem) {
  EXPECT_FALSE(Analyse(Contract(x, x, 0, 1)).independent);  // [batch, batch]
}

TEST_F(RowsTest, InteractionsWithinARowDoNot) {
  const ValueId fields = Reshape(x, {Symbol("batch"), Constant(3), Constant(2)});
  const ValueId dots = Contract(fields, fields, 0, 1);
  EXPECT_TRUE(Analyse(Reshape(dots, {Symbol("batch"), Constant(9)})).independent);
}

TEST_F(RowsTest, RowsStayTogetherWhenDimensionsAreFlattened) {
  const ValueId flat = Reshape(x, {Symbol("6*batch")});
  EXPECT_TRUE(Analyse(Reshape(flat, {Symbol("batch"), Constant(6)})).independent);
}

TEST_F(RowsTest, ATransposedFlatteningScattersRows) {
  const ValueId turned =
      Add(Op::kTranspose, {x}, {{"perm", std::vector<int64_t>{1, 0}}});  // [6, batch]
  const ValueId flat = Reshape(turned, {Symbol("6*batch")});
  EXPECT_FALSE(Analyse(Reshape(flat, {Symbol("batch"), Constant(6)})).independent);
}

TEST_F(RowsTest, WhatKnowsItsPlaceInTheBatchIsNotIndependent) {
  Expression place;
  place.Index(0);
  EXPECT_FALSE(Analyse(Map(place, {}, {Symbol("batch"), Constant(6)})).independent);
}

TEST_F(RowsTest, PlacesWithinARowMayBeKnown) {
  Expression place;
  place.Index(1);
  EXPECT_TRUE(Analyse(Map(place, {}, {Symbol("batch"), Constant(6)})).independent);
}

TEST_F(RowsTest, OffsetsCutItemsIntoRows) {
  const ValueId ids = Input("ids", {Symbol("items")}, DType::kI64);
  const ValueId offsets = Input("offsets", {Symbol("batch")}, DType::kI64);
  const ValueId bag =
      Add(Op::kEmbeddingBag, {Weight({Constant(10), Constant(4)}), ids, offsets, kNoValue},
          {{"mode", int64_t{0}},
           {"ends", int64_t{0}},
           {"policy", int64_t{0}},
           {"default_row", int64_t{-1}},
           {"padding_row", int64_t{-1}}});
  const RowAnalysis rows = Analyse(bag);
  EXPECT_TRUE(rows.independent) << rows.why_not;
  ASSERT_TRUE(rows.offsets_of.contains("offsets"));
  EXPECT_THAT(rows.offsets_of.at("offsets"), ElementsAre("ids"));
}

TEST_F(RowsTest, OffsetsThatAreComputedCutNothing) {
  const ValueId ids = Input("ids", {Symbol("items")}, DType::kI64);
  const ValueId offsets = Input("offsets", {Symbol("batch")}, DType::kI64);
  Expression twice;
  const int16_t loaded = twice.Load(0, DType::kI64);
  twice.Apply(MapOp::kAdd, DType::kI64, {loaded, loaded});
  EXPECT_FALSE(Analyse(Bag(ids, Map(twice, {offsets}, {Symbol("batch")}))).independent);
}

TEST_F(RowsTest, CastsOfOffsetsChangeNothing) {
  const ValueId ids = Input("ids", {Symbol("items")}, DType::kI64);
  const ValueId offsets = Input("offsets", {Symbol("batch")}, DType::kI32);
  Expression cast;
  cast.Apply(MapOp::kCast, DType::kI64, {cast.Load(0, DType::kI32)});
  EXPECT_TRUE(Analyse(Bag(ids, Map(cast, {offsets}, {Symbol("batch")}))).independent);
}

TEST_F(RowsTest, ItemsThatKnowTheirPlaceAreMixed) {
  const ValueId ids = Input("ids", {Symbol("items")}, DType::kI64);
  const ValueId offsets = Input("offsets", {Symbol("batch")}, DType::kI64);
  Expression placed;
  placed.Apply(MapOp::kAdd, DType::kI64, {placed.Load(0, DType::kI64), placed.Index(0)});
  EXPECT_FALSE(Analyse(Bag(Map(placed, {ids}, {Symbol("items")}), offsets)).independent);
}

TEST_F(RowsTest, TheNumberOfAllItemsIsNobodysOwn) {
  const ValueId ids = Input("ids", {Symbol("items")}, DType::kI64);
  const ValueId offsets = Input("offsets", {Symbol("batch")}, DType::kI64);
  Expression size;
  size.Apply(MapOp::kCast, DType::kF32, {size.Size(0)});
  const ValueId count =
      Add(Op::kMap, {},
          {{"code", size.Encode()}, {"sizes", Shape{Symbol("items")}}, {"shape", Shape{}}});
  Expression share;
  share.Apply(MapOp::kDiv, DType::kF32, {share.Load(0, DType::kF32), share.Load(1, DType::kF32)});
  EXPECT_FALSE(
      Analyse(Map(share, {Bag(ids, offsets), count}, {Symbol("batch"), Constant(4)})).independent);
}

}  // namespace
}  // namespace millpower::ir
