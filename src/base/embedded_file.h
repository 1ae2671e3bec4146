// A file that the build has put into the binary (tools/embed_files.cmake): nothing has to be found
// when it runs.
#pragma once

#include <string_view>

namespace millpower {

struct EmbeddedFile {
  std::string_view path;  // below the folder that is embedded: "pages/usage.js"
  std::string_view bytes;
};

}  // namespace millpower
