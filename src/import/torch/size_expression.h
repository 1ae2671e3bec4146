// Sizes as exported programs write them: sympy expressions in symbols, either printed
// ("2*s0 + 1") or, since torch 2.6, as constructors ("Add(Mul(Integer(2), Symbol('s0',
// positive=True, integer=True)), Integer(1))").
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/size.h"

namespace millpower::import::torch {

inline constexpr size_t kMaxSizeExpressionBytes = 4096;

// `value_of` gives what stands for a symbol. Errors: kUnsupported: not a polynomial in the symbols
// with whole coefficients (such as an inexact FloorDiv of symbols), or a function that is not
// known, by name; kCorrupt: malformed; those of value_of.
Result<Size> ParseSizeExpression(std::string_view text,
                                 const std::function<Result<Size>(const std::string&)>& value_of);

}  // namespace millpower::import::torch
