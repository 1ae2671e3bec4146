// What is known while a SavedModel becomes a graph: values of TensorFlow's graph, variables and
// tables, the inputs, and what could not be done.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "import/tensor/builder.h"
#include "import/tensor/model.h"
#include "import/tensorflow/saved_model.pb.h"
#include "import/tensorflow/weights.h"

namespace millpower::import {

// Nothing to compute with; `why` says what it would have come from. What led to it has been
// reported already where it counts.
struct Unusable {
  std::string why;
};
// An input of the model, its elements as they came, perhaps in another shape. Only so can it be
// looked up in a table; any other use makes it a tensor of the graph, which strings cannot become.
struct PortView {
  int port = 0;
  ir::Shape shape;
  bool as_text = false;  // integers, of which the decimal digits are meant
};
struct Handle {  // of a resource
  int resource = 0;
};
struct Stored {  // a tensor of the variables' bundle, not yet a weight
  std::string key;
  std::string part;  // ParseSliceSpec; empty: all of it
};

struct Value {
  using Data = std::variant<Unusable, Tensor, PortView, StringLiteral, Handle, Stored>;
  Data data;
  uint64_t ports = 0;  // a bit for each of the first 64 inputs that it depends on

  // Not inline: where g++ 12 sees a variant's alternative while it moves it, it warns of the
  // others.
  Value();
  explicit Value(Data data, uint64_t ports = 0);
  Value(const Value&);
  Value(Value&&) noexcept;
  Value& operator=(const Value&);
  Value& operator=(Value&&) noexcept;
  ~Value();

  template <typename T>
  const T* As() const {
    return std::get_if<T>(&data);
  }
};
using Values = std::vector<Value>;

// Keys and values of a hash table.
struct TableContent {
  std::vector<std::string> keys;  // strings, or decimal integers
  std::vector<int64_t> integers;  // by key; of integer values
  std::vector<double> reals;      // by key; of others
};

struct Resource {
  bool is_table = false;
  std::string name;
  int key_type = 0;  // of tables: numbers of TensorFlow's types
  int value_type = 0;
  std::optional<Value> value;           // of a variable, once assigned
  std::optional<Tensor> weight;         // of a variable that has been read
  std::optional<TableContent> content;  // of a table, once initialised
};

// In this order. Before kServe effects count and what is not supported only leaves things unset.
enum class Phase { kRestore, kInitialise, kServe };

// Not thread-safe.
class State {
 public:
  State(const tensorflow::MetaGraph& graph, std::filesystem::path folder,
        const TensorOptions& options);

  TensorBuilder builder;
  std::unique_ptr<SavedModelWeights> weights = std::make_unique<SavedModelWeights>();
  Phase phase = Phase::kRestore;
  std::map<std::string, int64_t> operators;
  // What went wrong in the phase before kServe, the first of it: it may be why a table is empty.
  std::string preparation_failure;

  // ---- what could not be done ----
  void Report(const std::string& op, const std::string& node, const std::string& message);
  // kUnsupported with all that was reported; nothing when nothing was.
  Result<void> Issues() const;

  // ---- inputs ----
  // Declares the signature's input. `ragged`: its first dimension counts items of all rows together
  // rather than rows. Errors: kUnsupported for its type or form.
  Result<PortView> AddPort(const std::string& name, const tensorflow::TensorInfo& info,
                           bool ragged);
  // The input as a tensor. Errors: kUnsupported for strings.
  Result<Tensor> TensorOf(const PortView& view);
  // What a table or a hash makes of the input: i64 of the view's shape. `lookup` comes without its
  // input and value.
  Result<Tensor> LookUp(const PortView& view, Lookup lookup);
  const Port& port(int index) const { return ports_[static_cast<size_t>(index)].port; }
  size_t port_count() const { return ports_.size(); }
  // Inputs that turned out to hold items of all rows together (bits as Value::ports).
  uint64_t ragged_ports = 0;
  // Gives every input a place in the graph that has none yet, but strings: where nothing computes
  // with it, its shape may still say the size of something.
  void DeclareUnused();
  // Names that Built has for inputs and lookups, put into ports and prologue.
  void Finish(const TensorBuilder::Built& built, TensorModel& model);

  // ---- variables, tables, constants ----
  // The one of this name; made when it is new.
  int FindResource(bool is_table, const std::string& name);
  Resource& resource(int index) { return resources_[static_cast<size_t>(index)]; }
  // A variable's value as a tensor. Errors: those of the bundle; kUnsupported when the file does
  // not say its value.
  Result<Tensor> Read(int variable);
  Result<Tensor> ConstantOf(const tensorflow::NodeDef& node, Literal literal);
  bool IsWeight(Tensor x) const { return weight_ids_.contains(x.id); }
  // The file in assets/ that the constant of this name stands for, if it does.
  Result<std::optional<std::filesystem::path>> AssetOf(const std::string& constant) const;
  // Errors: kUnsupported when there are no variables; those of Bundle::Open.
  Result<const Bundle*> OpenBundle();

  // ---- Keras's negative ids: where(ids < 0, ids + n, ids) ----
  struct Shifted {
    int32_t source = -1;
    int64_t by = 0;
  };
  std::map<int32_t, int32_t> negative_tests;  // of "x < 0": x
  std::map<int32_t, Shifted> shifts;          // of "x + n"
  std::map<int32_t, Shifted> wrapped;         // of the whole

 private:
  struct PortState {
    Port port;
    std::optional<Tensor> direct;
    std::vector<std::pair<Lookup, Tensor>> lookups;
  };

  Result<ir::Shape> PortShape(const std::string& name, const tensorflow::TensorInfo& info,
                              bool ragged);
  Result<ir::Dim> UnknownDim(const std::string& port, int axis, bool ragged);
  Result<Tensor> WeightOf(const std::string& name, const Stored& stored);

  const tensorflow::MetaGraph& graph_;
  std::filesystem::path folder_;
  const TensorOptions& options_;
  std::vector<PortState> ports_;
  std::set<std::string> symbols_;
  std::vector<Resource> resources_;
  std::map<std::string, int> resource_names_;
  std::map<const tensorflow::NodeDef*, Tensor> constants_;
  std::map<std::string, Tensor> stored_weights_;
  std::set<int32_t> weight_ids_;
  std::vector<std::string> issues_;
  std::set<std::string> known_issues_;
};

}  // namespace millpower::import
