// Shapes and types of the operators on tensors, and what their rules refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/expression.h"
#include "base/tensor_ops.h"
#include "ir/graph.h"

namespace millpower::ir {
namespace {

using ::testing::HasSubstr;
using List = std::vector<int64_t>;

class TensorShapes : public ::testing::Test {
 protected:
  TensorShapes() {
    graph.name = "test";
    graph.AddSymbol("batch", 64);
    graph.AddSymbol("seq", 16);
    x = Input({Symbol("batch"), Constant(4), Constant(6)});
    row = Input({Constant(6)});
    image = Input({Symbol("batch"), Constant(4), Constant(7), Constant(5)});
    ids = Input({Symbol("batch"), Constant(3)}, DType::kI64);
    flags = Input({Symbol("batch")}, DType::kBool);
    matrix = graph.AddWeight("matrix", DType::kF32, {Constant(6), Constant(9)});
    table = graph.AddWeight("table", DType::kBf16, {Constant(11), Constant(8)});
    kernel = graph.AddWeight("kernel", DType::kF32,
                             {Constant(6), Constant(2), Constant(3), Constant(3)});
  }

  ValueId Input(Shape shape, DType type = DType::kF32) {
    return graph.AddInput("in" + std::to_string(next_++), type, std::move(shape));
  }
  // The result's shape and type, or why there is none.
  std::string Add(Op op, std::vector<ValueId> inputs, Attributes attributes = {}) {
    const auto added =
        graph.AddNode(op, "out" + std::to_string(next_++), std::move(inputs), attributes);
    if (!added) return added.error().message;
    return ToString(graph.value(*added).shape) + " " + Name(graph.value(*added).dtype);
  }
  std::string Map(const Expression& expression, std::vector<ValueId> inputs, Shape shape,
                  Shape sizes = {}) {
    return Add(Op::kMap, std::move(inputs),
               {{"code", expression.Encode()}, {"shape", shape}, {"sizes", sizes}});
  }
  std::string Slice(Shape begin, List step, Shape shape) {
    return Add(Op::kStridedSlice, {x}, {{"begin", begin}, {"step", step}, {"shape", shape}});
  }

  Graph graph;
  ValueId x, row, image, ids, flags, matrix, table, kernel;

