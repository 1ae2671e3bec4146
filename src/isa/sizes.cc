#include "isa/sizes.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace millpower::isa {
namespace {

// Products of sizes are computed at every load; a compiler's formulas have a few terms.
constexpr size_t kMaxFormulaTerms = 16;

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

// Registers that formulas may name, by name: what is set at launch, with its bound.
using Bounds = std::map<std::string, int64_t>;

Result<Size> ParseFormula(const Register& reg, const Bounds& bounds) {
  auto formula = Size::Parse(reg.formula);
  if (!formula || formula->ToString() != reg.formula || formula->terms().size() > kMaxFormulaTerms)
    return Corrupt("the formula is no size in its canonical text");
  if (reg.at_load) return Corrupt("is both set at load and computed");
  if (formula->IsConstant()) return Corrupt("the formula is a constant");
  if (!formula->IsMonotone()) return Corrupt("the formula may fall when a register grows");
  for (const std::string& symbol : formula->Symbols())
    if (!bounds.contains(symbol))
      return Corrupt("the formula names '" + symbol +
                     "', which is no earlier register that is set at launch");
  const auto value = formula->Evaluate(
      [&](const std::string& symbol) { return std::optional(bounds.at(symbol)); });
  if (value != reg.max)
    return Corrupt("the bound is not the formula's value at its registers' bounds");
  return formula;
}

}  // namespace

bool IsNeverNegative(const std::optional<Size>& size) {
  return size && size->IsMonotone() &&
         size->Evaluate([](const std::string&) { return 1; }).value_or(-1) >= 0;
}

Result<Sizes> Sizes::Make(const Program& program) {
  Sizes sizes;
  sizes.program_ = &program;
  Bounds bounds;
  std::set<std::string> known;  // sizes that a register is already
  for (const Register& reg : program.registers) {
    if (reg.formula.empty()) {
      sizes.registers_.push_back(Size::Symbol(reg.name));
      if (!reg.at_load) bounds.emplace(reg.name, reg.max);
      known.insert(reg.name);
      continue;
    }
    auto formula = ParseFormula(reg, bounds);
    if (formula && !known.insert(reg.formula).second)
      formula = Corrupt("another register is this size");
    if (!formula) return FailAt("register '" + reg.name + "'", formula.error());
    sizes.registers_.push_back(*std::move(formula));
  }
  for (const std::vector<Dim>& shape : program.shapes) TRY(sizes.AddShape(shape));
  return sizes;
}

Result<void> Sizes::AddShape(const std::vector<Dim>& shape) {
  if (shape.size() > kMaxSizes) return Corrupt("a shape is longer than 64 sizes");
  std::vector<Size>& sizes = shapes_.emplace_back();
  for (const Dim& dim : shape) {
    const bool is_register =
        dim.reg >= 0 && static_cast<size_t>(dim.reg) < registers_.size() && dim.size == 0;
    const bool is_constant = dim.reg == -1 && dim.size >= 0 && dim.size <= kMaxRows;
    if (!is_register && !is_constant)
      return Corrupt("a shape has a size that is neither a register nor 0..2^31");
    sizes.push_back(OfDim(dim));
  }
  std::optional<Size> elements = Size(1);
  if (sizes.size() > kMaxTensorRank) elements = std::nullopt;
  for (size_t i = 0; elements && i < sizes.size(); ++i) elements = elements->Times(sizes[i]);
  elements_.push_back(std::move(elements));
  return {};
}

}  // namespace millpower::isa
