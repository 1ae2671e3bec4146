// What the build put in; written by CMake from build_info.cc.in.
#pragma once

namespace millpower::serve {

extern const char* const kVersion;
extern const char* const kOpenApiJson;  // openapi.json

}  // namespace millpower::serve
