// Programs as bytes and as text. Both forms hold everything a Program does: decoding what was
// encoded, and parsing what was printed, gives an equal Program. docs/isa/encoding.md specifies
// the bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "isa/program.h"

namespace millpower::isa {

// Bumped by every change of an encoding; other versions are refused by name.
inline constexpr uint32_t kFormatVersion = 4;

std::vector<std::byte> Encode(const Program& program);

// Reads bytes from anywhere: every count and size is checked before use. What it returns is well
// formed but not yet proven sound (verify.h). Errors: kCorrupt; kUnsupported (another version).
Result<Program> Decode(std::span<const std::byte> bytes);

// One declaration or instruction per line.
std::string Print(const Program& program);
std::string Print(const Program& program, const Instruction& instruction);

// Errors: kInvalidArgument with the line number.
Result<Program> Parse(std::string_view text);

}  // namespace millpower::isa
