// What there is to know about each operator, in one place: AddNode, Verify and ToText read it, and
// so may passes.
#pragma once

#include <span>

#include "ir/graph.h"

namespace millpower::ir {

// One use of an operator, while its shape is worked out. Operands are absent only where the table
// says they may be; attributes are there and of their type.
struct Use {
  const Graph& graph;
  std::span<const ValueId> inputs;
  const Attributes& attributes;

  bool has(size_t operand) const { return inputs[operand] != kNoValue; }
  const Value& value(size_t operand) const { return graph.value(inputs[operand]); }
  int64_t integer(const char* name) const { return std::get<int64_t>(attributes.at(name)); }
  double real(const char* name) const { return std::get<double>(attributes.at(name)); }
  const std::vector<int64_t>& list(const char* name) const {
    return std::get<std::vector<int64_t>>(attributes.at(name));
  }
  const Shape& shape(const char* name) const { return std::get<Shape>(attributes.at(name)); }
};

enum class OperandType : uint8_t {
  kReal,     // f32, or a weight in its file's type
  kInteger,  // i32
  kTensor,   // any element type
};

struct OperandInfo {
  const char* name;
  OperandType type = OperandType::kReal;
  bool optional = false;  // optional operands come last
};

// Alternatives of Attribute, in order.
enum class AttributeType : uint8_t { kInteger, kReal, kList, kShape };

struct AttributeInfo {
  const char* name;
  AttributeType type;
};

struct OpInfo {
  Op op;
  const char* name;
  std::span<const OperandInfo> operands;
  std::span<const AttributeInfo> attributes;  // all are required
  Result<Shape> (*shape)(const Use&);
  DType output_type = DType::kF32;
  bool variadic = false;                        // the last operand may be repeated
  Result<DType> (*type)(const Use&) = nullptr;  // instead of output_type
};

const OpInfo& Info(Op op);

}  // namespace millpower::ir
