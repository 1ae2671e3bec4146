# millpower_embed(TARGET FOLDER FUNCTION PATHS...): adds to TARGET a source that defines
# `std::span<const millpower::EmbeddedFile> FUNCTION()` (base/embedded_file.h), FUNCTION with its
# namespaces: the files of FOLDER that PATHS name.
#
# The same file, run by the build with `cmake -P`, writes that source.
if(NOT CMAKE_SCRIPT_MODE_FILE)
  function(millpower_embed target folder function)
    list(JOIN ARGN "\n" list)
    set(name ${target}_files)
    file(CONFIGURE OUTPUT ${name}.txt CONTENT "${list}\n" @ONLY)
    set(files ${ARGN})
    list(TRANSFORM files PREPEND ${folder}/)
    add_custom_command(
      OUTPUT ${name}.cc
      COMMAND ${CMAKE_COMMAND} -D ROOT=${folder} -D LIST=${name}.txt -D OUTPUT=${name}.cc
              -D FUNCTION=${function} -P ${PROJECT_SOURCE_DIR}/tools/embed_files.cmake
      DEPENDS ${files} ${CMAKE_CURRENT_BINARY_DIR}/${name}.txt
              ${PROJECT_SOURCE_DIR}/tools/embed_files.cmake
      VERBATIM)
    target_sources(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/${name}.cc)
  endfunction()
  return()
endif()

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
string(REGEX MATCH "^(.*)::([A-Za-z_0-9]+)$" matched "${FUNCTION}")
set(namespace "${CMAKE_MATCH_1}")
set(name "${CMAKE_MATCH_2}")
file(WRITE "${OUTPUT}" "#include <span>

#include \"base/embedded_file.h\"

namespace ${namespace} {
namespace {

${arrays}
constexpr EmbeddedFile kFiles[] = {
${rows}};

}  // namespace

std::span<const EmbeddedFile> ${name}();
std::span<const EmbeddedFile> ${name}() { return kFiles; }

}  // namespace ${namespace}
")
