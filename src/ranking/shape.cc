#include "ranking/shape.h"

#include <optional>

namespace millpower::ranking {
namespace {

const isa::Register& RegisterAt(const isa::Program& program, int32_t index) {
  return program.registers[static_cast<size_t>(index)];
}

}  // namespace

int64_t Dimension::Evaluate(const isa::Program& program, std::span<const int64_t> registers) const {
  if (is_line) {
    if (symbol < 0) return constant;
    int64_t value = 0;
    const bool overflows =
        __builtin_mul_overflow(coefficient, registers[static_cast<size_t>(symbol)], &value) ||
        __builtin_add_overflow(value, constant, &value);
    return overflows ? -1 : value;
  }
  return size
      .Evaluate([&](const std::string& name) -> std::optional<int64_t> {
        const int32_t index = program.FindRegister(name);
        if (index < 0) return std::nullopt;
        return registers[static_cast<size_t>(index)];
      })
      .value_or(-1);
}

Result<Dimension> MakeDimension(const Size& size, const isa::Program& program) {
  Dimension dimension{.size = size};
  for (const std::string& name : size.Symbols()) {
    dimension.symbol = program.FindRegister(name);
    if (dimension.symbol < 0 || !IsFree(RegisterAt(program, dimension.symbol)))
      return Fail(ErrorCode::kInvalidArgument,
                  "'" + name + "' is no size that a launch of the Program sets");
  }
  for (const auto& [factors, coefficient] : size.terms()) {
    if (factors.empty())
      dimension.constant = coefficient;
    else
      dimension.coefficient = coefficient;
    if (factors.size() > 1) dimension.is_line = false;
  }
  if (size.Symbols().size() > 1) dimension.is_line = false;
  return dimension;
}

Result<Size> RowsOf(const isa::Buffer& buffer, const isa::Program& program) {
  if (buffer.rows.reg < 0) return Size(buffer.rows.size);
  const isa::Register& reg = RegisterAt(program, buffer.rows.reg);
  return reg.formula.empty() ? Size::Symbol(reg.name) : Size::Parse(reg.formula);
}

}  // namespace millpower::ranking
