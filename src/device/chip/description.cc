#include "device/chip/description.h"

#include "device/chip/description_figures.h"

namespace millpower::device::chip {

namespace {

Figure Settled(const Figure& figure, Bound bound, Better better) {
  double value = figure.value;
  if (bound != Bound::kValue && better != Better::kNeither)
    value = (bound == Bound::kHigh) == (better == Better::kHigher) ? figure.high : figure.low;
  return {value, value, value, figure.source, false};
}

MatrixType Multiplied(const Chip& chip, DType type) {
  const MatrixType wanted = MatrixTypeOf(type);
  for (const MatrixType t : {wanted, MatrixType::kBf16, MatrixType::kF16, MatrixType::kF32})
    if (chip.matrix[static_cast<size_t>(t)].ops_per_s.value > 0) return t;
  return wanted;
}

}  // namespace

const char* Name(MatrixType type) { return kMatrixNames[static_cast<size_t>(type)]; }

Chip Chip::At(Bound bound) const {
  Chip chip = *this;
  for (const FigureInfo& info : FiguresOf(chip))
    *info.figure = Settled(*info.figure, bound, info.better);
  for (auto& [kind, constants] : chip.fitted)
    for (auto& [name, figure] : constants) figure = Settled(figure, bound, BetterOf(name));
  chip.assumed.clear();
  return chip;
}

double Chip::Fitted(const std::string& kind, const std::string& name, double otherwise) const {
  const auto constants = fitted.find(kind);
  if (constants == fitted.end()) return otherwise;
  const auto found = constants->second.find(name);
  return found == constants->second.end() ? otherwise : found->second.value;
}

MatrixType MatrixTypeOf(DType type) {
  switch (type) {
    case DType::kF16:
      return MatrixType::kF16;
    case DType::kBf16:
      return MatrixType::kBf16;
    case DType::kF8E4M3:
      return MatrixType::kF8;
    case DType::kI8:
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_K:
    case DType::kQ6_K:
      return MatrixType::kInt8;
    default:
      return MatrixType::kF32;
  }
}

double MatrixRate(const Chip& chip, DType type) {
  return chip.matrix[static_cast<size_t>(Multiplied(chip, type))].ops_per_s.value;
}

double MatrixJoulesPerOp(const Chip& chip, DType type) {
  return chip.energy.matrix_j_per_op[static_cast<size_t>(Multiplied(chip, type))].value;
}

}  // namespace millpower::device::chip
