// What a handler of an ONNX operator sees: one node, its operands as tensors of the builder, and
// its attributes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "import/onnx/onnx.pb.h"
#include "import/onnx/tensors.h"
#include "import/tensor/builder.h"

namespace millpower::import::onnx {

class Importer;

// What a name of a graph stands for.
struct Value {
  enum class Kind {
    kAbsent,    // an optional operand that is left out, or an optional value that holds nothing
    kTensor,    //
    kSequence,  // a list whose length is known
    kRows,      // a list of the rows [1, ...] of a tensor, of any number
    kEmpty,     // a tensor without elements, which the graph does not hold
    kPoisoned,  // its producer was refused, so nothing that needs it is looked at
  };
  Kind kind = Kind::kAbsent;
  Tensor tensor;
  std::vector<Tensor> list;
  DType dtype = DType::kF32;  // of an empty sequence's elements

  Value() = default;
  Value(Tensor x) : kind(x.present() ? Kind::kTensor : Kind::kAbsent), tensor(x) {}  // NOLINT
  static Value Sequence(std::vector<Tensor> list, DType dtype);
  static Value Rows(Tensor x);
  static Value Empty();
  static Value Poisoned();
};
using Values = std::vector<Value>;

// Names of one graph, on top of those around it.
struct Scope {
  Scope* outer = nullptr;
  std::map<std::string, Value> values = {};
  std::map<std::string, const TensorProto*> initializers = {};  // not read before they are used
  std::map<std::string, const TypeProto*> declared = {};
  std::map<std::string, const NodeProto*> producers = {};
  // In a function: the attributes of the node that calls it, and the operator sets it is written
  // in (by domain; "" for the default one).
  const std::map<std::string, AttributeProto>* attributes = nullptr;
  const std::map<std::string, int64_t>* versions = nullptr;
};

// One node. Not thread-safe. `b` is the builder that everything goes into.
class Node {
 public:
  Node(Importer& importer, const NodeProto& proto, Scope& scope, int64_t version, Values inputs);

  TensorBuilder& b;

  // Of the node's operator set.
  int64_t version() const { return version_; }

  size_t input_count() const { return inputs_.size(); }
  // Its name in the file; empty where it is left out.
  std::string input_name(int i) const { return i < proto_.input_size() ? proto_.input(i) : ""; }
  const Value& value(size_t i) const { return inputs_[i]; }
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i].kind == Value::Kind::kTensor; }
  // An operand; one that is absent is a Tensor that is not present().
  Tensor in(size_t i) const { return has(i) ? inputs_[i].tensor : Tensor{}; }
  // All operands, of which none may be absent.
  Result<std::vector<Tensor>> All() const;
  size_t output_count() const { return static_cast<size_t>(proto_.output_size()); }
  bool wants(size_t i) const {
    return i < output_count() && !proto_.output(static_cast<int>(i)).empty();
  }

  // Attributes. One of another type than is asked for counts as absent, and the node is refused.
  bool HasAttribute(const std::string& name) const { return Find(name) != nullptr; }
  int64_t Int(const std::string& name, int64_t otherwise) const;
  double Real(const std::string& name, double otherwise) const;
  std::string Text(const std::string& name, std::string otherwise) const;
  std::vector<int64_t> Ints(const std::string& name, std::vector<int64_t> otherwise = {}) const;
  std::vector<double> Reals(const std::string& name) const;
  std::vector<std::string> Texts(const std::string& name) const;
  const TensorProto* TensorAttribute(const std::string& name) const;
  const GraphProto* GraphAttribute(const std::string& name) const;
  // An element type given as a number (Cast's `to`); `otherwise` when the attribute is absent.
  Result<DType> TypeAttribute(const std::string& name, DType otherwise) const;

  // Operands that must be known when the model is loaded. Errors: kUnsupported, naming `what`.
  Result<std::vector<int64_t>> Integers(size_t i, const char* what) const;
  Result<std::vector<Size>> Sizes(size_t i, const char* what) const;
  Result<std::vector<double>> Reals(size_t i, const char* what) const;
  Result<int64_t> Integer(size_t i, const char* what) const;  // of one element
  // A list that was an attribute before `since`, and is an operand from it on; absent when the node
  // has neither.
  Result<std::optional<std::vector<int64_t>>> IntegersSince(int64_t since, size_t i,
                                                            const char* name) const;
  // An axis attribute for a tensor of this rank.
  Result<int> Axis(const std::string& name, int64_t otherwise, int rank) const;
  Result<std::vector<int>> CheckedAxes(std::span<const int64_t> axes, int rank) const;
  // A dimension that must be a constant.
  Result<int64_t> ConstantDim(Tensor x, int axis) const;
  Result<std::vector<int64_t>> ConstantShape(Tensor x) const;

  // The shape the file declares for an output, if it is complete and in declared symbols.
  std::optional<ir::Shape> DeclaredShape(size_t output) const;
  // That this node took a shape from there; said to people.
  void NoteDeclared(const char* what) const;

  // A constant of the file. Large ones become weights.
  Result<Tensor> Constant(const TensorProto& tensor, const std::string& name) const;
  bool IsTable(Tensor x) const;  // a large weight of two dimensions

  // Imports a graph of this node in its scope. Values of `inputs` stand for the graph's inputs.
  // Errors: kCancelled when its refusals are already noted.
  Result<Values> Run(const GraphProto& graph, const Values& inputs) const;

  Importer& importer() const { return importer_; }
  const NodeProto& proto() const { return proto_; }
  Scope& scope() const { return scope_; }
  const std::string& malformed() const { return malformed_; }  // about attributes; empty: nothing

 private:
  const AttributeProto* Find(const std::string& name) const;
  const AttributeProto* Typed(const std::string& name, int32_t type) const;

  Importer& importer_;
  const NodeProto& proto_;
  Scope& scope_;
  int64_t version_;
  Values inputs_;
  mutable std::string malformed_;
};

std::unexpected<Error> Unsupported(std::string message);
std::unexpected<Error> Invalid(std::string message);

// "in the file" of an operator: what makes tensors of a node.
using Handler = Result<Values> (*)(Node& node);

struct Operator {
  const char* domain;
  const char* name;
  Handler handler;
  int min_inputs = 1;        // so many are there and are tensors
  bool takes_lists = false;  // operands may be sequences or optional
};

// Operators of every family, in no order.
std::span<const Operator> ElementwiseOperators();
std::span<const Operator> ShapeOperators();
std::span<const Operator> IndexOperators();
std::span<const Operator> ReduceOperators();
std::span<const Operator> NetworkOperators();
std::span<const Operator> PoolOperators();
std::span<const Operator> NormOperators();
std::span<const Operator> QuantiseOperators();
std::span<const Operator> ControlOperators();
std::span<const Operator> SequenceOperators();
std::span<const Operator> RecurrentOperators();
std::span<const Operator> AttentionOperators();
std::span<const Operator> LossOperators();
std::span<const Operator> ResizeOperators();
std::span<const Operator> SignalOperators();
std::span<const Operator> GridOperators();

// Handlers of one output, for the tables.
template <auto kFunction>
Result<Values> One(Node& node) {
  TRY_ASSIGN(const Tensor y, kFunction(node));
  return Values{y};
}

// Operators that are refused with a reason of their own; null for others.
const char* WhyRefused(const std::string& domain, const std::string& name);

}  // namespace millpower::import::onnx
