// The input of a batch: a file of lines, each a request in JSON.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace millpower::serve {

inline constexpr size_t kBatchLinesMax = 50'000;  // OpenAI's
inline constexpr size_t kBatchErrorsMax = 100;    // told of one file; the rest is not looked for
inline constexpr size_t kCustomIdBytesMax = 512;
inline constexpr size_t kModelBytesMax = 512;
// Of what is told of a fault: it is kept, and names what the file says.
inline constexpr size_t kErrorBytesMax = 300;

// What is wrong with a file, as the batch object tells it.
struct BatchError {
  std::string code;
  std::string message;  // at most kErrorBytesMax
  std::string param;    // "": none
  int64_t line = 0;     // from 1; 0: of the whole file
};

// Where a line stands in its file.
struct InputLine {
  int64_t number = 0;  // from 1, blank lines counted
  std::string_view text;
};

// The lines that are not blank, as views of `file`.
std::vector<InputLine> SplitLines(std::string_view file);

struct LineRequest {
  std::string custom_id;
  std::string model;
  std::string body;  // JSON
};

// {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": {"model": "m", ...}}
std::expected<LineRequest, BatchError> ReadLine(const InputLine& line, std::string_view endpoint);

// Whether the caller may have a model's answers; the error is told for the line.
using ModelCheck = std::function<Result<void>(const std::string& model)>;

// At most `bytes_max` of a text, cut between characters of UTF-8.
std::string Shortened(std::string_view text, size_t bytes_max);

// Everything that is wrong with a file, in order, up to kBatchErrorsMax; empty: it can be run.
std::vector<BatchError> CheckInput(std::string_view file, std::string_view endpoint,
                                   const ModelCheck& check_model);

}  // namespace millpower::serve
