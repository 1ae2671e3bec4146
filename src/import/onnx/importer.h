// Goes through a file's graph and makes the builder's of it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "import/onnx/node.h"
#include "import/onnx/tensors.h"
#include "import/tensor/builder.h"
#include "import/tensor/model.h"

namespace millpower::import::onnx {

// Used once. Not thread-safe.
class Importer {
 public:
  Importer(Tensors& tensors, const TensorOptions& options);

  // Declares inputs, imports every node, and declares outputs. Errors: kCorrupt for a graph that is
  // none; kInvalidArgument for options that do not fit it; kUnsupported, all refusals at once.
  Result<TensorBuilder> Import() &&;

  // For Node.
  TensorBuilder& builder() { return builder_; }
  Result<Tensor> Constant(const TensorProto& tensor, const std::string& name);
  bool IsTable(Tensor x) const { return tables_.contains(x.id); }
  Result<Values> RunGraph(const GraphProto& graph, Scope& outer, const Values& inputs);
  // What a name stands for, or nothing (kAbsent) when nothing has that name yet.
  Value Peek(const std::string& name, Scope& scope);
  // The node that made a value; null for inputs and constants.
  const NodeProto* ProducerOf(const std::string& name, const Scope& scope) const;
  // An initialiser of two dimensions, whatever its size, as a weight that rows are gathered from;
  // not present when the name is something else.
  Result<Tensor> Table(const std::string& name, Scope& scope, int depth = 0);
  void Note(std::string line) { notes_.insert(std::move(line)); }
  // A name of a dimension as a symbol, if an input declared it.
  std::optional<Size> SymbolOf(const std::string& dim_param) const;

  const std::map<std::string, int64_t>& operators() const { return operators_; }
  const std::set<std::string>& notes() const { return notes_; }

 private:
  Result<void> ReadVersions();
  Result<void> ReadFunctions();
  Result<void> DeclareInputs(Scope& scope);
  Result<void> BindSymbols(const GraphProto& graph, const std::set<std::string>& constants);
  Result<ir::Shape> InputShape(const ValueInfoProto& input);
  Result<void> DeclareOutputs(Scope& scope);

  void EnterGraph(const GraphProto& graph, Scope& scope);
  void RunNodes(const google::protobuf::RepeatedPtrField<NodeProto>& nodes, Scope& scope);
  void RunNode(const NodeProto& node, int index, Scope& scope);
  Result<Values> Dispatch(const NodeProto& node, Scope& scope, Values inputs);
  Result<Values> Call(const FunctionProto& function, const NodeProto& node, Scope& scope,
                      Values inputs);
  Value Lookup(const std::string& name, Scope& scope, const std::string& place);
  void Define(const std::string& name, Value value, Scope& scope, const std::string& place);
  void Refuse(const std::string& place, const std::string& why);
  int64_t VersionOf(const std::string& domain, const Scope& scope) const;

  Tensors& tensors_;
  const TensorOptions& options_;
  const ModelProto& model_;
  TensorBuilder builder_;
  std::map<std::string, int64_t> versions_;
  std::map<std::string, const FunctionProto*> functions_;  // by domain, name and overload
  std::map<std::string, Size> symbols_;                    // by dim_param
  std::map<const TensorProto*, Tensor> constants_;
  std::map<const TensorProto*, Tensor> table_weights_;
  std::set<int32_t> tables_;
  std::vector<std::string> refusals_;
  std::set<std::string> refused_;  // the same, each once
  std::map<std::string, int64_t> operators_;
  std::set<std::string> notes_;
  int depth_ = 0;
  int64_t nodes_left_;  // so many may still be imported, unrolled ones included
};

}  // namespace millpower::import::onnx
