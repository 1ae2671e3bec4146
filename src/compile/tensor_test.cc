// Graphs of tensors: what they become, and that it computes the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <set>

#include "base/expression.h"
#include "base/rng.h"
#include "base/tensor_ops.h"
#include "compile/compile.h"
#include "compile/test_graph.h"
#include "compile/test_tensors.h"
#include "isa/encoding.h"
#include "isa/verify.h"

namespace millpower::compile {
namespace {

using ir::Shape;
using isa::Opcode;
using testing::HasSubstr;

// Compiles, packs and runs the Program for several sizes and orders, and compares with the graph.
Compiled Check(const ir::Graph& graph, const Options& options = {}, double tolerance = 1e-5) {
  auto compiled = Compile(graph, options);
  EXPECT_TRUE(compiled) << compiled.error().message << "\n" << ir::ToText(graph);
  if (!compiled) return {};
  Tensors tensors;
  tensors.AddAllOf(graph);
  ThreadTeam team(2);
  const auto bound = PackAll(compiled->program, compiled->packing, tensors, team, {});
  EXPECT_TRUE(bound) << bound.error().message;
  if (!bound) return {};
  const auto decoded = isa::Decode(isa::Encode(compiled->program));
  EXPECT_TRUE(decoded && *decoded == compiled->program);
  Rng rng(17);
  uint64_t seed = 0;
  for (const Values& symbols : {Values{{"batch", 1}, {"seq", 5}}, Values{{"batch", 3}, {"seq", 2}},
                                Values{{"batch", 7}, {"seq", 1}}}) {
    Arrays inputs;
    for (const ir::Value& value : graph.values())
      if (value.kind == ir::ValueKind::kInput)
        inputs[value.name] = RandomArray(value, symbols, rng);
    const auto expected = Interpret(graph, symbols, inputs, tensors);
    const auto actual = Interpret(compiled->program, *bound, symbols, inputs, seed++);
    EXPECT_TRUE(expected) << expected.error().message;
    EXPECT_TRUE(actual) << actual.error().message;
    if (!expected || !actual) break;
    EXPECT_EQ(actual->size(), expected->size());
    for (const auto& [name, array] : *expected)
      ExpectClose(actual->at(name), array, name, tolerance);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << ir::ToText(graph) << isa::Print(compiled->program);
      break;
    }
  }
  return std::move(*compiled);
}

int Count(const Compiled& compiled, Opcode op) {
  int count = 0;
  for (const auto& stream : compiled.program.streams)
    for (const isa::Instruction& in : stream) count += in.op == op ? 1 : 0;
  return count;
}

int Instructions(const Compiled& compiled) {
  int count = 0;
  for (const auto& stream : compiled.program.streams)
    for (const isa::Instruction& in : stream)
      count += in.op != Opcode::kEnd && in.op != Opcode::kWait && in.op != Opcode::kPost ? 1 : 0;
  return count;
}

const isa::Buffer* Find(const Compiled& compiled, const std::string& name) {
  const int32_t id = compiled.program.FindBuffer(name);
  return id < 0 ? nullptr : &compiled.program.buffers[static_cast<size_t>(id)];
}

const Shape kX = {Symbol("batch"), Constant(13)};

TEST(TensorCompile, MakesAPerceptronItsProducts) {
  for (const bool lies_n_k : {true, false}) {
    for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
      Model m;
      ValueId h = m.Input("x", kX);
      for (const char* name : {"a", "b"}) {
        const int64_t k = m.ShapeOf(h).back().size;
        ValueId w =
            m.Weight(std::string(name) + ".w",
                     lies_n_k ? std::vector<int64_t>{21, k} : std::vector<int64_t>{k, 21}, dtype);
        if (dtype != DType::kF32) w = m.Cast(w, DType::kF32);
        h = m.Binary(MapOp::kAdd, m.Contract(h, w, false, lies_n_k),
                     m.Weight(std::string(name) + ".b", {1, 21}));
        h = m.Unary(MapOp::kRelu, h);
      }
      m.graph.AddOutput(m.Unary(MapOp::kSigmoid, m.Linear("c", h, 1)));
      const Compiled compiled = Check(m.graph);
      EXPECT_EQ(Count(compiled, Opcode::kMatMul), 3);
      EXPECT_EQ(Instructions(compiled), 4);
      ASSERT_NE(Find(compiled, "a.w"), nullptr);
      EXPECT_EQ(Find(compiled, "a.w")->form, isa::Form::kPacked);
      EXPECT_EQ(Find(compiled, "a.w")->dtype, dtype == DType::kF16 ? DType::kF32 : dtype);
      EXPECT_EQ(Find(compiled, "a.w")->rows, (isa::Dim{-1, 21}));
    }
  }
}

