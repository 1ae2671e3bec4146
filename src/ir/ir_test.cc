#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "ir/graph.h"
#include "ir/op_table.h"

namespace millpower::ir {
namespace {

using ::testing::HasSubstr;

TEST(OpTable, HasOneCompleteEntryPerOp) {
  std::set<std::string> names;
  for (int i = 0; i < kOpCount; ++i) {
    const OpInfo& info = Info(static_cast<Op>(i));
    EXPECT_EQ(static_cast<int>(info.op), i) << info.name;
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_STREQ(Name(info.op), info.name);
    EXPECT_NE(info.shape, nullptr) << info.name;
    ASSERT_FALSE(info.operands.empty()) << info.name;
    bool optional = false;
    std::set<std::string> operands, attributes;
    for (const OperandInfo& operand : info.operands) {
      EXPECT_TRUE(operands.insert(operand.name).second) << info.name << " " << operand.name;
      EXPECT_TRUE(operand.optional || !optional) << info.name << ": optional operands come last";
      optional = operand.optional;
    }
    for (const AttributeInfo& attribute : info.attributes)
      EXPECT_TRUE(attributes.insert(attribute.name).second) << info.name << " " << attribute.name;
  }
}

// One value of every kind that the rules below ask for.
class GraphTest : public ::testing::Test {
 protected:
  GraphTest() {
    graph.name = "test";
    graph.AddSymbol("rows", 512);
    graph.AddSymbol("picked", 64);
    graph.AddSymbol("seqs", 64);
    graph.AddSymbol("entries", 4096);
    graph.AddSymbol("pages", 1 << 20);
    graph.AddSymbol("adjusts", 256);
    tokens = graph.AddInput("tokens", DType::kI32, {Symbol("rows")}, Constant(100));
    positions = graph.AddInput("positions", DType::kI32, {Symbol("rows")});
    picked = graph.AddInput("picked_rows", DType::kI32, {Symbol("picked")}, Symbol("rows"));
    sequences = graph.AddInput("sequences", DType::kI32, {Symbol("seqs"), Constant(4)});
    pages = graph.AddInput("pages", DType::kI32, {Symbol("entries")}, Symbol("pages"));
    params = graph.AddInput("params", DType::kI32, {Symbol("picked"), Constant(12)});
    adjust_tokens =
        graph.AddInput("adjust_tokens", DType::kI32, {Symbol("adjusts")}, Constant(100));
    adjustments = graph.AddInput("adjustments", DType::kI32, {Symbol("adjusts"), Constant(2)});
    table = graph.AddWeight("table", DType::kBf16, {Constant(100), Constant(32)});
    norm = graph.AddWeight("norm", DType::kF32, {Constant(32)});
    head_norm = graph.AddWeight("head_norm", DType::kF32, {Constant(8)});
    bias = graph.AddWeight("bias", DType::kF32, {Constant(100)});
    kv_proj = graph.AddWeight("kv_proj", DType::kF32, {Constant(16), Constant(32)});
    inv_freq = graph.AddWeight("inv_freq", DType::kF32, {Constant(4)}, {1, .1f, .01f, .001f});
    x = *graph.AddNode(Op::kEmbedding, "x", {table, tokens});
  }

  std::string TextOf(const Result<ValueId>& value) {
    if (!value) return value.error().message;
    return ToString(graph.value(*value).shape) + " " + Name(graph.value(*value).dtype);
  }
  std::string Add(Op op, std::vector<ValueId> inputs, Attributes attributes = {}) {
    return TextOf(graph.AddNode(op, "out" + std::to_string(next_++), inputs, attributes));
  }

  Graph graph;
  ValueId tokens, positions, picked, sequences, pages, params, adjust_tokens, adjustments;
  ValueId table, norm, head_norm, bias, kv_proj, inv_freq, x;

