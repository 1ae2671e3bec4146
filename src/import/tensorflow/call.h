// One node of a TensorFlow graph about to be carried out: what its operator's handler sees.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "import/tensorflow/state.h"

namespace millpower::import {

class Interpreter;

// Operands are counted without order-only inputs. Errors of everything here: kUnsupported and
// kInvalidArgument, without the node, which the interpreter puts in front.
class Call {
 public:
  Call(const tensorflow::NodeDef& node, Values inputs, State& state, Interpreter& interpreter)
      : node(node),
        inputs(std::move(inputs)),
        state(state),
        interpreter(interpreter),
        b(state.builder) {}

  const tensorflow::NodeDef& node;
  Values inputs;
  State& state;
  Interpreter& interpreter;
  TensorBuilder& b;

  // ---- operands ----
  int count() const { return static_cast<int>(inputs.size()); }
  Result<const Value*> At(int operand) const;
  Result<Tensor> In(int operand);
  Result<std::vector<Tensor>> InRange(int first, int end);
  // What must be known when the model is loaded; `what` names it in the error.
  Result<std::vector<int64_t>> Integers(int operand, const char* what);
  Result<int64_t> Integer(int operand, const char* what);
  Result<std::vector<Size>> Sizes(int operand, const char* what);
  Result<ir::Shape> Shape(int operand, const char* what);
  Result<int> Axis(int operand, int rank);  // negative ones counted from the end
  Result<Handle> Resource(int operand, bool is_table);

  // ---- attributes ----
  const tensorflow::Attribute* Find(const char* name) const;
  int64_t IntOr(const char* name, int64_t otherwise) const;
  bool BoolOr(const char* name, bool otherwise) const;
  double FloatOr(const char* name, double otherwise) const;
  std::string StringOr(const char* name, const char* otherwise) const;
  std::vector<int64_t> Ints(const char* name) const;  // empty when there are none
  Result<DType> Type(const char* name) const;
  DType TypeOr(const char* name, DType otherwise) const;
  Result<std::string> FunctionName(const char* name) const;
};

using OneHandler = Result<Tensor> (*)(Call&);
using ManyHandler = Result<Values> (*)(Call&);

struct OpEntry {
  std::string_view name;
  OneHandler one = nullptr;  // one output, a tensor
  ManyHandler many = nullptr;
  bool lenient = false;  // is called with operands that are Unusable as well
};

// The families; each table is in the file of its name.
std::span<const OpEntry> MathOps();     // ops_math.cc: element-wise, reductions
std::span<const OpEntry> LinearOps();   // ops_linear.cc: products, convolutions, pooling, resizing
std::span<const OpEntry> ShapeOps();    // ops_shape.cc: shapes, slices, rearrangement
std::span<const OpEntry> IndexOps();    // ops_index.cc: gathering, scattering, segments, top-k
std::span<const OpEntry> ObjectOps();   // ops_object.cc: variables, tables, strings, restoring
std::span<const OpEntry> ControlOps();  // ops_control.cc: constants, calls, branches, identities

const OpEntry* FindOp(std::string_view name);
// Operators that change variables or tables, or differ from run to run.
bool HasEffect(std::string_view op);
// Which output "name" of an operator is, in the order of its outputs; 0 for most.
int OutputOffset(std::string_view op, std::string_view output);

std::unexpected<Error> Unsupported(std::string message);
Values One(Tensor x);

}  // namespace millpower::import