TEST(TensorCompile, QuantisesWeightsWhenAsked) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Symbol("seq"), Constant(13)});
  const ValueId a = m.Linear("a", x, 40), b = m.Linear("b", x, 40, false);
  m.graph.AddOutput(m.Binary(MapOp::kMul, a, b));
  const auto compiled = Compile(m.graph, {.weight_type = DType::kQ8_0, .kv_type = {}});
  ASSERT_TRUE(compiled) << compiled.error().message;
  EXPECT_EQ(Count(*compiled, Opcode::kQuantise), 1);
  EXPECT_EQ(Find(*compiled, "b.w")->dtype, DType::kQ8_0);
  ASSERT_EQ(compiled->conversions.size(), 1u);
  EXPECT_EQ(compiled->conversions[0].tensors, 2);
  Tensors tensors;
  tensors.AddAllOf(m.graph);
  ThreadTeam team(1);
  EXPECT_TRUE(PackAll(compiled->program, compiled->packing, tensors, team, {}));
}

TEST(TensorCompile, FoldsTheTransposeOfAWeight) {
  Model m;
  const ValueId x = m.Input("x", kX);
  m.graph.AddOutput(m.Contract(x, m.Transpose(m.Weight("w", {9, 13}), {1, 0})));
  m.graph.AddOutput(
      m.Contract(x, m.Literal<float>("l", DType::kF32, {13, 2}, std::vector<float>(26, 0.5f))));
  const Compiled compiled = Check(m.graph);
  EXPECT_EQ(Instructions(compiled), 2);
  EXPECT_FALSE(compiled.packing.at("w").transposed);
  EXPECT_TRUE(compiled.packing.at("l").transposed);
}

TEST(TensorCompile, FoldsTheTransposeOfWhatIsComputed) {
  Model m;
  const ValueId x =
      m.Unary(MapOp::kTanh, m.Input("x", {Symbol("batch"), Constant(5), Constant(3)}));
  const ValueId turned = m.Transpose(x, {0, 2, 1});
  m.graph.AddOutput(m.Contract(x, turned));
  m.graph.AddOutput(m.Contract(turned, x));
  m.graph.AddOutput(m.Contract(turned, turned, true, false));
  const Compiled folded = Check(m.graph);
  EXPECT_EQ(Count(folded, Opcode::kContract), 3);
  EXPECT_EQ(Count(folded, Opcode::kCopy), 0);
  // Another transpose than of the matrices stays.
  Model other;
  const ValueId y =
      other.Unary(MapOp::kTanh, other.Input("x", {Symbol("batch"), Constant(4), Constant(4)}));
  other.graph.AddOutput(
      other.Contract(other.Transpose(y, {1, 0, 2}), other.Weight("w", {4, 4, 2})));
  EXPECT_EQ(Count(Check(other.graph), Opcode::kCopy), 1);
}

TEST(TensorCompile, GivesAWeightBothForms) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(4)});
  const ValueId w = m.Weight("w", {4, 4});
  m.graph.AddOutput(m.Contract(x, w));
  m.graph.AddOutput(m.Contract(x, w, false, true));
  m.graph.AddOutput(m.Unary(MapOp::kNeg, w));
  const Compiled compiled = Check(m.graph);
  EXPECT_EQ(Find(compiled, "w")->form, isa::Form::kPacked);
  EXPECT_EQ(Find(compiled, "w.packed")->form, isa::Form::kPacked);
  EXPECT_EQ(Find(compiled, "w.rows")->form, isa::Form::kRows);
}

