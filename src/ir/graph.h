// The graph: what a model computes, before it is known how. Importers build it, passes of
// src/compile rewrite it, and it is verified between passes. Single assignment: a value has one
// producer, and nodes stand in an order in which every value is produced before it is used.
//
// Shapes may hold symbolic dimensions, whose sizes are known only when a Program is launched.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::ir {

// A dimension: a constant, or the name of a symbol declared in the graph with an upper bound.
struct Dim {
  std::string symbol;  // empty for a constant
  int64_t size = 0;    // of a constant
  bool operator==(const Dim&) const = default;
};
inline Dim Constant(int64_t size) { return {"", size}; }
inline Dim Symbol(std::string name) { return {std::move(name), 0}; }
using Shape = std::vector<Dim>;

std::string ToString(const Shape& shape);

using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

// Every operator there is. op_table.cc says of each: name, operands, attributes, shape rule.
enum class Op : uint8_t {
  kEmbedding,    // table [vocab, hidden], ids [rows] -> [rows, hidden]
  kRmsNorm,      // x [rows, cols], weight [group] -> [rows, cols]; normalised per group of columns
  kLinear,       // x [rows, k], weight [n, k], bias [n]? , residual [rows, n]? -> [rows, n]
  kGatedLinear,  // x [rows, k], gate [n, k], up [n, k] -> silu(x gate') * (x up') [rows, n]
  kSilu,         // x -> x * sigmoid(x)
  kMul,          // a, b -> a * b, same shapes
  kAdd,          // a, b -> a + b, same shapes
  kConcat,       // x_0 [rows, n_0], x_1 ... -> [rows, sum n]
  kSlice,        // x [rows, n] -> columns [begin, begin + size)
  kRopeTable,    // positions [rows], inv_freq [half] -> [rows, 2 half]: cosines, then sines
  kRope,         // x [rows, heads * head_dim], table -> rotated per head
  kAttention,   // q, k, v, sequences, pages -> [rows, heads * head_dim]; causal, over layer's cache
  kSelectRows,  // x [rows, cols], index [picked] -> [picked, cols]
  // logits [picked, vocab], params [picked, words], adjust_tokens [adjusts], adjustments
  // [adjusts, 2] -> tokens record [picked, words]
  kSample,
  // x [rows, hidden], router [experts, hidden], gate [experts, inner, hidden], up likewise, down
  // [experts, hidden, inner] -> [rows, hidden]: each row's `choices` experts with the largest
  // router logits, their outputs down(silu(gate x) * up x) weighted by the softmax of those logits
  // over all experts, divided by the chosen ones' sum when `normalise` is 1
  kExperts,
};
inline constexpr int kOpCount = static_cast<int>(Op::kExperts) + 1;

const char* Name(Op op);

// Attributes by name: integers and floats.
using Attribute = std::variant<int64_t, double>;
using Attributes = std::map<std::string, Attribute>;

enum class ValueKind : uint8_t {
  kInput,   // given at launch
  kWeight,  // constant, bound by name from the model's files, or held here (`values`)
  kNode,    // produced by a node
};

// Rows [first_row, first_row + rows) of a tensor in the model's files, its dimensions but the last
// taken together as rows.
struct TensorSlice {
  std::string tensor;
  int64_t first_row = 0;
  int64_t rows = 0;
  bool operator==(const TensorSlice&) const = default;
};

struct Value {
  std::string name;  // unique in the graph
  ValueKind kind = ValueKind::kNode;
  DType dtype = DType::kF32;
  Shape shape = {};
  // Of an input that holds indices: each is in [0, index_bound).
  std::optional<Dim> index_bound = std::nullopt;
  // Of a small weight computed by the importer rather than read from a file (RoPE frequencies).
  std::vector<float> values = {};
  // Of a weight whose rows do not lie in one tensor of its own name: where they are, in order.
  std::vector<TensorSlice> slices = {};
};

struct Node {
  Op op = Op::kAdd;
  std::vector<ValueId> inputs;  // kNoValue for an optional operand that is absent
  ValueId output = kNoValue;
  Attributes attributes;
};

struct SymbolBound {
  std::string name;
  int64_t max = 0;
};

class Graph {
 public:
  std::string name;  // of the architecture, e.g. "qwen3"

  // Facts that engines need and that no shape tells, e.g. "max_positions". Copied to the Program.
  std::map<std::string, int64_t> facts;

  // Building. Names must be new (CHECK); shapes of node outputs come from the op's rule.
  void AddSymbol(std::string name, int64_t max);
  ValueId AddInput(std::string name, DType dtype, Shape shape,
                   std::optional<Dim> index_bound = std::nullopt);
  ValueId AddWeight(std::string name, DType dtype, Shape shape, std::vector<float> values = {});
  // Of a weight (CHECK). Verify proves that the slices have as many rows as it.
  void SetSlices(ValueId weight, std::vector<TensorSlice> slices);
  // Optional operands at the end may be left out; the node holds kNoValue for them.
  // Errors: kInvalidArgument naming the op, its output and what does not fit.
  Result<ValueId> AddNode(Op op, std::string output_name, std::vector<ValueId> inputs,
                          Attributes attributes = {});
  void AddOutput(ValueId value) { outputs_.push_back(value); }

  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  ValueId FindValue(const std::string& name) const;  // kNoValue when there is none
  const std::vector<Value>& values() const { return values_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<ValueId>& outputs() const { return outputs_; }
  const std::vector<SymbolBound>& symbols() const { return symbols_; }
  int64_t SymbolMax(const std::string& name) const;  // -1 when it is not declared

  // For passes: the nodes again, in a new order or number. Values without producer or use stay
  // declared but are not printed. The caller runs Verify afterwards.
  void ReplaceNodes(std::vector<Node> nodes) { nodes_ = std::move(nodes); }

 private:
  ValueId AddValue(Value value);

  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<ValueId> outputs_;
  std::vector<SymbolBound> symbols_;
  std::map<std::string, ValueId> by_name_;
};

// Integer or float attribute of a node that passed Verify.
int64_t IntAttribute(const Node& node, const std::string& name);
double FloatAttribute(const Node& node, const std::string& name);

// Order, arity, attributes and shapes of every node, against the op table.
Result<void> Verify(const Graph& graph);

// One line per fact, symbol, input, used weight, node and output. Nodes read
//   h.0 [rows, 64] f32 = rms_norm(x, model.layers.0.input_layernorm.weight) epsilon=1e-06 group=64
// and weights that lie in slices of tensors, of which the first is shown,
//   weight gate [4, 24, 32] bf16 from experts.0.gate_proj.weight[0:24] and 3 more
std::string ToText(const Graph& graph);

// The output's shape by the op's rule, once operands and attributes are what the table says. Used
// by AddNode and Verify. Errors: kInvalidArgument naming the op and the operand that does not fit.
Result<Shape> InferShape(const Graph& graph, Op op, std::span<const ValueId> inputs,
                         const Attributes& attributes);

}  // namespace millpower::ir
