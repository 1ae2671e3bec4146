// Einstein summation, as transpositions and stacks of matrix products.
#include <algorithm>
#include <array>
#include <set>

#include "import/tensor/builder.h"

namespace millpower::import {
namespace {

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Labels of operands and of the result; dimensions of an ellipsis get the digits 0 to 7, the last
// of them always 7, so that they line up from the right.
struct Equation {
  std::vector<std::string> inputs;
  std::string output;
};

Result<std::string> Spell(std::string_view labels, int rank) {
  std::string spelled;
  const size_t dots = labels.find("...");
  const int named = static_cast<int>(labels.size()) - (dots == std::string_view::npos ? 0 : 3);
  for (size_t i = 0; i < labels.size(); ++i) {
    if (i == dots) {
      for (int d = named; d < rank; ++d) spelled += static_cast<char>('0' + 8 - (rank - d));
      i += 2;
    } else if (IsLetter(labels[i])) {
      spelled += labels[i];
    } else {
      return Misfit("an einsum has '" + std::string(1, labels[i]) + "' for a label");
    }
  }
  if (static_cast<int>(spelled.size()) == rank) return spelled;
  return Misfit("an einsum's labels '" + std::string(labels) + "' do not fit a rank of " +
                std::to_string(rank));
}

Result<Equation> ParseEquation(std::string_view text, std::span<const int> ranks) {
  std::string packed;
  for (const char c : text)
    if (c != ' ') packed += c;
  const size_t arrow = packed.find("->");
  std::string_view left = std::string_view(packed).substr(0, arrow);
  Equation equation;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const size_t comma = left.find(',');
    if ((comma == std::string_view::npos) != (i + 1 == ranks.size()))
      return Misfit("an einsum has another number of operands than its equation");
    TRY_ASSIGN(equation.inputs.emplace_back(), Spell(left.substr(0, comma), ranks[i]));
    left = comma == std::string_view::npos ? std::string_view() : left.substr(comma + 1);
  }
  std::set<char> dotted;
  std::array<int, 128> count{};
  for (const std::string& labels : equation.inputs)
    for (const char label : labels) {
      ++count[static_cast<size_t>(label)];
      if (!IsLetter(label)) dotted.insert(label);
    }
  const std::string dots(dotted.begin(), dotted.end());
  if (arrow == std::string::npos) {  // labels that are there once, in alphabetical order
    equation.output = dots;
    for (int label = 'A'; label <= 'z'; ++label)
      if (count[static_cast<size_t>(label)] == 1) equation.output += static_cast<char>(label);
    return equation;
  }
  std::string right = packed.substr(arrow + 2);
  if (const size_t at = right.find("..."); at != std::string::npos) right.replace(at, 3, dots);
  for (const char label : right)
    if (count[static_cast<size_t>(label & 127)] == 0)
      return Misfit("an einsum's result has a label that no operand has");
  if (std::set(right.begin(), right.end()).size() != right.size())
    return Misfit("an einsum's result has a label twice");
  equation.output = right;
  return equation;
}

bool Has(std::string_view labels, char label) { return labels.find(label) != std::string::npos; }

// One operand on the way.
struct Labelled {
  Tensor x;
  std::string labels;
};

class Einsum {
 public:
  explicit Einsum(TensorBuilder& builder) : b_(builder) {}

  // x with each label once: of equal labels only the diagonal is kept, by a mask and a sum.
  Result<Labelled> Diagonals(Labelled in) {
    for (size_t i = 0; i < in.labels.size(); ++i) {
      for (size_t j = in.labels.size() - 1; j > i; --j) {
        if (in.labels[i] != in.labels[j]) continue;
        Expression e;
        const DType type = b_.dtype(in.x);
        const int16_t x = e.Load(0, type);
        const int16_t same = e.Apply(MapOp::kEqual, DType::kBool,
                                     {e.Index(static_cast<int>(i)), e.Index(static_cast<int>(j))});
        const int16_t zero = IsFloat(type) ? e.Constant(type, 0.0) : e.Constant(type, int64_t{0});
        e.Apply(MapOp::kSelect, type, {same, x, zero});
        TRY_ASSIGN(in.x, b_.Map(e, std::span(&in.x, 1)));
        TRY_ASSIGN(in.x, b_.Reduce(Reduction::kSum, in.x, {static_cast<int>(j)}, false));
        in.labels.erase(j, 1);
      }
    }
    return in;
  }