 private:
  int next_ = 0;
};

TEST_F(GraphTest, ShapesFollowTheRules) {
  EXPECT_EQ(Add(Op::kEmbedding, {table, tokens}), "[rows, 32] f32");
  EXPECT_EQ(Add(Op::kRmsNorm, {x, norm}, {{"group", 32}, {"epsilon", 1e-6}}), "[rows, 32] f32");
  EXPECT_EQ(Add(Op::kRmsNorm, {x, head_norm}, {{"group", 8}, {"epsilon", 1e-6}}), "[rows, 32] f32");
  EXPECT_EQ(Add(Op::kLinear, {x, table}), "[rows, 100] f32");
  EXPECT_EQ(Add(Op::kLinear, {x, table, bias}), "[rows, 100] f32");
  EXPECT_EQ(Add(Op::kGatedLinear, {x, table, table}), "[rows, 100] f32");
  EXPECT_EQ(Add(Op::kSilu, {x}), "[rows, 32] f32");
  EXPECT_EQ(Add(Op::kMul, {x, x}), "[rows, 32] f32");
  EXPECT_EQ(Add(Op::kAdd, {x, x}), "[rows, 32] f32");
  EXPECT_EQ(Add(Op::kConcat, {x, x, x}), "[rows, 96] f32");
  EXPECT_EQ(Add(Op::kSlice, {x}, {{"begin", 24}, {"size", 8}}), "[rows, 8] f32");
  EXPECT_EQ(Add(Op::kSelectRows, {x, picked}), "[picked, 32] f32");

  const ValueId angles =
      *graph.AddNode(Op::kRopeTable, "angles", {positions, inv_freq}, {{"scale", 1.0}});
  EXPECT_EQ(TextOf(angles), "[rows, 8] f32");
  EXPECT_EQ(Add(Op::kRope, {x, angles}, {{"heads", 4}}), "[rows, 32] f32");

  const ValueId k = *graph.AddNode(Op::kLinear, "k", {x, kv_proj});
  EXPECT_EQ(Add(Op::kAttention, {x, k, k, sequences, pages},
                {{"layer", 0},
                 {"heads", 4},
                 {"kv_heads", 2},
                 {"head_dim", 8},
                 {"scale", 0.35},
                 {"window", 0}}),
            "[rows, 32] f32");

  const ValueId last = *graph.AddNode(Op::kSelectRows, "last", {x, picked});
  const ValueId logits = *graph.AddNode(Op::kLinear, "logits", {last, table});
  EXPECT_EQ(Add(Op::kSample, {logits, params, adjust_tokens, adjustments}, {{"record_words", 44}}),
            "[picked, 44] i32");
  EXPECT_TRUE(Verify(graph));
}

TEST_F(GraphTest, CollectivesFollowTheRanks) {
  graph.ranks = 4;
  const auto collective = [this](int64_t kind, std::vector<ValueId> inputs) {
    return Add(Op::kCollective, std::move(inputs), {{"kind", kind}});
  };
  EXPECT_EQ(collective(0, {x}), "[rows, 32] f32");
  EXPECT_EQ(collective(0, {x, x}), "[rows, 32] f32");
  EXPECT_EQ(collective(1, {x}), "[rows, 128] f32");
  EXPECT_EQ(collective(2, {x}), "[rows, 8] f32");
  EXPECT_EQ(collective(3, {x}), "[rows, 32] f32");
  EXPECT_THAT(collective(4, {x}), HasSubstr("kind is none of 0 to 3"));
  EXPECT_THAT(collective(1, {x, x}), HasSubstr("only sums take a residual"));
  EXPECT_THAT(collective(2, {x, x}), HasSubstr("is not [rows, 8]"));
  EXPECT_TRUE(Verify(graph));
  EXPECT_THAT(ToText(graph), HasSubstr("ranks 4\n"));
  graph.ranks = 3;
  EXPECT_THAT(collective(2, {x}), HasSubstr("the ranks do not divide the columns of x"));
  graph.ranks = 0;
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("ranks are not in 1..1024"));
}

TEST_F(GraphTest, WhatDoesNotFitIsNamed) {
  EXPECT_THAT(Add(Op::kLinear, {x, kv_proj, bias}), HasSubstr("linear: 'bias' [100] is not [16]"));
  EXPECT_THAT(Add(Op::kLinear, {x}), HasSubstr("takes 4 operands, not 1"));
  EXPECT_THAT(Add(Op::kSilu, {x, x}), HasSubstr("takes 1 operands, not 2"));
  EXPECT_THAT(Add(Op::kAdd, {x, kNoValue}), HasSubstr("operand b is missing"));
  EXPECT_THAT(Add(Op::kAdd, {x, 1000}), HasSubstr("no value of the graph"));
  EXPECT_THAT(Add(Op::kAdd, {x, table}), HasSubstr("differ in shape"));
  EXPECT_THAT(Add(Op::kAdd, {tokens, tokens}), HasSubstr("operand a ('tokens') is i32"));
  EXPECT_THAT(Add(Op::kEmbedding, {table, positions}), HasSubstr("below [100]"));
  EXPECT_THAT(Add(Op::kSelectRows, {x, tokens}), HasSubstr("below [rows]"));
  EXPECT_THAT(Add(Op::kRmsNorm, {x, norm}, {{"group", 0}, {"epsilon", 1e-6}}),
              HasSubstr("group does not divide"));
  EXPECT_THAT(Add(Op::kRmsNorm, {x, norm}, {{"group", 32}}), HasSubstr("epsilon is missing"));
  EXPECT_THAT(Add(Op::kRmsNorm, {x, norm}, {{"group", 32}, {"epsilon", 1}}),
              HasSubstr("epsilon is not a real number"));
  EXPECT_THAT(Add(Op::kSilu, {x}, {{"beta", 1.0}}), HasSubstr("does not know"));
  EXPECT_THAT(Add(Op::kSlice, {x}, {{"begin", 25}, {"size", 8}}), HasSubstr("outside of x"));
  EXPECT_THAT(Add(Op::kSlice, {x}, {{"begin", 1}, {"size", INT64_MAX}}), HasSubstr("outside"));
  EXPECT_THAT(Add(Op::kAttention, {x, x, x, sequences, pages},
                  {{"layer", 0},
                   {"heads", 4},
                   {"kv_heads", 3},
                   {"head_dim", 8},
                   {"scale", 1.0},
                   {"window", 0}}),
              HasSubstr("kv_heads do not divide heads"));
}

TEST_F(GraphTest, VerifyChecksOrderAndSingleAssignment) {
  const ValueId y = *graph.AddNode(Op::kSilu, "y", {x});
  graph.AddOutput(y);
  ASSERT_TRUE(Verify(graph));
  const std::vector<Node> nodes = graph.nodes();

  graph.ReplaceNodes({nodes[1], nodes[0]});
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("'x' is used before it is produced"));
  graph.ReplaceNodes({nodes[0], nodes[0], nodes[1]});
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("produced twice"));
  graph.ReplaceNodes({nodes[0]});
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("never produced"));
  Node wrong = nodes[1];
  wrong.op = Op::kSlice;
  wrong.attributes = {{"begin", 0}, {"size", 4}};
  graph.ReplaceNodes({nodes[0], wrong});
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("gives [rows, 4] where [rows, 32]"));
}