TEST(TensorCompile, TakesResidualsAlong) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(3), Constant(8)});
  ValueId h = m.Unary(MapOp::kTanh, x);
  h = m.Binary(MapOp::kAdd, h, m.Linear("a", h, 8));
  h = m.Binary(MapOp::kAdd, m.Linear("b", h, 8), h);
  m.graph.AddOutput(m.Unary(MapOp::kNeg, h));
  const Compiled compiled = Check(m.graph);
  EXPECT_EQ(Count(compiled, Opcode::kMatMul), 2);
  EXPECT_EQ(Count(compiled, Opcode::kMap), 2);
  EXPECT_EQ(Count(compiled, Opcode::kCopy), 0);
}

TEST(TensorCompile, FusesChainsOfMaps) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(6)});
  const ValueId half = m.Literal<float>("half", DType::kF32, {}, {0.5f});
  const ValueId bias = m.Weight("bias", {6});
  ValueId h = m.Binary(MapOp::kMul, x, half);
  h = m.Binary(MapOp::kAdd, h, bias);
  h = m.Binary(MapOp::kMul, m.Unary(MapOp::kSigmoid, h), h);  // h twice: computed once
  m.graph.AddOutput(m.Binary(MapOp::kSub, h, x));
  const Compiled compiled = Check(m.graph);
  EXPECT_EQ(Count(compiled, Opcode::kMap), 1);
  EXPECT_EQ(Find(compiled, "half"), nullptr);
}

TEST(TensorCompile, ComputesNothingTwiceThatCostsSomething) {
  Model m;
  const Shape row = {Symbol("batch"), Constant(1)}, wide = {Symbol("batch"), Constant(64)};
  const ValueId x = m.Input("x", row);
  const ValueId y = m.Input("y", wide);
  const ValueId e = m.Unary(MapOp::kExp, x);  // would be computed 64 times
  m.graph.AddOutput(m.Binary(MapOp::kMul, y, e, wide));
  // A mask loads nothing, and goes where it is read.
  Expression mask;
  const int16_t column = mask.Index(1), limit = mask.Constant(DType::kI64, int64_t{9});
  mask.Apply(MapOp::kLess, DType::kBool, {column, limit});
  const ValueId keep = m.Map(mask, {}, {Constant(1), Constant(64)});
  Expression choose;
  const int16_t k = choose.Load(0, DType::kBool), v = choose.Load(1, DType::kF32);
  choose.Apply(MapOp::kSelect, DType::kF32, {k, v, choose.Constant(DType::kF32, 0.0)});
  for (int i = 0; i < 2; ++i)
    m.graph.AddOutput(m.Map(choose, {keep, i == 0 ? y : m.Unary(MapOp::kNeg, y)}, wide));
  const Compiled compiled = Check(m.graph);
  EXPECT_EQ(Count(compiled, Opcode::kMap), 4);
}

TEST(TensorCompile, KeepsMapsWithinTheirLimits) {
  Model m;
  const Shape shape = {Symbol("batch"), Constant(3)};
  ValueId sum = m.Input("x0", shape);
  for (int i = 1; i < 20; ++i)
    sum = m.Binary(MapOp::kAdd, sum, m.Input("x" + std::to_string(i), shape));
  ValueId h = sum;
  for (int i = 0; i < 100; ++i) h = m.Unary(i % 2 == 0 ? MapOp::kTanh : MapOp::kNeg, h);
  m.graph.AddOutput(h);
  const Compiled compiled = Check(m.graph);
  EXPECT_LE(Count(compiled, Opcode::kMap), 6);
  int scratch = 0;
  for (const isa::Buffer& buffer : compiled.program.buffers)
    scratch += buffer.kind == isa::BufferKind::kScratch ? 1 : 0;
  EXPECT_EQ(scratch, 1);  // each is written over the one before
}

