// Sequences whose length is known, and optional values: neither leaves anything in the graph.
#include <algorithm>

#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

using Kind = Value::Kind;

Result<const Value*> SequenceOf(Node& n, size_t i) {
  if (i >= n.input_count() || n.value(i).kind != Kind::kSequence)
    return Invalid("an operand is no sequence");
  return &n.value(i);
}

// A place in a list; negative ones count from the end.
Result<size_t> PlaceIn(Node& n, size_t operand, size_t size) {
  TRY_ASSIGN(int64_t at, n.Integer(operand, "the position"));
  if (at < 0) at += static_cast<int64_t>(size);
  if (at < 0 || at >= static_cast<int64_t>(size)) return Invalid("a position outside of the list");
  return static_cast<size_t>(at);
}

Result<Values> SequenceConstruct(Node& n) {
  TRY_ASSIGN(std::vector<Tensor> all, n.All());
  const DType dtype = n.b.dtype(all[0]);
  return Values{Value::Sequence(std::move(all), dtype)};
}

Result<Values> SequenceEmpty(Node& n) {
  TRY_ASSIGN(const DType dtype, n.TypeAttribute("dtype", DType::kF32));
  return Values{Value::Sequence({}, dtype)};
}

Result<Values> SequenceInsert(Node& n) {
  TRY_ASSIGN(const Value* list, SequenceOf(n, 0));
  if (!n.has(1)) return Invalid("nothing to insert");
  std::vector<Tensor> tensors = list->list;
  size_t at = tensors.size();
  if (n.has(2)) {
    TRY_ASSIGN(const int64_t given, n.Integer(2, "the position"));
    const auto size = static_cast<int64_t>(tensors.size());
    const int64_t wrapped = given < 0 ? given + size : given;
    if (wrapped < 0 || wrapped > size) return Invalid("a position outside of the list");
    at = static_cast<size_t>(wrapped);
  }
  tensors.insert(tensors.begin() + static_cast<std::ptrdiff_t>(at), n.in(1));
  return Values{Value::Sequence(std::move(tensors), n.b.dtype(n.in(1)))};
}

Result<Values> SequenceErase(Node& n) {
  TRY_ASSIGN(const Value* list, SequenceOf(n, 0));
  std::vector<Tensor> tensors = list->list;
  if (tensors.empty()) return Invalid("the sequence is empty");
  size_t at = tensors.size() - 1;
  if (n.has(1)) {
    TRY_ASSIGN(at, PlaceIn(n, 1, tensors.size()));
  }
  tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(at));
  return Values{Value::Sequence(std::move(tensors), list->dtype)};
}

Result<Values> SequenceAt(Node& n) {
  TRY_ASSIGN(const Value* list, SequenceOf(n, 0));
  TRY_ASSIGN(const size_t at, PlaceIn(n, 1, list->list.size()));
  return Values{list->list[at]};
}

Result<Values> SequenceLength(Node& n) {
  TRY_ASSIGN(const Value* list, SequenceOf(n, 0));
  return Values{n.b.SizeScalar(Size(static_cast<int64_t>(list->list.size())))};
}

Result<Values> ConcatFromSequence(Node& n) {
  const bool is_rows = n.value(0).kind == Kind::kRows;
  if (is_rows && n.Int("axis", 0) == 0 && n.Int("new_axis", 0) == 0)
    return Values{n.value(0).tensor};
  TRY_ASSIGN(const Value* list, SequenceOf(n, 0));
  if (list->list.empty()) return Unsupported("a sequence without tensors");
  const bool stacks = n.Int("new_axis", 0) != 0;
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(list->list[0]) + (stacks ? 1 : 0)));
  TRY_ASSIGN(const Tensor y, stacks ? n.b.Stack(list->list, axis) : n.b.Join(list->list, axis));
  return Values{y};
}

