// Small constants as numbers, and arithmetic on them. Internal to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "base/expression.h"
#include "base/size.h"

namespace millpower::import {

std::vector<double> RealsOf(DType dtype, std::span<const std::byte> bytes);      // floats
std::vector<int64_t> IntegersOf(DType dtype, std::span<const std::byte> bytes);  // the rest

// A real as an integer type takes it: truncated, saturated, NaN 0. u64 as its bits.
int64_t ToInteger(DType dtype, double value);

// The nearest value of a float type.
double RoundTo(DType dtype, double value);

// Whether a size is at least `least`, whatever its symbols, which are at least 1.
bool IsAtLeast(const Size& size, int64_t least);

// One element while an expression is evaluated: an integer (or bool), or a real.
using Known = std::variant<Size, double>;

// The result of the expression for one element; absent when a term can't be told. `operands` are
// the loaded elements, `coordinates` those of the element.
std::optional<Known> Evaluate(const Expression& expression, std::span<const Known> operands,
                              std::span<const int64_t> coordinates);

}  // namespace millpower::import