TEST(TensorCompile, ShapesCostNothing) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Symbol("seq"), Constant(4)});
  const Size rows = *Size::Symbol("batch").Times(Size::Symbol("seq"));
  ValueId h = m.Reshape(m.Unary(MapOp::kExp, x), {ir::DimOf(rows), Constant(4)});
  h = m.Reshape(m.Linear("a", h, 8), {Symbol("batch"), Symbol("seq"), Constant(2), Constant(4)});
  h = m.Transpose(h, {0, 2, 1, 3});
  h = m.Add(Op::kSoftmax, {h}, {{"log", int64_t{0}}});
  m.graph.AddOutput(m.Transpose(h, {0, 2, 1, 3}));
  const Compiled compiled = Check(m.graph);
  EXPECT_EQ(Instructions(compiled), 5);
  bool named = false;
  for (const isa::Register& reg : compiled.program.registers)
    named = named || (reg.name == "batch*seq" && reg.formula == "batch*seq" && reg.max == 35);
  EXPECT_TRUE(named);
}

TEST(TensorCompile, GivesEveryOutputABufferOfItsOwn) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(6)});
  const ValueId w = m.Weight("w", {2, 3});
  const ValueId h = m.Unary(MapOp::kNeg, x);
  m.graph.AddOutput(h);
  m.graph.AddOutput(m.Reshape(h, {Symbol("batch"), Constant(2), Constant(3)}));
  m.graph.AddOutput(m.Reshape(x, {Symbol("batch"), Constant(3), Constant(2)}));
  m.graph.AddOutput(m.Reshape(w, {Constant(6)}));
  m.graph.AddOutput(m.Slice(h, 1, 2, 3));
  m.graph.AddOutput(m.Reshape(m.Slice(x, 1, 5, 1), {Symbol("batch")}));
  m.graph.AddOutput(m.Join({h, h}, 1));
  const Compiled compiled = Check(m.graph);
  int outputs = 0;
  for (const isa::Buffer& buffer : compiled.program.buffers)
    outputs += buffer.kind == isa::BufferKind::kOutput ? 1 : 0;
  EXPECT_EQ(outputs, 7);

  Model refused;
  refused.graph.AddOutput(refused.Input("x", kX));
  refused.graph.AddOutput(refused.Unary(MapOp::kNeg, 0));
  const auto failed = Compile(refused.graph, {});
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("'x' is not computed"));
}

// The interaction of DLRM: what the tables and the first layers give is written straight into the
// joined rows.
TEST(TensorCompile, JoinsDlrmInPlace) {
  const int64_t tables = 5;
  const ir::Graph graph = DlrmGraph(tables, 8);
  const Compiled compiled = Check(graph);
  EXPECT_EQ(Count(compiled, Opcode::kEmbeddingBag), tables);
  EXPECT_EQ(Count(compiled, Opcode::kMatMul), 2);
  EXPECT_EQ(Count(compiled, Opcode::kCopy), 1);  // the first layer's result is in two joins
  EXPECT_EQ(Count(compiled, Opcode::kMap), 1);
  EXPECT_EQ(Find(compiled, "table0")->form, isa::Form::kTable);
  for (const DType type : {DType::kBf16, DType::kF16, DType::kI8}) {
    Options options;
    options.table_type = type;
    EXPECT_EQ(Find(Check(graph, options, type == DType::kI8 ? 0.05 : 0.02), "table3")->dtype, type);
  }
}

TEST(TensorCompile, TakesRowsOfAWeightAsBags) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    Model m;
    const ValueId ids = m.Input("ids", {Symbol("batch"), Symbol("seq")}, DType::kI64, Constant(9));
    ValueId h = m.Take(m.Weight("embed", {9, 5}, dtype), ids, 0);
    if (dtype != DType::kF32) h = m.Cast(h, DType::kF32);
    m.graph.AddOutput(m.Linear("a", h, 3));
    m.graph.AddOutput(m.Take(m.Weight("other", {9, 5}, dtype), ids, 1 - 1));
    const Compiled compiled = Check(m.graph);
    EXPECT_EQ(Count(compiled, Opcode::kEmbeddingBag), 2);
    EXPECT_EQ(Count(compiled, Opcode::kTake), 0);
    EXPECT_EQ(Find(compiled, "embed")->form, isa::Form::kTable);
  }
}

ValueId Reduce(Model& m, ValueId x, Reduction kind, int64_t axis) {
  return m.Add(Op::kReduce, {x},
               {{"kind", static_cast<int64_t>(kind)}, {"axes", std::vector<int64_t>{axis}}});
}

