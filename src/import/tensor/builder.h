// What the importers of tensor models build graphs with. It names values, folds what is known
// (shapes, and small constants), broadcasts, and refuses what the graph cannot hold; an importer
// only says which of its file's operators is which.
//
// Values that are *known* cost nothing: integers as symbolic sizes ("batch", 3), reals as numbers.
// Every operation on known values gives a known value as long as it is small (kMaxKnown elements),
// so that the arithmetic on shapes that exported models are full of leaves no node behind. A known
// value becomes a constant of the graph, or a node where symbols take part, at its first use by an
// operation that computes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/expression.h"
#include "base/result.h"
#include "base/size.h"
#include "ir/graph.h"

namespace millpower::import {

inline constexpr int64_t kMaxKnown = 4096;
inline constexpr size_t kMaxNodes = 1 << 17;

// A value of a builder. Cheap to copy.
struct Tensor {
  int32_t id = -1;
  bool present() const { return id >= 0; }
};

// Not thread-safe. Operations' errors: kUnsupported for what the graph cannot hold (a symbolic size
// where a constant is needed), kInvalidArgument for operands that do not fit; importers put the
// place in front.
class TensorBuilder {
 public:
  explicit TensorBuilder(std::string graph_name);

  // ---- declaring ----
  void AddSymbol(const std::string& name, int64_t max);  // once each
  // A name that Size takes, from any text; the same for the same text.
  std::string SymbolName(std::string_view text);
  Tensor Input(std::string_view public_name, DType dtype, ir::Shape shape);
  // A weight of the files, by the name its WeightSource knows. Types other than element types are
  // refused when used.
  Tensor Weight(const std::string& tensor, DType dtype, const std::vector<int64_t>& shape);
  // A small constant, row-major; known when it is one of i32, i64, bool or a float and small.
  Result<Tensor> Constant(DType dtype, const std::vector<int64_t>& shape,
                          std::span<const std::byte> bytes);
  Tensor Scalar(DType dtype, double value);  // rank 0, known; integers must be exact
  Tensor Sizes(const std::vector<Size>& sizes, DType dtype = DType::kI64);  // rank 1, known
  Tensor SizeScalar(const Size& size, DType dtype = DType::kI64);           // rank 0, known
  // An output of the model, always a value of its own; false: the name is taken.
  Result<void> Output(std::string_view public_name, Tensor x);

  // ---- asking ----
  DType dtype(Tensor x) const;
  const ir::Shape& shape(Tensor x) const;
  int rank(Tensor x) const { return static_cast<int>(shape(x).size()); }
  Size dim(Tensor x, int axis) const;  // axis may be negative
  // Elements of a known integer or bool value, row-major; absent when it is not known.
  std::optional<std::vector<Size>> KnownSizes(Tensor x) const;
  // Elements of a known value without symbols.
  std::optional<std::vector<int64_t>> KnownIntegers(Tensor x) const;
  std::optional<std::vector<double>> KnownReals(Tensor x) const;  // integers too
  // A negative axis counts from the end. Errors: kInvalidArgument outside [-rank, rank).
  Result<int> Axis(int64_t axis, int rank) const;

  // ---- element-wise; operands broadcast, and must have one type (Cast first) ----
  Result<Tensor> Unary(MapOp op, Tensor x);
  Result<Tensor> Binary(MapOp op, Tensor a, Tensor b);  // comparisons give bool
  Result<Tensor> Select(Tensor condition, Tensor a, Tensor b);
  Result<Tensor> Cast(Tensor x, DType to);
  // With a number: x op value.
  Result<Tensor> Binary(MapOp op, Tensor x, double value);
  // Any expression at once; its loads are `operands`, its result takes their broadcast shape.
  Result<Tensor> Map(const Expression& expression, std::span<const Tensor> operands);
  // As numpy's; the element types are left as they are.
  Result<ir::Shape> BroadcastShape(std::span<const Tensor> operands) const;
  Result<Tensor> Fill(const ir::Shape& shape, DType dtype, double value);
  // begin + step * coordinate along `axis`, i64 (cast as needed).
  Result<Tensor> Iota(const ir::Shape& shape, int axis, int64_t begin = 0, int64_t step = 1);