TEST_F(GraphTest, VerifyChecksDeclarations) {
  const auto failure = [this](Shape shape, std::vector<float> values = {}) {
    Graph copy = graph;
    copy.AddWeight("odd", DType::kF32, std::move(shape), std::move(values));
    const auto verified = Verify(copy);
    return verified ? "" : verified.error().message;
  };
  EXPECT_EQ(failure({Constant(3)}), "");
  EXPECT_THAT(failure({Constant(0)}), HasSubstr("not positive"));
  EXPECT_THAT(failure({Symbol("nobody")}), HasSubstr("not declared"));
  EXPECT_THAT(failure({Constant(int64_t{1} << 40), Symbol("rows")}), HasSubstr("2^48"));
  EXPECT_THAT(failure({Constant(3)}, {1, 2}), HasSubstr("as many f32 values"));
}

TEST_F(GraphTest, SlicesGiveAWeightsRows) {
  const auto failure = [this](std::vector<TensorSlice> slices) {
    Graph copy = graph;
    const ValueId odd =
        copy.AddWeight("odd", DType::kBf16, {Constant(2), Constant(3), Constant(4)});
    copy.SetSlices(odd, std::move(slices));
    const auto verified = Verify(copy);
    return verified ? "" : verified.error().message;
  };
  EXPECT_EQ(failure({}), "");
  EXPECT_EQ(failure({{"a", 0, 6}}), "");
  EXPECT_EQ(failure({{"a", 7, 3}, {"b", 0, 3}}), "");
  EXPECT_THAT(failure({{"a", 0, 3}, {"b", 0, 2}}), HasSubstr("leave out 1 of its rows"));
  EXPECT_THAT(failure({{"a", 0, 3}, {"b", 0, 4}}), HasSubstr("takes 4 rows from row 0"));
  EXPECT_THAT(failure({{"a", 0, 6}, {"b", 0, 1}}), HasSubstr("slice of 'b' that is not sound"));
  EXPECT_THAT(failure({{"a", 0, 0}, {"b", 0, 6}}), HasSubstr("not sound"));
  EXPECT_THAT(failure({{"a", -1, 6}}), HasSubstr("not sound"));
  EXPECT_THAT(failure({{"a", INT64_MAX, 6}}), HasSubstr("not sound"));
  EXPECT_THAT(failure({{"", 0, 6}}), HasSubstr("not sound"));
  // Of as many columns as the weight has.
  EXPECT_EQ(failure({{"a", 0, 3, 8, 4}, {"b", 0, 3}}), "");
  EXPECT_THAT(failure({{"a", 0, 6, 8, 3}}), HasSubstr("takes 3 columns from column 8"));
  EXPECT_THAT(failure({{"a", 0, 6, -1, 4}}), HasSubstr("takes 4 columns from column -1"));
  EXPECT_THAT(failure({{"a", 0, 6, 4, 0}}), HasSubstr("takes 0 columns from column 4"));
  graph.SetSlices(inv_freq, {{"a", 0, 1}});
  EXPECT_THAT(Verify(graph).error().message, HasSubstr("is no weight of a file"));
}

