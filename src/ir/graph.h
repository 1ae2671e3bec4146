// The graph: what a model computes, before it is known how. Importers build it, passes of
// src/compile rewrite it, and it is verified between passes. Single assignment: a value has one
// producer, and nodes stand in an order in which every value is produced before it is used.
//
// Shapes may hold symbolic dimensions, whose sizes are known only when a Program is launched.
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "base/size.h"
#include "base/tensor_ops.h"

namespace millpower::ir {

// A dimension: a constant, or an expression in symbols that are declared in the graph with upper
// bounds: the name of one, or what Size::ToString prints, such as "26*batch".
struct Dim {
  std::string symbol;  // empty for a constant
  int64_t size = 0;    // of a constant
  bool operator==(const Dim&) const = default;
};
inline Dim Constant(int64_t size) { return {"", size}; }
inline Dim Symbol(std::string name) { return {std::move(name), 0}; }
// The same as a Size and back. A dimension that is no Size (only a malformed graph has one) is 0.
Size SizeOf(const Dim& dim);
Dim DimOf(const Size& size);
using Shape = std::vector<Dim>;

// The product of all dimensions; absent when it is too large to be written down.
std::optional<Size> ElementsOf(const Shape& shape);

inline constexpr size_t kMaxRank = 8;

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
  // q, k, v, sequences, pages -> [rows, heads * head_dim]; causal, over layer's cache; a row sees
  // the last `window` positions, its own included, 0: all
  kAttention,
  kSelectRows,  // x [rows, cols], index [picked] -> [picked, cols]
  // logits [picked, vocab], params [picked, words], adjust_tokens [adjusts], adjustments
  // [adjusts, 2] -> tokens record [picked, words]
  kSample,
  // x [rows, hidden], router [experts, hidden], gate [experts, inner, hidden], up likewise, down
  // [experts, hidden, inner] -> [rows, hidden]: each row's `choices` experts with the largest
  // router logits, their outputs down(silu(gate x) * up x) weighted by the softmax of those logits
  // over all experts, divided by the chosen ones' sum when `normalise` is 1
  kExperts,
  // x [rows, n], residual? -> by `kind` (isa's collective): 0 all_reduce [rows, n], the sum of all
  // ranks' x; 1 all_gather [rows, ranks * n], all ranks' x side by side; 2 reduce_scatter
  // [rows, n / ranks], this rank's columns of the sum; 3 all_to_all [rows, n], of all ranks' x this
  // rank's columns. Sums take a residual, which is added to them
  kCollective,

  // Operators on tensors of any rank up to kMaxRank and any element type, for imported models.
  // Shapes broadcast as numpy's do, where said. A scalar has rank 0.

  // x_0, x_1 ... (0 to 8) -> `shape`: each element from the elements of the operands, broadcast to
  // `shape`, by the expression `code` (base/expression.h); `sizes` are what its `size` terms mean
  kMap,
  kReduce,        // x -> x with `axes` (sorted) reduced to 1 by `kind` (Reduction); arg...: i64
  kReshape,       // x -> the same elements in order, in `shape`
  kTranspose,     // x -> dimension i is x's dimension perm[i]
  kStridedSlice,  // x -> `shape`; element i of an axis is x's begin + step * i; steps are not 0
  kExpand,        // x -> broadcast to `shape`
  kJoin,          // x_0, x_1 ... -> one after the other along `axis`
  // x -> with `interior` elements between each two, `before` in front and `after` behind, along
  // each axis, all of them `value`
  kPad,
  // a [..., m, k], b [..., k, n] -> [..., m, n]: matrix products, leading dimensions broadcast;
  // transpose_a, transpose_b: 1 when the last two dimensions lie the other way round
  kContract,
  // x [n, c, spatial ...], w [out, c / groups, kernel ...], bias [out]? -> [n, out, spatial ...];
  // cross-correlation, zeros around x
  kConv,
  // x [n, c, spatial ...] -> [n, c, out ...]: windows of `kernel` reduced by `kind` (Pooling). What
  // lies in the padding takes part in averages' counts when count_padding is 1, never in values;
  // what lies beyond it never does. argmax: i64, the index into x as one list
  kPool,
  kTake,       // x, index -> x with dimension `axis` replaced by index's dimensions
  kTakeAlong,  // x, index -> index's shape: x at the same place but for `axis`, where index says
  // x, index [..., depth] -> index.shape[:-1] + x.shape[batch_dims + depth:]
  kGatherNd,
  // x, index, updates -> x changed at `index` (mode, ScatterMode) by `reduction` (Scattering), in
  // the order of the updates
  kScatter,
  // table [rows, dim] (a weight), index [..., items], offsets?, weights? -> [..., dim]: rows of the
  // table that each bag names, pooled by `mode` (Bag), each first multiplied by its weight. Without
  // offsets a bag is index's last dimension. With offsets [bags] (or [bags + 1] when ends is 1)
  // index is one list and bag i is items offsets[i] up to offsets[i + 1], or to the end. Items
  // equal to padding_row (-1: none) take no part; an empty bag is zeros
  kEmbeddingBag,
  kSoftmax,    // x -> along the last axis; its logarithm when `log` is 1
  kLayerNorm,  // x, weight [n]?, bias [n]? -> normalised along the last axis, of size n
  kTopK,      // x -> i64: where along the last axis the k largest (or smallest) are, best first, of
              // equals the lowest index; a NaN counts as largest
  kCumulate,  // x -> running `kind` (sum or product of Reduction) along `axis`
  // x [..., k], weight [n, k] (a weight; [k, n] when transposed is 1), bias (a weight of n
  // elements)?, residual? -> [..., n]: x times each row of the weight, plus bias; plus residual, or
  // max(., 0) when relu is 1. What the compiler makes of a contract with a weight; importers say
  // kContract
  kDense,
};
inline constexpr int kOpCount = static_cast<int>(Op::kDense) + 1;