TEST(TensorCompile, PoolsRowsThatAreReduced) {
  for (const Reduction kind : {Reduction::kSum, Reduction::kMean, Reduction::kMax}) {
    Model m;
    const ValueId ids = m.Input("ids", {Symbol("batch"), Constant(4)}, DType::kI64, Constant(9));
    const ValueId rows = m.Take(m.Weight("embed", {9, 5}), ids, 0);
    m.graph.AddOutput(Reduce(m, rows, kind, 1));
    const Compiled pooled = Check(m.graph);
    EXPECT_EQ(Count(pooled, Opcode::kEmbeddingBag), 1);
    EXPECT_EQ(Count(pooled, Opcode::kReduce), 0);
  }
  Model m;  // over columns: no bag
  const ValueId ids = m.Input("ids", {Symbol("batch"), Constant(4)}, DType::kI64, Constant(9));
  m.graph.AddOutput(Reduce(m, m.Take(m.Weight("embed", {9, 5}), ids, 0), Reduction::kSum, 2));
  EXPECT_EQ(Count(Check(m.graph), Opcode::kReduce), 1);
}

TEST(TensorCompile, CarriesOutEveryOperator) { Check(GraphOfEveryOperator()); }

TEST(TensorCompile, LeavesOutWhatNobodyNeedsAndWhatIsSaidTwice) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(4)});
  m.Unary(MapOp::kExp, x);
  const ValueId a = m.Add(Op::kSoftmax, {x}, {{"log", int64_t{0}}});
  const ValueId b =
      m.Add(Op::kSoftmax, {m.Reshape(x, {Symbol("batch"), Constant(4)})}, {{"log", int64_t{0}}});
  const ValueId c = m.Transpose(m.Transpose(b, {1, 0}), {1, 0});
  m.graph.AddOutput(m.Binary(MapOp::kAdd, a, c));
  const Compiled compiled = Check(m.graph);
  EXPECT_EQ(Instructions(compiled), 2);
}

TEST(TensorCompile, RefusesByName) {
  auto error_of = [](const Model& m, const Options& options = {}) {
    const auto compiled = Compile(m.graph, options);
    return compiled ? std::string() : compiled.error().message;
  };
  Model m;
  const ValueId x = m.Input("x", kX);
  m.graph.AddOutput(m.Unary(MapOp::kNeg, x));
  EXPECT_EQ(error_of(m), "");
  Options options;
  options.table_type = DType::kQ8_0;
  EXPECT_THAT(error_of(m, options), HasSubstr("tables cannot be q8_0"));
  m.graph.AddOutput(m.Add(Op::kSilu, {x}));
  EXPECT_THAT(error_of(m), HasSubstr("no instruction carries out silu"));
}

// ---- packing ----

// A source whose tensors lie in memory that may be written.
class SharingSource final : public ir::WeightSource {
 public:
  SharingSource(DType dtype, std::vector<int64_t> shape, size_t shift) : shift_(shift) {
    view_.dtype = dtype;
    view_.shape = std::move(shape);
    const int64_t size_bytes = view_.shape[0] * view_.shape[1] * SizeBytes(dtype);
    bytes_->resize(static_cast<size_t>(size_bytes) + shift);
    Rng rng(3);
    for (std::byte& byte : *bytes_) byte = static_cast<std::byte>(rng.Below(64));
    view_.bytes = std::span(*bytes_).subspan(shift);
  }
  Result<ir::TensorView> Find(const std::string&) const override { return view_; }
  void Release(std::span<const std::byte>) const override {}
  std::optional<Shared> Share(std::span<const std::byte> bytes) const override {
    const auto begin = static_cast<size_t>(bytes.data() - bytes_->data());
    return Shared{std::span(*bytes_).subspan(begin, bytes.size()), bytes_};
  }

 private:
  std::shared_ptr<std::vector<std::byte>> bytes_ = std::make_shared<std::vector<std::byte>>();
  size_t shift_;
  ir::TensorView view_;
};

