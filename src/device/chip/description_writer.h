// A chip back to the form of its file.
#pragma once

#include <string>

#include "device/chip/description.h"

namespace millpower::device::chip {

// What ParseChip reads as the same chip; constants that a sibling lent are written as its own.
std::string ToToml(const Chip& chip);

}  // namespace millpower::device::chip