TEST_F(GraphTest, TextSaysAllThatIsUsed) {
  graph.facts["heads"] = 4;
  const ValueId y =
      *graph.AddNode(Op::kRmsNorm, "y", {x, norm}, {{"group", 32}, {"epsilon", 1e-6}});
  graph.AddOutput(*graph.AddNode(Op::kLinear, "z", {y, kv_proj}));
  graph.SetSlices(norm, {{"norms", 3, 1}});
  graph.SetSlices(kv_proj, {{"k_proj", 8, 8}, {"v_proj", 0, 8}});
  EXPECT_EQ(ToText(graph),
            "graph test\n"
            "fact heads = 4\n"
            "symbol rows <= 512\n"
            "symbol picked <= 64\n"
            "symbol seqs <= 64\n"
            "symbol entries <= 4096\n"
            "symbol pages <= 1048576\n"
            "symbol adjusts <= 256\n"
            "input tokens [rows] i32 < 100\n"
            "input positions [rows] i32\n"
            "input picked_rows [picked] i32 < rows\n"
            "input sequences [seqs, 4] i32\n"
            "input pages [entries] i32 < pages\n"
            "input params [picked, 12] i32\n"
            "input adjust_tokens [adjusts] i32 < 100\n"
            "input adjustments [adjusts, 2] i32\n"
            "weight table [100, 32] bf16\n"
            "weight norm [32] f32 from norms[3:4]\n"
            "weight kv_proj [16, 32] f32 from k_proj[8:16] and 1 more\n"
            "x [rows, 32] f32 = embedding(table, tokens)\n"
            "y [rows, 32] f32 = rms_norm(x, norm) epsilon=1e-06 group=32\n"
            "z [rows, 16] f32 = linear(y, kv_proj, -, -)\n"
            "output z\n");
}

}  // namespace
}  // namespace millpower::ir