  // ---- shape ----
  Result<Tensor> Reshape(Tensor x, const ir::Shape& shape);
  // One size may be -1: what is left. 0 stands for 0 elements, which is refused.
  Result<Tensor> Reshape(Tensor x, std::span<const Size> sizes);
  Result<Tensor> Flatten(Tensor x, int first, int last);  // axes [first, last] become one
  Result<Tensor> Unsqueeze(Tensor x, int axis);           // of the result
  Result<Tensor> Squeeze(Tensor x, std::vector<int> axes);
  Result<Tensor> Transpose(Tensor x, const std::vector<int64_t>& perm);
  Result<Tensor> SwapAxes(Tensor x, int a, int b);
  // Elements begin, begin + step ... before `end` (after it for negative steps) of one axis; begin
  // and end as numpy has them: negative counts from the end, beyond is clamped. Absent: all.
  Result<Tensor> Slice(Tensor x, int axis, std::optional<Size> begin, std::optional<Size> end,
                       int64_t step = 1);
  Result<Tensor> Pick(Tensor x, int axis, int64_t index);  // one element, the axis goes
  Result<std::vector<Tensor>> Split(Tensor x, int axis, const std::vector<Size>& sizes);
  Result<Tensor> Expand(Tensor x, const ir::Shape& shape);  // numpy's broadcast_to
  Result<Tensor> Join(std::span<const Tensor> parts, int axis);
  Result<Tensor> Stack(std::span<const Tensor> parts, int axis);
  Result<Tensor> Tile(Tensor x, const std::vector<int64_t>& repeats);
  // Constant padding; negative amounts cut off. `interior` may be empty.
  Result<Tensor> Pad(Tensor x, const std::vector<int64_t>& before,
                     const std::vector<int64_t>& after, double value,
                     const std::vector<int64_t>& interior = {});
  enum class PadMode { kReflect, kSymmetric, kEdge, kWrap };
  Result<Tensor> PadBy(Tensor x, const std::vector<int64_t>& before,
                       const std::vector<int64_t>& after, PadMode mode);

  // ---- reducing ----
  // Empty axes: all. keep_dims false drops the axes.
  Result<Tensor> Reduce(Reduction kind, Tensor x, std::vector<int> axes, bool keep_dims);
  Result<Tensor> Cumulate(Reduction kind, Tensor x, int axis, bool exclusive, bool reverse);
  Result<Tensor> Softmax(Tensor x, int axis, bool log);
  // Over the axes from `first_axis` on; scale and bias of those axes' shape, or broadcastable.
  Result<Tensor> LayerNorm(Tensor x, int first_axis, Tensor scale, Tensor bias, double epsilon);
  // (x - mean) / sqrt(variance + epsilon) * scale + bias by channel (axis 1); absent: 1 and 0.
  Result<Tensor> BatchNorm(Tensor x, Tensor scale, Tensor bias, Tensor mean, Tensor variance,
                           double epsilon);
  struct TopKResult {
    Tensor values, indices;  // indices i64
  };
  Result<TopKResult> TopK(Tensor x, int axis, int64_t k, bool largest);

  // ---- linear algebra ----
  // numpy's matmul: ranks 1 and up.
  Result<Tensor> MatMul(Tensor a, Tensor b);
  Result<Tensor> Contract(Tensor a, Tensor b, bool transpose_a, bool transpose_b);  // ranks >= 2
  // x [..., k] times weight [n, k] transposed, plus bias [n] (absent: none).
  Result<Tensor> Linear(Tensor x, Tensor weight, Tensor bias);
  Result<Tensor> Einsum(std::string_view equation, std::span<const Tensor> operands);
  struct Window {
    std::vector<int64_t> kernel, strides, pads_begin, pads_end, dilations;  // by spatial axis
  };
  Result<Tensor> Conv(Tensor x, Tensor w, Tensor bias, const Window& window, int64_t groups);
  // w [c, out / groups, kernel ...]; output_padding by spatial axis.
  Result<Tensor> ConvTranspose(Tensor x, Tensor w, Tensor bias, const Window& window,
                               int64_t groups, const std::vector<int64_t>& output_padding);
  // `ceil`: output sizes round up; windows that would begin in the padding behind are left out.
  Result<Tensor> Pool(Pooling kind, Tensor x, const Window& window, bool ceil, bool count_padding);