const char* Name(Op op);

// Attributes by name: integers, floats, lists of integers, shapes.
using Attribute = std::variant<int64_t, double, std::vector<int64_t>, Shape>;
using Attributes = std::map<std::string, Attribute>;

enum class ValueKind : uint8_t {
  kInput,   // given at launch
  kWeight,  // constant, bound by name from the model's files, or held here (`values`)
  kNode,    // produced by a node
};

// Rows [first_row, first_row + rows) of a tensor in the model's files, its dimensions but the last
// taken together as rows; of these, columns [first_col, first_col + cols), all when cols is 0.
struct TensorSlice {
  std::string tensor;
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_col = 0;
  int64_t cols = 0;
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
  // Of a constant that the importer holds itself: the elements, row-major, of any element type.
  std::vector<std::byte> literal = {};
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

  // How many chips run the graph together, 1 to 1024. The graph is that of each; they differ in the
  // slices of weights.
  int64_t ranks = 1;

  // Building. Names must be new (CHECK); shapes of node outputs come from the op's rule.
  void AddSymbol(std::string name, int64_t max);
  ValueId AddInput(std::string name, DType dtype, Shape shape,
                   std::optional<Dim> index_bound = std::nullopt);
  ValueId AddWeight(std::string name, DType dtype, Shape shape, std::vector<float> values = {});
  // A constant tensor; `literal` has exactly its bytes (CHECK).
  ValueId AddLiteral(std::string name, DType dtype, const std::vector<int64_t>& shape,
                     std::vector<std::byte> literal);
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
  // Of a symbol, or of an expression in symbols at their bounds; -1 when one is not declared, when
  // the expression is not monotone, or its value overflows.
  int64_t SymbolMax(const std::string& expression) const;

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

// Attributes of a node that passed Verify.
int64_t IntAttribute(const Node& node, const std::string& name);
double FloatAttribute(const Node& node, const std::string& name);
const std::vector<int64_t>& ListAttribute(const Node& node, const std::string& name);
const Shape& ShapeAttribute(const Node& node, const std::string& name);

// Order, arity, attributes and shapes of every node, against the op table.
Result<void> Verify(const Graph& graph);

// One line per fact, symbol, input, used weight, node and output. Nodes read
//   h.0 [rows, 64] f32 = rms_norm(x, model.layers.0.input_layernorm.weight) epsilon=1e-06 group=64
// and weights that lie in slices of tensors, of which the first is shown,
//   weight gate [4, 24, 32] bf16 from experts.0.gate_proj.weight[0:24] and 3 more
std::string ToText(const Graph& graph);

// What a value is.
struct Type {
  DType dtype = DType::kF32;
  Shape shape;
};

// The output's type by the op's rule, once operands and attributes are what the table says. Used
// by AddNode and Verify. Errors: kInvalidArgument naming the op and the operand that does not fit.
Result<Type> InferType(const Graph& graph, Op op, std::span<const ValueId> inputs,
                       const Attributes& attributes);

}  // namespace millpower::ir