  // Sums over the labels that are not in `kept`.
  Result<Labelled> SumOut(Labelled in, std::string_view kept) {
    std::vector<int> axes;
    std::string left;
    for (size_t i = 0; i < in.labels.size(); ++i) {
      if (Has(kept, in.labels[i])) {
        left += in.labels[i];
      } else {
        axes.push_back(static_cast<int>(i));
      }
    }
    if (!axes.empty()) {
      TRY_ASSIGN(in.x, b_.Reduce(Reduction::kSum, in.x, axes, false));
    }
    return Labelled{in.x, left};
  }

  Result<Tensor> Permute(const Labelled& in, std::string_view order) {
    std::vector<int64_t> perm;
    for (const char label : order) perm.push_back(static_cast<int64_t>(in.labels.find(label)));
    return b_.Transpose(in.x, perm);
  }

  // Both operands; labels outside of `kept` that both have are summed over.
  Result<Labelled> Pair(Labelled a, Labelled b, std::string_view kept) {
    TRY_ASSIGN(a, SumOut(a, std::string(kept) + b.labels));
    TRY_ASSIGN(b, SumOut(b, std::string(kept) + a.labels));
    std::string batch, summed, rows, cols;
    for (const char label : a.labels)
      (!Has(b.labels, label) ? rows : Has(kept, label) ? batch : summed) += label;
    for (const char label : b.labels)
      if (!Has(a.labels, label)) cols += label;
    TRY_ASSIGN(const Tensor left, Matrices(a, batch, rows, summed));
    TRY_ASSIGN(const Tensor right, Matrices(b, batch, summed, cols));
    TRY_ASSIGN(Tensor product, b_.Contract(left, right, false, false));
    ir::Shape shape(b_.shape(product).begin(), b_.shape(product).end() - 2);
    for (const char label : rows) shape.push_back(b_.shape(a.x)[a.labels.find(label)]);
    for (const char label : cols) shape.push_back(b_.shape(b.x)[b.labels.find(label)]);
    TRY_ASSIGN(product, b_.Reshape(product, shape));
    return Labelled{product, batch + rows + cols};
  }

 private:
  // [batch ..., product of `first`, product of `second`]
  Result<Tensor> Matrices(const Labelled& in, const std::string& batch, const std::string& first,
                          const std::string& second) {
    TRY_ASSIGN(Tensor x, Permute(in, batch + first + second));
    const auto at = static_cast<int>(batch.size());
    const auto middle = at + static_cast<int>(first.size());
    TRY_ASSIGN(x, b_.Flatten(x, middle, middle + static_cast<int>(second.size())));
    return b_.Flatten(x, at, middle);
  }

  TensorBuilder& b_;
};

}  // namespace

Result<Tensor> TensorBuilder::Einsum(std::string_view text, std::span<const Tensor> operands) {
  if (operands.empty()) return Misfit("an einsum without operands");
  std::vector<int> ranks;
  for (const Tensor operand : operands) ranks.push_back(rank(operand));
  TRY_ASSIGN(const Equation equation, ParseEquation(text, ranks));
  import::Einsum einsum(*this);
  std::vector<Labelled> parts;
  for (size_t i = 0; i < operands.size(); ++i) {
    TRY_ASSIGN(parts.emplace_back(), einsum.Diagonals({operands[i], equation.inputs[i]}));
  }
  Labelled all = parts.front();
  for (size_t i = 1; i < parts.size(); ++i) {
    std::string kept = equation.output;
    for (size_t j = i + 1; j < parts.size(); ++j) kept += parts[j].labels;
    TRY_ASSIGN(all, einsum.Pair(all, parts[i], kept));
  }
  TRY_ASSIGN(all, einsum.SumOut(all, equation.output));
  if (all.labels.size() != equation.output.size()) return Misfit("an einsum's labels do not fit");
  return einsum.Permute(all, equation.output);
}

}  // namespace millpower::import