  // ---- indexed; indices i32 or i64 ----
  Result<Tensor> Take(Tensor x, Tensor index, int axis, IndexPolicy policy = IndexPolicy::kWrap);
  Result<Tensor> TakeAlong(Tensor x, Tensor index, int axis,
                           IndexPolicy policy = IndexPolicy::kWrap);
  Result<Tensor> GatherNd(Tensor x, Tensor index, int batch_dims,
                          IndexPolicy policy = IndexPolicy::kWrap);
  Result<Tensor> ScatterElements(Tensor x, Tensor index, Tensor updates, int axis,
                                 Scattering reduction);
  Result<Tensor> ScatterNd(Tensor x, Tensor index, Tensor updates, Scattering reduction);
  struct BagOptions {
    Bag mode = Bag::kSum;
    bool ends = false;  // offsets have one more entry, the end
    IndexPolicy policy = IndexPolicy::kError;
    int64_t default_row = -1;
    int64_t padding_row = -1;
  };
  // table: a Weight of two dimensions; offsets and weights may be absent. Without offsets, index's
  // last dimension is a bag.
  Result<Tensor> EmbeddingBag(Tensor table, Tensor index, Tensor offsets, Tensor weights,
                              const BagOptions& options);
  // Rows of a table, one for each index: a bag of one item each.
  Result<Tensor> Embedding(Tensor table, Tensor index, IndexPolicy policy = IndexPolicy::kError);

  // ---- recurring compositions ----
  Result<Tensor> Gelu(Tensor x, bool tanh_approximation);
  Result<Tensor> Silu(Tensor x);
  Result<Tensor> Clip(Tensor x, std::optional<double> min, std::optional<double> max);
  Result<Tensor> LeakyRelu(Tensor x, double slope);
  Result<Tensor> Elu(Tensor x, double alpha, double scale = 1);
  // softmax(q k' * scale + mask) v over the last two axes; mask added when it is a float, or
  // keeping where true when it is bool; absent: none. causal: position i sees j <= i.
  Result<Tensor> ScaledDotProductAttention(Tensor q, Tensor k, Tensor v, Tensor mask, bool causal,
                                           std::optional<double> scale);
  // Along one axis by a constant matrix [out, in]: resizing and transforms.
  Result<Tensor> TransformAxis(Tensor x, int axis, const std::vector<double>& matrix, int64_t out);

  // The graph so far, with its outputs; the builder is done with. Nodes that no output needs are
  // left out. Errors: those of ir::Verify.
  struct Named {
    std::string public_name, value;
  };
  struct Built {
    ir::Graph graph;
    std::vector<Named> inputs, outputs;  // in the order they were declared
  };
  Result<Built> Build() &&;

 private:
  struct Entry {
    ir::ValueId value = ir::kNoValue;  // kNoValue: known, and not needed as a value yet
    DType dtype = DType::kF32;
    ir::Shape shape = {};
    std::optional<std::vector<Size>> sizes = std::nullopt;    // known integers and bools
    std::optional<std::vector<double>> reals = std::nullopt;  // known floats
  };

  const Entry& entry(Tensor x) const { return entries_[static_cast<size_t>(x.id)]; }
  Tensor Add(Entry entry);
  Tensor AddKnown(DType dtype, ir::Shape shape, std::vector<Size> sizes);
  Tensor AddKnown(DType dtype, ir::Shape shape, std::vector<double> reals);
  Result<ir::ValueId> ValueOf(Tensor x);  // makes it a value of the graph
  Result<Tensor> SizesAsNode(const Entry& known);
  Result<Tensor> Node(ir::Op op, std::span<const Tensor> operands, ir::Attributes attributes);
  std::string NewName(std::string_view hint);
  template <typename SourceOf>
  std::optional<Tensor> Rearranged(Tensor x, const ir::Shape& shape, SourceOf source_of);
  Result<Tensor> MapTo(const ir::Shape& shape, Expression expression,
                       std::span<const Tensor> operands);
  Result<Tensor> Scatter(ScatterMode mode, Tensor x, Tensor index, Tensor updates, int axis,
                         Scattering reduction);
  std::optional<Tensor> FoldMap(const Expression& expression, std::span<const Tensor> operands,
                                const ir::Shape& shape);
  std::optional<Tensor> FoldReduce(Reduction kind, Tensor x);
  std::optional<std::vector<int64_t>> ConstantShape(Tensor x) const;

  ir::Graph graph_;
  std::deque<Entry> entries_;  // references stay valid while it grows: shape() is one
  std::vector<Named> inputs_, outputs_;
  std::map<std::string, std::string, std::less<>> symbol_names_;
  std::map<std::string, int> names_;
};

// Bytes of small constants: elements of any element type as numbers, and back.
std::vector<std::byte> ToBytes(DType dtype, std::span<const double> values);
std::vector<std::byte> ToBytes(DType dtype, std::span<const int64_t> values);

}  // namespace millpower::import
