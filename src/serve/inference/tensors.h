// Tensors between JSON and bytes, as both of the inference APIs have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "ranking/engine.h"

namespace millpower::serve {

// What a request's tensors view: its body, and what was made from JSON. They stay where they are.
struct TensorStore {
  std::string body;
  std::deque<std::string> parts;
};

// Elements of a shape. Errors: kInvalidArgument (negative sizes, or more than any request holds).
Result<int64_t> CountElements(std::span<const int64_t> shape);

// How an API writes byte strings in JSON, besides as strings: TensorFlow's {"b64": "..."}.
enum class ByteStrings { kPlain, kBase64Objects };

// Collects the elements of one tensor.
class TensorBuilder {
 public:
  // `store` outlives what is built.
  TensorBuilder(const ranking::Port& port, TensorStore& store, ByteStrings byte_strings)
      : port_(port), store_(store), byte_strings_(byte_strings) {}

  // Lists within lists, in order; `shape` gets the sizes of the lists, which must be alike.
  // Errors: kInvalidArgument, naming the input.
  Result<void> AddNested(const Json& data, std::vector<int64_t>& shape);
  // Lists within lists of any shape.
  Result<void> AddFlat(const Json& data);
  Result<void> AddElement(const Json& element);

  int64_t count() const { return count_; }
  ranking::InputTensor Build(std::vector<int64_t> shape);

 private:
  Result<void> AddNumber(const Json& element);
  Result<void> AddString(const Json& element);
  std::unexpected<Error> Bad(const std::string& what) const;

  const ranking::Port& port_;
  TensorStore& store_;
  const ByteStrings byte_strings_;
  std::string bytes_;
  std::vector<std::string_view> strings_;
  int64_t count_ = 0;
};

// The elements `count` of `bytes` as JSON, divided by commas: floats in the fewest digits that read
// back to the same value, null where they are not finite.
void AppendElements(std::span<const std::byte> bytes, DType dtype, std::string& json);
// As lists within lists.
void AppendNested(std::span<const std::byte> bytes, DType dtype, std::span<const int64_t> shape,
                  std::string& json);

// RFC 4648's. Errors: kInvalidArgument.
Result<std::string> DecodeBase64(std::string_view text);

}  // namespace millpower::serve
