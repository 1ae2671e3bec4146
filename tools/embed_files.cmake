# Writes OUTPUT, a C++ source that holds the files named in LIST (a text file, one path a line, below
# ROOT) as the table that serve/console.h declares. Run by the build with `cmake -P`.
#
# Bytes become numbers rather than a string literal, whose length compilers limit.
file(STRINGS "${LIST}" paths)
set(arrays "")
set(rows "")
set(index 0)
foreach(path IN LISTS paths)
  file(READ "${ROOT}/${path}" hex HEX)
  string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${hex}")
  string(APPEND arrays "constexpr char kFile${index}[] = {${bytes}0};\n")  # 0: none is empty
  string(APPEND rows "    {\"${path}\", {kFile${index}, sizeof kFile${index} - 1}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE "${OUTPUT}" "#include \"serve/console.h\"

namespace millpower::serve {
namespace {

${arrays}
constexpr ConsoleFile kFiles[] = {
${rows}};

}  // namespace

std::span<const ConsoleFile> ConsoleFiles() { return kFiles; }

}  // namespace millpower::serve
")