TEST(TensorPack, SharesTablesThatAreAsTheyMustBe) {
  struct Case {
    DType dtype;
    int64_t cols;
    size_t shift;
    std::optional<DType> asked;
    bool shared;
  };
  for (const Case& c :
       {Case{DType::kF32, 3, 0, {}, true}, Case{DType::kBf16, 6, 0, {}, true},
        Case{DType::kF16, 6, 4, {}, true}, Case{DType::kF16, 5, 0, {}, false},
        Case{DType::kF32, 3, 1, {}, false}, Case{DType::kF32, 3, 0, DType::kI8, false}}) {
    Model m;
    const ValueId ids = m.Input("ids", {Symbol("batch"), Constant(2)}, DType::kI64);
    m.graph.AddOutput(m.Bag(m.Weight("table", {7, c.cols}, c.dtype), ids));
    Options options;
    options.table_type = c.asked;
    const auto compiled = Compile(m.graph, options);
    ASSERT_TRUE(compiled) << compiled.error().message;
    auto source =
        std::make_unique<SharingSource>(c.dtype, std::vector<int64_t>{7, c.cols}, c.shift);
    const auto bytes = source->Find("")->bytes;
    const auto table = static_cast<size_t>(compiled->program.FindBuffer("table"));
    ThreadTeam team(2);
    const auto copied = PackAll(compiled->program, compiled->packing, *source, team, {});
    const auto bound =
        PackAll(compiled->program, compiled->packing, *source, team, {}, {.share_tables = true});
    ASSERT_TRUE(bound && copied);
    EXPECT_TRUE(bound->tables_are_writable);
    EXPECT_NE(copied->by_buffer[table].data(), bytes.data());
    EXPECT_EQ(bound->by_buffer[table].data() == bytes.data(), c.shared) << Name(c.dtype);
    source.reset();  // the memory stays
    EXPECT_TRUE(std::ranges::equal(bound->by_buffer[table], copied->by_buffer[table]));
  }
}

TEST(TensorPack, RoundsRowsOfTables) {
  Model m;
  const ValueId ids = m.Input("ids", {Symbol("batch"), Constant(2)}, DType::kI64);
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> rows = {127, -127, 2.5, 3.5, -0.25,  //
                                   7,   -3.4, 0,   1.6, -7,     //
                                   0,   0,    0,   0,   0,      //
                                   1,   inf,  2,   3,   4};
  m.graph.AddOutput(m.Bag(m.Literal<float>("table", DType::kF32, {4, 5}, rows), ids));
  for (const DType type : {DType::kI8, DType::kI4}) {
    Options options;
    options.table_type = type;
    const auto compiled = Compile(m.graph, options);
    ASSERT_TRUE(compiled) << compiled.error().message;
    ThreadTeam team(1);
    const auto bound = PackAll(compiled->program, compiled->packing, Tensors(), team, {});
    ASSERT_TRUE(bound) << bound.error().message;
    const auto bytes = bound->by_buffer[static_cast<size_t>(compiled->program.FindBuffer("table"))];
    ASSERT_EQ(std::ssize(bytes), 4 * isa::TableRowBytes(5, type));
    auto scale = [&](int64_t row) {
      float value = 0;
      std::memcpy(&value, bytes.data() + row * isa::TableRowBytes(5, type), 4);
      return value;
    };
    auto quants = [&](int64_t row) {
      const std::byte* at = bytes.data() + row * isa::TableRowBytes(5, type) + 4;
      std::vector<int> values;
      for (int i = 0; i < 5; ++i)
        values.push_back(type == DType::kI8
                             ? static_cast<int>(static_cast<int8_t>(at[i]))
                             : (static_cast<int>(at[i / 2]) >> (i % 2 * 4) & 15) - 8);
      return values;
    };
    if (type == DType::kI8) {
      EXPECT_EQ(scale(0), 1);
      EXPECT_EQ(quants(0), (std::vector{127, -127, 2, 4, 0}));  // halves to even
    } else {
      EXPECT_EQ(scale(1), 1);
      EXPECT_EQ(quants(1), (std::vector{7, -3, 0, 2, -7}));
    }
    EXPECT_EQ(scale(2), 0);
    EXPECT_EQ(quants(2), (std::vector{0, 0, 0, 0, 0}));
    EXPECT_TRUE(std::isnan(scale(3)));  // spoils what it is part of, as the float would
  }
}

