// The dense Qwen3 models as their makers published them, so that a chip can be planned for them
// without downloading anything.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "import/qwen3/config.h"

namespace millpower::import {

struct PublishedModel {
  const char* name;        // "qwen3-0.6b"
  const char* repository;  // on huggingface.co: "Qwen/Qwen3-0.6B"
  int64_t parameters;      // as published; a tied head is not counted again
  Qwen3Config config;
};

std::span<const PublishedModel> PublishedModels();

// Null when there is none of that name.
const PublishedModel* FindPublishedModel(std::string_view name);

}  // namespace millpower::import
