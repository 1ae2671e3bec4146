// TOML files: toml++ without its assertions. Some faults of a file that its errors would name (a
// table "[#a]", in 3.3) break them first: builds that check them would end, and builds of clang
// that take them for granted could do anything.
#pragma once

#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(expression) static_cast<void>(0)
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")
