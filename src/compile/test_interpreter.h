// What graphs of tensors and the Programs made of them mean, as plainly as it can be said: every
// operator over arrays of float64 or int64, one element at a time. Tests compare the two, and what
// devices compute with either.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "ir/graph.h"
#include "ir/weights.h"
#include "isa/package.h"
#include "isa/program.h"

namespace millpower::compile {

// Elements row-major: `reals` of float types, rounded to them, `integers` of all others.
struct Array {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<double> reals = {};
  std::vector<int64_t> integers = {};

  static Array Zeros(DType dtype, std::vector<int64_t> shape);
  static Array FromBytes(DType dtype, std::vector<int64_t> shape, std::span<const std::byte> bytes);
  std::vector<std::byte> Bytes() const;

  int64_t count() const;
  double real(int64_t i) const;  // of any type
  int64_t integer(int64_t i) const { return integers[static_cast<size_t>(i)]; }
  void Set(int64_t i, double value);  // rounds, or wraps
  void SetInteger(int64_t i, int64_t value);
  void Copy(int64_t i, const Array& from, int64_t j);  // of one type
};

using Values = std::map<std::string, int64_t>;  // of symbols
using Arrays = std::map<std::string, Array>;    // by name

// The outputs of a graph. Errors: kInvalidArgument for an index that its policy refuses.
Result<Arrays> Interpret(const ir::Graph& graph, const Values& symbols, const Arrays& inputs,
                         const ir::WeightSource& weights);

// The output buffers of a Program, as rows and columns, run in the order that `seed` gives.
// Instructions of language models are not known, but for matmul with weights in f32 or bf16.
Result<Arrays> Interpret(const isa::Program& program, const isa::BoundWeights& weights,
                         const Values& registers, const Arrays& inputs, uint64_t seed = 0);

}  // namespace millpower::compile
