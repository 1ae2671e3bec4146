// The part of Verify that concerns streams and semaphores.
#pragma once

#include "isa/verify.h"

namespace millpower::isa {

// The streams of a Program whose declarations and operands are proven: that they end, use up their
// counts, and are free of races and of reads before writes. Errors: kCorrupt.
Result<void> CheckOrder(const Program& program);

}  // namespace millpower::isa
