// Graphs of tensors as importers build them, at random too, and inputs for them: for the tests of
// this folder and of devices that run what it compiles.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/expression.h"
#include "base/rng.h"
#include "base/tensor_ops.h"
#include "compile/test_graph.h"
#include "compile/test_interpreter.h"

namespace millpower::compile {

using ir::Shape;

// A graph as importers build one.
class Model {
 public:
  Model() {
    graph.name = "model";
    graph.AddSymbol("batch", 7);
    graph.AddSymbol("seq", 5);
  }
  ValueId Input(const std::string& name, Shape shape, DType dtype = DType::kF32,
                std::optional<ir::Dim> bound = std::nullopt) {
    return graph.AddInput(name, dtype, std::move(shape), std::move(bound));
  }
  ValueId Weight(const std::string& name, const std::vector<int64_t>& shape,
                 DType dtype = DType::kF32) {
    Shape dims;
    for (const int64_t size : shape) dims.push_back(Constant(size));
    return graph.AddWeight(name, dtype, dims);
  }
  template <typename T>
  ValueId Literal(const std::string& name, DType dtype, const std::vector<int64_t>& shape,
                  const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    return graph.AddLiteral(name, dtype, shape, {bytes.begin(), bytes.end()});
  }
  Result<ValueId> TryAdd(Op op, std::vector<ValueId> inputs, ir::Attributes attributes = {}) {
    return graph.AddNode(op, "v" + std::to_string(next_++), std::move(inputs),
                         std::move(attributes));
  }
  ValueId Add(Op op, std::vector<ValueId> inputs, ir::Attributes attributes = {}) {
    const auto added = TryAdd(op, std::move(inputs), std::move(attributes));
    CHECK(added) << added.error().message;
    return *added;
  }
  ValueId Map(const Expression& expression, std::vector<ValueId> inputs, Shape shape,
              Shape sizes = {}) {
    return Add(Op::kMap, std::move(inputs),
               {{"code", expression.Encode()}, {"sizes", sizes}, {"shape", shape}});
  }
  DType TypeOf(ValueId x) const { return graph.value(x).dtype; }
  const Shape& ShapeOf(ValueId x) const { return graph.value(x).shape; }
  ValueId Unary(MapOp op, ValueId x) {
    Expression e;
    e.Apply(op, TypeOf(x), {e.Load(0, TypeOf(x))});
    return Map(e, {x}, ShapeOf(x));
  }
  ValueId Cast(ValueId x, DType to) {
    Expression e;
    e.Apply(MapOp::kCast, to, {e.Load(0, TypeOf(x))});
    return Map(e, {x}, ShapeOf(x));
  }
  // `shape`: what both broadcast to; a's when it is left out.
  ValueId Binary(MapOp op, ValueId a, ValueId b, std::optional<Shape> shape = std::nullopt) {
    Expression e;
    const int16_t x = e.Load(0, TypeOf(a)), y = e.Load(1, TypeOf(b));
    e.Apply(op, TypeOf(a), {x, y});
    return Map(e, {a, b}, shape.value_or(ShapeOf(a)));
  }
  // x w + b, as files say it: a contract, then an addition.
  ValueId Linear(const std::string& name, ValueId x, int64_t n, bool lies_n_k = true,
                 DType dtype = DType::kF32) {
    const int64_t k = ShapeOf(x).back().size;
    const ValueId w = Weight(name + ".w", lies_n_k ? std::vector{n, k} : std::vector{k, n}, dtype);
    const ValueId product = Contract(x, w, false, lies_n_k);
    return Binary(MapOp::kAdd, product, Weight(name + ".b", {n}));
  }
  ValueId Contract(ValueId a, ValueId b, bool ta = false, bool tb = false) {
    return Add(Op::kContract, {a, b}, {{"transpose_a", int64_t{ta}}, {"transpose_b", int64_t{tb}}});
  }
  ValueId Reshape(ValueId x, Shape shape) {
    return Add(Op::kReshape, {x}, {{"shape", std::move(shape)}});
  }
  ValueId Transpose(ValueId x, std::vector<int64_t> perm) {
    return Add(Op::kTranspose, {x}, {{"perm", std::move(perm)}});
  }
  ValueId Slice(ValueId x, size_t axis, int64_t begin, int64_t size, int64_t step = 1) {
    Shape begins(ShapeOf(x).size(), Constant(0)), shape = ShapeOf(x);
    std::vector<int64_t> steps(shape.size(), 1);
    begins[axis] = Constant(begin);
    shape[axis] = Constant(size);
    steps[axis] = step;
    return Add(Op::kStridedSlice, {x}, {{"begin", begins}, {"step", steps}, {"shape", shape}});
  }
  ValueId Join(std::vector<ValueId> parts, int64_t axis) {
    return Add(Op::kJoin, std::move(parts), {{"axis", axis}});
  }
  ValueId Bag(ValueId table, ValueId index, ValueId offsets = ir::kNoValue,
              ValueId weights = ir::kNoValue, ir::Attributes changes = {}) {
    ir::Attributes attributes = {{"mode", int64_t{0}},
                                 {"ends", int64_t{0}},
                                 {"policy", int64_t{0}},
                                 {"default_row", int64_t{-1}},
                                 {"padding_row", int64_t{-1}}};
    for (auto& [name, value] : changes) attributes[name] = value;
    return Add(Op::kEmbeddingBag, {table, index, offsets, weights}, attributes);
  }
  ValueId Take(ValueId x, ValueId index, int64_t axis, IndexPolicy policy = IndexPolicy::kWrap) {
    return Add(Op::kTake, {x, index}, {{"axis", axis}, {"policy", static_cast<int64_t>(policy)}});
  }