TEST(TensorPack, NamesATensorOfAnotherShape) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(4)});
  const ValueId ids = m.Input("ids", {Symbol("batch"), Constant(2)}, DType::kI64);
  m.graph.AddOutput(m.Contract(x, m.Weight("w", {4, 3})));
  m.graph.AddOutput(m.Bag(m.Weight("table", {5, 2}), ids));
  m.graph.AddOutput(m.Binary(MapOp::kAdd, x, m.Weight("raw", {4})));
  const auto compiled = Compile(m.graph, {});
  ASSERT_TRUE(compiled) << compiled.error().message;
  auto error_with = [&](const std::string& name, DType dtype, std::vector<int64_t> shape) {
    Tensors tensors;
    tensors.AddAllOf(m.graph);
    tensors.Add(name, dtype, std::move(shape));
    ThreadTeam team(1);
    const auto bound = PackAll(compiled->program, compiled->packing, tensors, team, {});
    return bound ? std::string() : bound.error().message;
  };
  EXPECT_EQ(error_with("w", DType::kF32, {4, 3}), "");
  EXPECT_EQ(error_with("w", DType::kF32, {5, 3}), "tensor 'w' is not 4 rows of 3 floats");
  EXPECT_THAT(error_with("w", DType::kF32, {4, 2}), HasSubstr("not a float tensor of 3 columns"));
  EXPECT_THAT(error_with("w", DType::kI32, {4, 3}), HasSubstr("not a float tensor"));
  EXPECT_EQ(error_with("table", DType::kF32, {6, 2}),
            "tensor 'table' has 6 rows where the Program declares 5");
  EXPECT_THAT(error_with("raw", DType::kF32, {5}), HasSubstr("does not have the 16 bytes"));
  EXPECT_THAT(error_with("raw", DType::kF32, {3}), HasSubstr("does not have the 16 bytes"));
  EXPECT_THAT(error_with("raw", DType::kBf16, {4}), HasSubstr("does not hold f32"));
}

// Weights whose names are no names of buffers, or that lie in several tensors.
TEST(TensorPack, FindsWeightsByAnyName) {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(4)});
  const ValueId odd = m.Weight("/layer:0 w\xc3\xa9", {4, 3});
  const ValueId cut = m.Weight("cut", {4, 3});
  m.graph.SetSlices(cut, {{"part.0", 0, 1}, {"part.1", 2, 3}});
  m.graph.AddOutput(m.Binary(MapOp::kAdd, m.Contract(x, odd), m.Weight("x_", {3})));
  m.graph.AddOutput(m.Contract(x, cut));
  m.graph.AddOutput(m.Contract(cut, x, true, true));
  const auto compiled = Compile(m.graph, {});
  ASSERT_TRUE(compiled) << compiled.error().message;
  Tensors tensors;
  tensors.AddAllOf(m.graph);
  ThreadTeam team(1);
  EXPECT_TRUE(PackAll(compiled->program, compiled->packing, tensors, team, {}));
}

TEST(TensorCompile, RandomGraphsComputeTheSame) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Check(RandomGraph(seed).Make(), {}, 1e-4);
    if (HasFailure()) break;
  }
}

TEST(TensorCompile, CompilesLongGraphsQuickly) {
  Model m;
  const Shape shape = {Symbol("batch"), Constant(8)};
  const ValueId x = m.Input("x", shape);
  ValueId h = x;
  const ValueId w = m.Weight("w", {8, 8});
  for (int i = 0; i < 3000; ++i)
    h = m.Unary(MapOp::kTanh, m.Binary(MapOp::kAdd, m.Contract(h, w), m.Slice(x, 1, i % 8, 1)));
  m.graph.AddOutput(h);
  const auto compiled = Compile(m.graph, {});
  ASSERT_TRUE(compiled) << compiled.error().message;
  EXPECT_EQ(Count(*compiled, Opcode::kMatMul), 3000);
}

}  // namespace
}  // namespace millpower::compile
