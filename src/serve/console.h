// The web console: the files of console/, which are part of the binary. See docs/console.md.
#pragma once

#include <span>
#include <string_view>

#include "serve/router.h"

namespace millpower::serve {

struct ConsoleFile {
  std::string_view path;  // below console/: "pages/usage.js"
  std::string_view bytes;
};

// All of them, in no particular order; the build makes the table (tools/embed_files.cmake).
std::span<const ConsoleFile> ConsoleFiles();

// GET /console/ and below; open to everybody, as what the pages show needs a key. A path is looked
// up in the table as it came, not decoded: nothing outside the table can be named. The pages may
// load and ask only what comes from the same origin, and nobody may frame them.
void AddConsoleRoutes(Router& router);

}  // namespace millpower::serve