  ir::Graph graph;

 private:
  int next_ = 0;
};

inline Array RandomArray(const ir::Value& value, const Values& symbols, Rng& rng) {
  std::vector<int64_t> shape;
  for (const ir::Dim& dim : value.shape)
    shape.push_back(*ir::SizeOf(dim).Evaluate(
        [&](const std::string& name) { return std::optional(symbols.at(name)); }));
  Array array = Array::Zeros(value.dtype, shape);
  for (int64_t i = 0; i < array.count(); ++i) {
    if (IsFloat(value.dtype)) {
      array.Set(i, static_cast<double>(rng.Uniform(-2, 2)));
    } else {
      const int64_t bound = value.index_bound ? value.index_bound->size : 2;
      array.SetInteger(i, static_cast<int64_t>(rng.Below(static_cast<uint64_t>(bound))));
    }
  }
  return array;
}

inline void ExpectClose(const Array& actual, const Array& expected, const std::string& what,
                        double tolerance) {
  ASSERT_EQ(actual.count(), expected.count()) << what;
  ASSERT_EQ(actual.dtype, expected.dtype) << what;
  double largest = 1;
  for (int64_t i = 0; i < expected.count(); ++i)
    if (std::isfinite(expected.real(i))) largest = std::max(largest, std::abs(expected.real(i)));
  for (int64_t i = 0; i < expected.count(); ++i) {
    const double a = actual.real(i), b = expected.real(i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    ASSERT_NEAR(a, b, tolerance * largest) << what << " element " << i;
  }
}

// DLRM with so many tables of 11 rows of `dim`: inputs `dense` [batch, 13] and `sparse` [batch,
// tables], an output [batch, 1].
inline ir::Graph DlrmGraph(int64_t tables, int64_t dim) {
  Model m;
  const ValueId dense = m.Input("dense", {Symbol("batch"), Constant(13)});
  const ValueId sparse =
      m.Input("sparse", {Symbol("batch"), Constant(tables)}, DType::kI64, Constant(11));
  const ValueId bottom = m.Unary(MapOp::kRelu, m.Linear("bottom", dense, dim));
  std::vector<ValueId> parts = {bottom};
  for (int64_t i = 0; i < tables; ++i)
    parts.push_back(
        m.Bag(m.Weight("table" + std::to_string(i), {11, dim}), m.Slice(sparse, 1, i, 1)));
  for (ValueId& part : parts) part = m.Reshape(part, {Symbol("batch"), Constant(1), Constant(dim)});
  const ValueId stack = m.Join(parts, 1);
  const ValueId products = m.Contract(stack, stack, false, true);
  std::vector<int64_t> places;
  for (int64_t i = 0; i <= tables; ++i)
    for (int64_t j = 0; j < i; ++j) places.push_back(i * (tables + 1) + j);
  const ValueId index = m.Literal<int64_t>("places", DType::kI64, {std::ssize(places)}, places);
  const ValueId flat =
      m.Reshape(products, {Symbol("batch"), Constant((tables + 1) * (tables + 1))});
  const ValueId top = m.Join({bottom, m.Take(flat, index, 1)}, 1);
  m.graph.AddOutput(m.Unary(MapOp::kSigmoid, m.Linear("top", top, 1)));
  return m.graph;
}

// Every operator there is, mostly as an output.
inline ir::Graph GraphOfEveryOperator() {
  Model m;
  const ValueId x = m.Input("x", {Symbol("batch"), Constant(4), Constant(6)});
  const ValueId image = m.Input("image", {Symbol("batch"), Constant(4), Constant(7), Constant(5)});
  const ValueId ids = m.Input("ids", {Symbol("batch"), Constant(3)}, DType::kI64, Constant(4));
  const ValueId offsets = m.Input("offsets", {Symbol("batch")}, DType::kI32, Constant(1));
  const auto out = [&](ValueId value) { m.graph.AddOutput(value); };
  for (int64_t kind = 0; kind <= static_cast<int64_t>(Reduction::kLastArgMin); ++kind)
    out(m.Add(Op::kReduce, {x}, {{"kind", kind}, {"axes", std::vector<int64_t>{2}}}));
  out(m.Add(Op::kExpand, {m.Slice(x, 1, 2, 1)},
            {{"shape", Shape{Constant(2), Symbol("batch"), Constant(4), Constant(6)}}}));
  out(m.Slice(x, 2, 5, 3, -2));
  out(m.Join({x, m.Unary(MapOp::kNeg, x)}, 0));
  out(m.Join({m.Unary(MapOp::kNeg, x), x, m.Slice(x, 2, 1, 2)}, 2));
  out(m.Add(Op::kPad, {x},
            {{"before", std::vector<int64_t>{0, 1, 2}},
             {"after", std::vector<int64_t>{1, 0, 1}},
             {"interior", std::vector<int64_t>{0, 1, 0}},
             {"value", 2.5}}));
  out(m.Contract(x, m.Transpose(x, {0, 2, 1})));
  out(m.Contract(x, x, true, false));
  out(m.Contract(m.Weight("left", {3, 4}), x));
  const ir::Attributes window = {{"strides", std::vector<int64_t>{2, 1}},
                                 {"pads_begin", std::vector<int64_t>{1, 0}},
                                 {"pads_end", std::vector<int64_t>{0, 1}},
                                 {"dilations", std::vector<int64_t>{1, 2}}};
  ir::Attributes conv = window;
  conv["groups"] = int64_t{2};
  out(m.Add(Op::kConv, {image, m.Weight("kernel", {6, 2, 3, 2}), m.Weight("conv.b", {6})}, conv));
  for (int64_t kind = 0; kind < kPoolingCount; ++kind) {
    ir::Attributes pool = window;
    pool["kind"] = kind;
    pool["kernel"] = std::vector<int64_t>{3, 2};
    pool["out"] = std::vector<int64_t>{3, 4};
    pool["count_padding"] = int64_t{0};
    out(m.Add(Op::kPool, {image}, pool));
  }
  out(m.Take(x, ids, 1));
  out(m.Add(Op::kTakeAlong,
            {m.Slice(x, 2, 1, 1), m.Reshape(ids, {Symbol("batch"), Constant(3), Constant(1)})},
            {{"axis", int64_t{1}}, {"policy", int64_t{0}}}));
  out(m.Add(Op::kGatherNd, {x, m.Slice(ids, 1, 0, 1)},
            {{"batch_dims", int64_t{1}}, {"policy", int64_t{1}}}));
  const ValueId updates = m.Input("updates", {Symbol("batch"), Constant(3)});
  const ValueId target = m.Input("target", {Symbol("batch"), Constant(4)});
  for (int64_t reduction = 0; reduction < kScatteringCount; ++reduction)
    out(m.Add(Op::kScatter, {target, ids, updates},
              {{"mode", int64_t{0}},
               {"axis", int64_t{1}},
               {"reduction", reduction},
               {"policy", int64_t{0}}}));
  out(m.Unary(MapOp::kNeg, m.Add(Op::kScatter, {m.Unary(MapOp::kExp, target), ids, updates},
                                 {{"mode", int64_t{0}},
                                  {"axis", int64_t{1}},
                                  {"reduction", int64_t{1}},
                                  {"policy", int64_t{0}}})));
  const ValueId table = m.Weight("table", {4, 3});
  for (int64_t mode = 0; mode < kBagCount; ++mode)
    out(m.Bag(table, ids, ir::kNoValue, updates, {{"mode", mode}, {"padding_row", int64_t{2}}}));
  const ir::Dim items = Symbol("3*batch");
  out(m.Bag(table, m.Reshape(ids, {items}), offsets, m.Reshape(updates, {items})));
  out(m.Add(Op::kSoftmax, {x}, {{"log", int64_t{1}}}));
  out(m.Add(Op::kLayerNorm, {x, m.Weight("scale", {6}), m.Weight("shift", {6})},
            {{"epsilon", 1e-5}}));
  out(m.Add(Op::kTopK, {x}, {{"k", int64_t{3}}, {"largest", int64_t{1}}}));
  out(m.Add(Op::kCumulate, {x},
            {{"kind", int64_t{0}},
             {"axis", int64_t{1}},
             {"exclusive", int64_t{1}},
             {"reverse", int64_t{1}}}));
  out(m.Map(
      [] {
        Expression e;
        e.Size(0);
        return e;
      }(),
      {}, {}, {Symbol("3*batch+seq")}));
  return m.graph;
}

// Graphs at random, of operators that fit what is there.
class RandomGraph {
 public:
  explicit RandomGraph(uint64_t seed) : rng_(seed), steps_(static_cast<int>(4 + seed % 30)) {
    pool_.push_back(model_.Input("a", {Symbol("batch"), Constant(6)}));
    pool_.push_back(model_.Input("b", {Symbol("batch"), Symbol("seq"), Constant(6)}));
    pool_.push_back(model_.Input("c", {Symbol("batch"), Constant(2), Constant(3)}));
    pool_.push_back(model_.Weight("w", {6, 6}));
    pool_.push_back(model_.Weight("v", {6}));
    pool_.push_back(model_.Literal<float>("s", DType::kF32, {}, {0.25f}));
    ids_ = model_.Input("ids", {Symbol("batch"), Constant(2)}, DType::kI64, Constant(2));
  }

  ir::Graph Make() {
    for (int i = 0; i < steps_; ++i) {
      const auto added = Step();
      if (added) pool_.push_back(*added);
    }
    std::set<ValueId> outputs;
    for (size_t i = pool_.size(); i-- > 6 && outputs.size() < 3;)
      if (model_.graph.value(pool_[i]).kind == ir::ValueKind::kNode &&
          outputs.insert(pool_[i]).second)
        model_.graph.AddOutput(pool_[i]);
    return model_.graph;
  }

 private:
  ValueId Any() { return pool_[rng_.Below(pool_.size())]; }
  // The latest are taken more often, so that graphs become deep.
  ValueId Late() {
    return rng_.Below(3) == 0
               ? Any()
               : pool_[pool_.size() - 1 - rng_.Below(std::min<size_t>(4, pool_.size()))];
  }
  const Shape& ShapeOf(ValueId x) const { return model_.ShapeOf(x); }

  Result<ValueId> Step() {
    const ValueId x = Late();
    const Shape shape = ShapeOf(x);
    const auto rank = static_cast<int64_t>(shape.size());
    const auto axis =
        static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(std::max<int64_t>(rank, 1))));
    switch (rng_.Below(13)) {
      case 0: {
        Expression e;
        constexpr MapOp kOps[] = {MapOp::kTanh, MapOp::kRelu, MapOp::kNeg, MapOp::kSigmoid};
        e.Apply(kOps[rng_.Below(4)], DType::kF32, {e.Load(0, DType::kF32)});
        return Map(e, {x}, shape);
      }
      case 1:
      case 2: {
        Expression e;
        const int16_t a = e.Load(0, DType::kF32), b = e.Load(1, DType::kF32);
        constexpr MapOp kOps[] = {MapOp::kAdd, MapOp::kMul, MapOp::kMax};
        e.Apply(kOps[rng_.Below(3)], DType::kF32, {a, b});
        return Map(e, {x, rng_.Below(3) == 0 ? Any() : Late()}, shape);
      }
      case 3: {
        const ValueId w = pool_[3];
        return model_.TryAdd(
            Op::kContract, {x, w},
            {{"transpose_a", int64_t{0}}, {"transpose_b", static_cast<int64_t>(rng_.Below(2))}});
      }
      case 4: {
        Expression e;
        const int16_t a = e.Load(0, DType::kF32), b = e.Load(1, DType::kF32);
        e.Apply(MapOp::kAdd, DType::kF32, {a, b});
        return Map(e, {x, pool_[4]}, shape);
      }
      case 5:
        return model_.TryAdd(Op::kJoin, {x, Late(), Late()}, {{"axis", axis}});
      case 6: {
        Shape begin(shape.size(), Constant(0)), part = shape;
        if (rank == 0 || !shape[static_cast<size_t>(axis)].symbol.empty()) return x;
        const int64_t size = shape[static_cast<size_t>(axis)].size;
        const auto first = static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(size)));
        begin[static_cast<size_t>(axis)] = Constant(first);
        part[static_cast<size_t>(axis)] =
            Constant(1 + static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(size - first))));
        return model_.TryAdd(
            Op::kStridedSlice, {x},
            {{"begin", begin}, {"step", std::vector<int64_t>(shape.size(), 1)}, {"shape", part}});
      }
      case 7: {
        std::vector<int64_t> perm;
        for (int64_t i = 0; i < rank; ++i) perm.push_back(i);
        for (int64_t i = rank; i-- > 1;)
          std::swap(perm[static_cast<size_t>(i)], perm[rng_.Below(static_cast<uint64_t>(i + 1))]);
        return model_.TryAdd(Op::kTranspose, {x}, {{"perm", perm}});
      }
      case 8:
        return model_.TryAdd(Op::kReshape, {x}, {{"shape", Refold(shape)}});
      case 9:
        return model_.TryAdd(Op::kSoftmax, {x}, {{"log", int64_t{0}}});
      case 10:
        return model_.TryAdd(Op::kReduce, {x},
                             {{"kind", int64_t{1}}, {"axes", std::vector<int64_t>{axis}}});
      case 11:
        return model_.TryAdd(Op::kEmbeddingBag, {pool_[3], ids_},
                             {{"mode", static_cast<int64_t>(rng_.Below(3))},
                              {"ends", int64_t{0}},
                              {"policy", int64_t{0}},
                              {"default_row", int64_t{-1}},
                              {"padding_row", static_cast<int64_t>(rng_.Below(3)) - 1}});
      default: {
        Shape wide = ShapeOf(Any());
        return model_.TryAdd(Op::kExpand, {x}, {{"shape", wide}});
      }
    }
  }

  Result<ValueId> Map(const Expression& e, std::vector<ValueId> inputs, const Shape& shape) {
    return model_.TryAdd(Op::kMap, std::move(inputs),
                         {{"code", e.Encode()}, {"sizes", Shape{}}, {"shape", shape}});
  }

  // The same elements in another shape: an axis cut in two, or two put together, or a 1 put in.
  Shape Refold(Shape shape) {
    const size_t at = rng_.Below(shape.size() + 1);
    const auto place = shape.begin() + static_cast<std::ptrdiff_t>(at);
    if (rng_.Below(3) == 0 || shape.empty()) {
      shape.insert(place, Constant(1));
    } else if (at < shape.size() && shape[at].symbol.empty() && shape[at].size % 2 == 0) {
      shape[at].size /= 2;
      shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(at), Constant(2));
    } else if (at + 1 < shape.size()) {
      shape[at] = ir::DimOf(*ir::SizeOf(shape[at]).Times(ir::SizeOf(shape[at + 1])));
      shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    return shape;
  }

  Rng rng_;
  int steps_;
  Model model_;
  std::vector<ValueId> pool_;
  ValueId ids_ = ir::kNoValue;
};

}  // namespace millpower::compile