Result<Values> SplitToSequence(Node& n) {
  if (!n.has(0)) return Invalid("operand 0 is no tensor");
  const Tensor x = n.in(0);
  TRY_ASSIGN(const int axis, n.Axis("axis", 0, n.b.rank(x)));
  TRY_ASSIGN(const int64_t whole, n.ConstantDim(x, axis));
  std::vector<int64_t> given = {1};
  bool is_scalar = true;
  if (n.has(1)) {
    TRY_ASSIGN(given, n.Integers(1, "the parts' sizes"));
    is_scalar = n.b.rank(n.in(1)) == 0;
  }
  std::vector<Size> sizes(given.begin(), given.end());
  if (is_scalar) {
    if (given[0] < 1 || whole / given[0] > kMaxKnown) return Invalid("a part's size");
    sizes.clear();
    for (int64_t at = 0; at < whole; at += given[0])
      sizes.push_back(Size(std::min(given[0], whole - at)));
  }
  TRY_ASSIGN(std::vector<Tensor> parts, n.b.Split(x, axis, sizes));
  if (!n.has(1) && n.Int("keepdims", 1) == 0) {
    for (Tensor& part : parts) {
      TRY_ASSIGN(part, n.b.Squeeze(part, {axis}));
    }
  }
  return Values{Value::Sequence(std::move(parts), n.b.dtype(x))};
}

// The body, once for each tensor of the first list and what stands beside it in the others.
Result<Values> SequenceMap(Node& n) {
  const GraphProto* body = n.GraphAttribute("body");
  TRY_ASSIGN(const Value* first, SequenceOf(n, 0));
  if (body == nullptr) return Invalid("has no body");
  std::vector<std::vector<Tensor>> lists(static_cast<size_t>(body->output_size()));
  for (size_t i = 0; i < first->list.size(); ++i) {
    Values operands;
    for (size_t operand = 0; operand < n.input_count(); ++operand) {
      const Value& value = n.value(operand);
      if (value.kind == Kind::kSequence && i >= value.list.size())
        return Invalid("sequences differ in length");
      operands.push_back(value.kind == Kind::kSequence ? Value(value.list[i]) : value);
    }
    TRY_ASSIGN(const Values given, n.Run(*body, operands));
    for (size_t j = 0; j < lists.size(); ++j) {
      if (given[j].kind != Kind::kTensor) return Invalid("the body gives no tensor");
      lists[j].push_back(given[j].tensor);
    }
  }
  Values outputs;
  for (std::vector<Tensor>& list : lists) {
    const DType dtype = list.empty() ? DType::kF32 : n.b.dtype(list[0]);
    outputs.push_back(Value::Sequence(std::move(list), dtype));
  }
  return outputs;
}

Result<Values> Optional(Node& n) { return Values{n.input_count() > 0 ? n.value(0) : Value()}; }

Result<Values> OptionalHasElement(Node& n) {
  const bool has = n.input_count() > 0 && n.value(0).kind != Kind::kAbsent;
  return Values{n.b.Scalar(DType::kBool, has ? 1 : 0)};
}

Result<Values> OptionalGetElement(Node& n) {
  if (n.value(0).kind == Kind::kAbsent) return Invalid("the optional holds nothing");
  return Values{n.value(0)};
}

constexpr Operator kOperators[] = {
    {"", "SequenceConstruct", SequenceConstruct},
    {"", "SequenceEmpty", SequenceEmpty, 0},
    {"", "SequenceInsert", SequenceInsert, 2, true},
    {"", "SequenceErase", SequenceErase, 1, true},
    {"", "SequenceAt", SequenceAt, 2, true},
    {"", "SequenceLength", SequenceLength, 1, true},
    {"", "SequenceMap", SequenceMap, 1, true},
    {"", "ConcatFromSequence", ConcatFromSequence, 1, true},
    {"", "SplitToSequence", SplitToSequence},
    {"", "Optional", Optional, 0, true},
    {"", "OptionalHasElement", OptionalHasElement, 0, true},
    {"", "OptionalGetElement", OptionalGetElement, 1, true},
};

}  // namespace

std::span<const Operator> SequenceOperators() { return kOperators; }

}  // namespace millpower::import::onnx
