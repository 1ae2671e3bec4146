// The web console: the files of console/, which are part of the binary. See docs/console.md.
#pragma once

#include <span>

#include "base/embedded_file.h"
#include "serve/router.h"

namespace millpower::serve {

// All of them by their paths below console/, in no particular order.
std::span<const EmbeddedFile> ConsoleFiles();

// GET /console/ and below; open to everybody, as what the pages show needs a key. A path is looked
// up in the table as it came, not decoded: nothing outside the table can be named. The pages may
// load and ask only what comes from the same origin, and nobody may frame them.
void AddConsoleRoutes(Router& router);

}  // namespace millpower::serve