 private:
  int next_ = 0;
};

TEST_F(TensorShapes, Map) {
  Expression sum;
  const int16_t a = sum.Load(0, DType::kF32), b = sum.Load(1, DType::kF32);
  sum.Apply(MapOp::kLess, DType::kBool, {a, b});
  const Shape shape = graph.value(x).shape;
  EXPECT_EQ(Map(sum, {x, row}, shape), "[batch, 4, 6] bool");
  EXPECT_THAT(Map(sum, {x, ids}, shape), HasSubstr("another type"));
  EXPECT_THAT(Map(sum, {x, row}, {Constant(6)}), HasSubstr("does not broadcast"));
  EXPECT_THAT(Map(sum, {x}, shape), HasSubstr("an operand that is not there"));
  EXPECT_THAT(Map(sum, std::vector<ValueId>(9, x), shape), HasSubstr("at most 8"));
  Expression range;
  range.Index(0);
  EXPECT_EQ(Map(range, {}, {Symbol("seq")}), "[seq] i64");
  EXPECT_THAT(Map(range, {}, {}), HasSubstr("an axis that is not there"));
  Expression size;
  size.Size(0);
  EXPECT_EQ(Map(size, {}, {}, {Symbol("2*batch")}), "[] i64");
  EXPECT_TRUE(Verify(graph));
  Map(size, {}, {}, {Symbol("nobody")});
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("not declared"));
}

TEST_F(TensorShapes, ReduceAndCumulate) {
  const auto reduce = [this](Reduction kind, ValueId of, List axes) {
    return Add(Op::kReduce, {of}, {{"kind", static_cast<int64_t>(kind)}, {"axes", axes}});
  };
  EXPECT_EQ(reduce(Reduction::kSum, x, {0, 2}), "[1, 4, 1] f32");
  EXPECT_EQ(reduce(Reduction::kArgMax, x, {1}), "[batch, 1, 6] i64");
  EXPECT_EQ(reduce(Reduction::kAny, flags, {0}), "[1] bool");
  EXPECT_THAT(reduce(Reduction::kArgMax, x, {0, 1}), HasSubstr("one axis"));
  EXPECT_THAT(reduce(Reduction::kSum, flags, {0}), HasSubstr("bool"));
  EXPECT_THAT(reduce(Reduction::kAll, x, {0}), HasSubstr("f32"));
  EXPECT_THAT(reduce(Reduction::kSum, x, {2, 0}), HasSubstr("in order"));
  EXPECT_THAT(reduce(Reduction::kSum, x, {3}), HasSubstr("axis 3"));
  const auto cumulate = [this](int64_t kind, int64_t axis) {
    return Add(
        Op::kCumulate, {x},
        {{"kind", kind}, {"axis", axis}, {"exclusive", int64_t{0}}, {"reverse", int64_t{1}}});
  };
  EXPECT_EQ(cumulate(0, 2), "[batch, 4, 6] f32");
  EXPECT_THAT(cumulate(1, 2), HasSubstr("neither sum nor product"));
  EXPECT_THAT(cumulate(0, -1), HasSubstr("axis -1"));
}

TEST_F(TensorShapes, Rearranging) {
  const auto reshape = [this](Shape shape) {
    return Add(Op::kReshape, {x}, {{"shape", std::move(shape)}});
  };
  EXPECT_EQ(reshape({Symbol("4*batch"), Constant(2), Constant(3)}), "[4*batch, 2, 3] f32");
  EXPECT_THAT(reshape({Symbol("4*batch"), Constant(5)}), HasSubstr("does not have the elements"));
  EXPECT_EQ(Add(Op::kTranspose, {x}, {{"perm", List{2, 0, 1}}}), "[6, batch, 4] f32");
  EXPECT_THAT(Add(Op::kTranspose, {x}, {{"perm", List{2, 0, 0}}}), HasSubstr("no permutation"));
  EXPECT_THAT(Add(Op::kTranspose, {x}, {{"perm", List{2, 0}}}), HasSubstr("no permutation"));
  EXPECT_EQ(Add(Op::kExpand, {row}, {{"shape", Shape{Symbol("seq"), Constant(6)}}}),
            "[seq, 6] f32");
  EXPECT_THAT(Add(Op::kExpand, {row}, {{"shape", Shape{Constant(6), Symbol("seq")}}}),
              HasSubstr("does not broadcast"));
  EXPECT_EQ(Add(Op::kJoin, {x, x, x}, {{"axis", int64_t{0}}}), "[3*batch, 4, 6] f32");
  EXPECT_THAT(Add(Op::kJoin, {x, image}, {{"axis", int64_t{0}}}), HasSubstr("rank"));
  EXPECT_THAT(Add(Op::kJoin, {row, ids}, {{"axis", int64_t{0}}}), HasSubstr("type"));
  EXPECT_THAT(Add(Op::kJoin, {x, x}, {{"axis", int64_t{3}}}), HasSubstr("axis 3"));
  const auto pad = [this](List before, List after, List interior) {
    return Add(Op::kPad, {x},
               {{"before", before}, {"after", after}, {"interior", interior}, {"value", 0.0}});
  };
  EXPECT_EQ(pad({1, 0, 2}, {0, 0, 1}, {0, 2, 0}), "[batch+1, 10, 9] f32");
  EXPECT_THAT(pad({1, 0}, {0, 0, 1}, {0, 0, 0}), HasSubstr("before is not 3 integers"));
  EXPECT_THAT(pad({1, 0, -1}, {0, 0, 1}, {0, 0, 0}), HasSubstr("at least 0"));
}

TEST_F(TensorShapes, SlicesStayInside) {
  const Dim none = Constant(0), batch = Symbol("batch");
  EXPECT_EQ(Slice({none, Constant(1), none}, {1, 2, 1}, {batch, Constant(2), Constant(6)}),
            "[batch, 2, 6] f32");
  EXPECT_EQ(
      Slice({Symbol("batch-1"), none, none}, {1, 1, 1}, {Constant(1), Constant(4), Constant(6)}),
      "[1, 4, 6] f32");
  EXPECT_EQ(
      Slice({Symbol("batch-1"), none, Constant(5)}, {-1, 1, -2}, {batch, Constant(4), Constant(3)}),
      "[batch, 4, 3] f32");
  const auto refused = [&](Shape begin, List step, Shape shape) {
    EXPECT_THAT(Slice(begin, step, shape), HasSubstr("leaves")) << ToString(begin);
  };
  refused({none, Constant(3), none}, {1, 1, 1}, {batch, Constant(2), Constant(6)});
  refused({none, Constant(-1), none}, {1, 1, 1}, {batch, Constant(2), Constant(6)});
  refused({none, none, Constant(4)}, {1, 1, -2}, {batch, Constant(4), Constant(4)});
  refused({none, none, none}, {1, 0, 1}, {batch, Constant(4), Constant(6)});
  refused({none, none, none}, {1, 1, 1}, {Symbol("seq"), Constant(4), Constant(6)});
  refused({none, none, none}, {1, INT64_MAX, 1}, {batch, Constant(4), Constant(6)});
  EXPECT_THAT(Slice({none}, {1, 1, 1}, {batch, Constant(4), Constant(6)}), HasSubstr("rank"));
}

TEST_F(TensorShapes, Products) {
  const auto contract = [this](ValueId a, ValueId b, int64_t ta, int64_t tb) {
    return Add(Op::kContract, {a, b}, {{"transpose_a", ta}, {"transpose_b", tb}});
  };
  EXPECT_EQ(contract(x, matrix, 0, 0), "[batch, 4, 9] f32");
  EXPECT_EQ(contract(x, x, 0, 1), "[batch, 4, 4] f32");
  EXPECT_EQ(contract(x, x, 1, 0), "[batch, 6, 6] f32");
  EXPECT_THAT(contract(x, matrix, 0, 1), HasSubstr("summed over"));
  EXPECT_THAT(contract(x, row, 0, 0), HasSubstr("not both matrices"));
  EXPECT_THAT(contract(x, matrix, 2, 0), HasSubstr("transpose_a 2"));
  EXPECT_THAT(contract(x, Input({Symbol("seq"), Constant(6), Constant(2)}), 0, 0),
              HasSubstr("do not broadcast"));
  const auto conv = [this](List strides, List begin, int64_t groups) {
    return Add(Op::kConv, {image, kernel},
               {{"strides", strides},
                {"pads_begin", begin},
                {"pads_end", List{0, 1}},
                {"dilations", List{1, 1}},
                {"groups", groups}});
  };
  EXPECT_EQ(conv({2, 1}, {1, 0}, 2), "[batch, 6, 3, 4] f32");
  EXPECT_THAT(conv({2, 1}, {1, 0}, 1), HasSubstr("groups and channels"));
  EXPECT_THAT(conv({0, 1}, {1, 0}, 2), HasSubstr("strides"));
  EXPECT_THAT(conv({1, 1}, {-1, 0}, 2), HasSubstr("pads_begin"));
  const auto pool = [this](List kernel_sizes, List begin, List out) {
    return Add(Op::kPool, {image},
               {{"kind", static_cast<int64_t>(Pooling::kArgMax)},
                {"kernel", kernel_sizes},
                {"strides", List{2, 2}},
                {"pads_begin", begin},
                {"pads_end", List{0, 0}},
                {"dilations", List{1, 1}},
                {"out", out},
                {"count_padding", int64_t{0}}});
  };
  EXPECT_EQ(pool({3, 2}, {1, 0}, {4, 3}), "[batch, 4, 4, 3] i64");
  EXPECT_THAT(pool({3, 2}, {1, 0}, {5, 3}), HasSubstr("outside"));
  EXPECT_THAT(pool({3, 2}, {3, 0}, {4, 3}), HasSubstr("outside"));
}

TEST_F(TensorShapes, Indexed) {
  const auto take = [this](Op op, ValueId of, ValueId index, int64_t axis, int64_t policy = 0) {
    return Add(op, {of, index}, {{"axis", axis}, {"policy", policy}});
  };
  EXPECT_EQ(take(Op::kTake, x, ids, 1), "[batch, batch, 3, 6] f32");
  EXPECT_THAT(take(Op::kTake, x, row, 1), HasSubstr("indices are i32 or i64"));
  EXPECT_THAT(take(Op::kTake, x, ids, 1, 3), HasSubstr("policy 3"));
  EXPECT_EQ(take(Op::kTakeAlong, ids, ids, 1), "[batch, 3] i64");
  EXPECT_THAT(take(Op::kTakeAlong, x, ids, 1), HasSubstr("rank"));
  EXPECT_THAT(take(Op::kTakeAlong, row, Input({Symbol("seq")}, DType::kI32), 1), HasSubstr("axis"));
  const auto gather = [this](ValueId index, int64_t batch_dims) {
    return Add(Op::kGatherNd, {x, index}, {{"batch_dims", batch_dims}, {"policy", int64_t{0}}});
  };
  EXPECT_EQ(gather(ids, 0), "[batch] f32");
  EXPECT_THAT(gather(ids, 1), HasSubstr("does not name places"));
  EXPECT_THAT(gather(ids, -1), HasSubstr("does not name places"));
  EXPECT_EQ(gather(Input({Symbol("batch"), Constant(1)}, DType::kI64), 1), "[batch, 6] f32");
  const auto scatter = [this](ValueId updates, int64_t mode, int64_t reduction) {
    return Add(
        Op::kScatter, {x, ids, updates},
        {{"mode", mode}, {"axis", int64_t{0}}, {"reduction", reduction}, {"policy", int64_t{0}}});
  };
  EXPECT_EQ(scatter(Input({Symbol("batch")}), 1, 4), "[batch, 4, 6] f32");
  EXPECT_THAT(scatter(row, 1, 0), HasSubstr("is not [batch]"));
  EXPECT_THAT(scatter(ids, 1, 0), HasSubstr("differ in type"));
  EXPECT_THAT(scatter(x, 0, 0), HasSubstr("do not fit"));
  EXPECT_THAT(scatter(x, 1, 5), HasSubstr("reduction 5"));
}

TEST_F(TensorShapes, Bags) {
  const ValueId items = Input({Symbol("seq")}, DType::kI32);
  const ValueId offsets = Input({Symbol("batch+1")}, DType::kI32);
  const auto bag = [this](std::vector<ValueId> inputs, int64_t ends, int64_t padding_row = -1) {
    return Add(Op::kEmbeddingBag, std::move(inputs),
               {{"mode", int64_t{0}},
                {"ends", ends},
                {"policy", static_cast<int64_t>(IndexPolicy::kDefault)},
                {"default_row", int64_t{-1}},
                {"padding_row", padding_row}});
  };
  EXPECT_EQ(bag({table, ids}, 0), "[batch, 8] f32");
  EXPECT_EQ(bag({table, items, offsets}, 1), "[batch, 8] f32");
  EXPECT_EQ(bag({table, items, offsets}, 0), "[batch+1, 8] f32");
  EXPECT_EQ(bag({table, ids, kNoValue, Input({Symbol("batch"), Constant(3)})}, 0),
            "[batch, 8] f32");
  EXPECT_THAT(bag({x, ids}, 0), HasSubstr("no weight"));
  EXPECT_THAT(bag({table, ids, offsets}, 0), HasSubstr("not lists"));
  EXPECT_THAT(bag({table, ids}, 0, 11), HasSubstr("no row of the table"));
  EXPECT_THAT(bag({table, ids, kNoValue, row}, 0), HasSubstr("index's shape"));
}

TEST_F(TensorShapes, Rows) {
  EXPECT_EQ(Add(Op::kSoftmax, {x}, {{"log", int64_t{0}}}), "[batch, 4, 6] f32");
  EXPECT_THAT(Add(Op::kSoftmax, {ids}, {{"log", int64_t{0}}}), HasSubstr("no float"));
  EXPECT_EQ(Add(Op::kLayerNorm, {x, row}, {{"epsilon", 1e-5}}), "[batch, 4, 6] f32");
  EXPECT_THAT(Add(Op::kLayerNorm, {x, kNoValue, image}, {{"epsilon", 1e-5}}),
              HasSubstr("one row of x"));
  EXPECT_THAT(Add(Op::kLayerNorm, {x}, {{"epsilon", -1.0}}), HasSubstr("epsilon"));
  EXPECT_EQ(Add(Op::kTopK, {x}, {{"k", int64_t{2}}, {"largest", int64_t{1}}}), "[batch, 4, 2] i64");
  EXPECT_THAT(Add(Op::kTopK, {x}, {{"k", int64_t{7}}, {"largest", int64_t{1}}}),
              HasSubstr("k is larger"));
  const auto dense = [this](std::vector<ValueId> inputs, int64_t transposed, int64_t relu = 0) {
    return Add(Op::kDense, std::move(inputs), {{"transposed", transposed}, {"relu", relu}});
  };
  EXPECT_EQ(dense({x, matrix}, 1), "[batch, 4, 9] f32");
  EXPECT_THAT(dense({x, matrix}, 0), HasSubstr("summed over"));
  EXPECT_THAT(dense({x, x}, 0), HasSubstr("no weight"));
  EXPECT_THAT(dense({x, matrix, table}, 1), HasSubstr("one f32 weight"));
  const ValueId residual = Input({Symbol("batch"), Constant(4), Constant(9)});
  EXPECT_EQ(dense({x, matrix, kNoValue, residual}, 1), "[batch, 4, 9] f32");
  EXPECT_THAT(dense({x, matrix, kNoValue, residual}, 1, 1), HasSubstr("without relu"));
  EXPECT_THAT(dense({x, matrix, kNoValue, x}, 1), HasSubstr("is not [batch, 4, 9]"));
}

TEST_F(TensorShapes, NothingOverflows) {
  const ValueId huge = Input({Constant(1), Constant(4), Constant(INT64_MAX), Constant(5)});
  EXPECT_THAT(Add(Op::kPad, {huge},
                  {{"before", List{0, 0, 1, 0}},
                   {"after", List(4, 0)},
                   {"interior", List{0, 0, 5, 0}},
                   {"value", 0.0}}),
              HasSubstr("too large"));
  EXPECT_THAT(Add(Op::kJoin, {huge, huge}, {{"axis", int64_t{2}}}), HasSubstr("too large"));
  EXPECT_THAT(Add(Op::kConv, {huge, kernel},
                  {{"strides", List{1, 1}},
                   {"pads_begin", List{1, 0}},
                   {"pads_end", List{0, 0}},
                   {"dilations", List{1 << 30, 1}},
                   {"groups", int64_t{2}}}),
              HasSubstr("1..2^31"));
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("2^48"));
}

}  // namespace
}  // namespace millpower::ir
