// What an operator's handler sees of its node: arguments by their names in PyTorch's schemas
// (aten/src/ATen/native/native_functions.yaml), with defaults where the file leaves them out, and
// PyTorch's rules for types. Internal to this folder.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "import/tensor/builder.h"
#include "import/torch/program.h"

namespace millpower::import::torch {

// What a node's arguments may name. Errors: kUnsupported, kCorrupt.
class Names {
 public:
  virtual ~Names() = default;
  virtual Result<Tensor> FindTensor(const std::string& name) = 0;
  virtual Result<Size> FindSize(const std::string& name) = 0;
};

// What handlers tell each other about a file's values, beyond what the builder knows.
struct Facts {
  // begin, begin + step ... as torch.arange made it, by the tensor's number.
  struct Range {
    Size begin;
    int64_t step = 1;
  };
  std::map<int32_t, Range> ranges;
};

// A tensor or a number, as `other` of arithmetic operators may be.
struct Operand {
  Tensor tensor;                    // absent for a number
  DType dtype = DType::kF32;        // of a number: bool, i64 or f32
  std::optional<Size> size = {};    // a whole number or bool
  std::optional<double> real = {};  // another one
};

// The type of a result by torch.result_type: tensors with dimensions before those without, those
// before numbers; a lower one counts only if its kind (bool, whole, real) is higher.
// Errors: kUnsupported for pairs that PyTorch does not promote.
Result<DType> ResultType(const TensorBuilder& b, std::span<const Operand> operands);
Result<DType> Promote(DType a, DType b);

class Call {
 public:
  Call(TensorBuilder& builder, Facts& facts, Names& names, const ProgramNode& node)
      : b(builder), facts(facts), names_(names), node_(node) {}

  TensorBuilder& b;
  Facts& facts;
  size_t output_count() const;  // a list counts as its elements

  bool Has(std::string_view name) const { return Find(name) != nullptr; }  // and is not None

  // Errors: kCorrupt: an argument is missing, or of another kind; those of Names.
  Result<Tensor> TensorAt(std::string_view name);
  Result<Tensor> OptionalTensor(std::string_view name);        // absent: not present
  Result<std::vector<Tensor>> Tensors(std::string_view name);  // None: not present
  Result<Operand> OperandAt(std::string_view name);
  Result<int64_t> Integer(std::string_view name, std::optional<int64_t> fallback = {});
  Result<Size> SizeAt(std::string_view name, std::optional<Size> fallback = {});
  // A single number counts as a list of one.
  Result<std::vector<int64_t>> Integers(std::string_view name,
                                        std::optional<std::vector<int64_t>> fallback = {});
  Result<std::vector<Size>> Sizes(std::string_view name,
                                  std::optional<std::vector<Size>> fallback = {});
  Result<double> Real(std::string_view name, std::optional<double> fallback = {});
  Result<bool> Flag(std::string_view name, std::optional<bool> fallback = {});
  Result<std::string> Text(std::string_view name, const char* fallback = nullptr);
  // Which of the texts it is; the first when the argument is missing. Errors: kUnsupported.
  Result<int> Choice(std::string_view name, std::initializer_list<std::string_view> texts);
  Result<std::vector<double>> Reals(std::string_view name);
  Result<std::optional<DType>> DTypeAt(std::string_view name = "dtype");

  // The axis `name` of a tensor of this rank, from 0; of a scalar, -1 and 0 are one.
  Result<int> Axis(std::string_view name, int rank, std::optional<int64_t> fallback = {});
  // A list of axes; empty when the argument is missing, None or an empty list.
  Result<std::vector<int>> Axes(std::string_view name, int rank);
  // A shape to make; its sizes are not negative.
  Result<ir::Shape> ShapeAt(std::string_view name);

  // An operand as a tensor of `dtype`.
  Result<Tensor> As(const Operand& operand, DType dtype);

 private:
  const ProgramArgument* Find(std::string_view name) const;
  Result<const ProgramArgument*> Need(std::string_view name) const;
  Result<Size> SizeOf(const ProgramArgument& argument, std::string_view name);
  std::unexpected<Error> Wrong(std::string_view name, const char* expected) const;

  Names& names_;
  const ProgramNode& node_;
};

using Tensors = std::vector<Tensor>;
using Handler = Result<Tensors> (*)(Call& call);

// One row of a family's table: an ATen operator and the overloads that the handler knows, comma
// separated.
struct Operator {
  std::string_view name;       // "add"
  std::string_view overloads;  // "Tensor,Scalar"
  Handler handler;
};

// By "add.Tensor"; nullptr for an operator that is not supported.
Handler FindOperator(std::string_view name);

// The families.
std::span<const Operator> ArithmeticOperators();
std::span<const Operator> CreationOperators();
std::span<const Operator> IndexedOperators();
std::span<const Operator> NetworkOperators();
std::span<const Operator> ReductionOperators();
std::span<const Operator> ResamplingOperators();
std::span<const Operator> ShapeOperators();

inline std::unexpected<Error> NotSupported(std::string message) {
  return Fail(ErrorCode::kUnsupported, std::move(message));
}
inline std::unexpected<Error> Invalid(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}
// A handler's result of one tensor.
inline Result<Tensors> One(Result<Tensor> tensor) {
  if (!tensor) return std::unexpected(std::move(tensor).error());
  return Tensors{*tensor};
}

}  // namespace millpower::import::torch
