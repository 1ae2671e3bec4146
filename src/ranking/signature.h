// What a model of tensors looks like from outside: names, types and shapes of what goes in and
// comes out, which buffer of its Program each is, and what happens on the host before the Program
// runs, as chips have no strings. Travels with the Program, as JSON, in the text "signature" of its
// package.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "base/size.h"
#include "isa/program.h"

namespace millpower::ranking {

// A tensor that goes in or comes out. Symbols in its shape are names of the Program's registers;
// each is given by the request, as some input's whole dimension or one like "2*batch" or "batch+1".
struct Port {
  std::string name;           // public, any characters
  DType dtype = DType::kF32;  // of the elements that clients send or get, unless is_string
  bool is_string = false;     // an input of byte strings, which lookups read
  std::vector<Size> shape;    // empty: a scalar
  std::string buffer;         // of the Program; of an input that lookups alone read, empty
  // An input that cuts others into rows, as embedding bags have them: where in their first
  // dimension, a symbol of its own, each row of the batch begins. Its own shape is [batch], or
  // [batch + 1] with the end of the last row. Requests are joined by moving these along.
  std::vector<std::string> offsets_of{};
  // For people: what its elements do that are to name a row of a table and name none, such as
  // "clamp" (import/tensor/features.h). Empty: it names no rows.
  std::string id_policy{};
  bool operator==(const Port&) const = default;
};

// Each element of an input becomes the value of its key; that of a key which is not there becomes
// bucket_base + Fingerprint64(key) % buckets (FarmHash's, as TensorFlow hashes; an integer is
// hashed as its decimal digits), or, without buckets, `otherwise`.
struct Lookup {
  std::string input;              // the port, of strings or integers
  std::string buffer;             // the Program's input, i64 or i32, of the port's shape
  std::vector<std::string> keys;  // bytes, or decimal integers; the last of two equal ones counts
  std::vector<int64_t> values;    // by key
  int64_t otherwise = -1;
  int64_t buckets = 0;
  int64_t bucket_base = 0;
  bool operator==(const Lookup&) const = default;
};

struct Signature {
  std::string format;  // what it was imported from: "onnx", "pt2", "saved_model"
  std::string batch;   // the symbol that counts a request's rows (its candidates); empty: none
  // A row of the outputs depends on its own row of the inputs only, so that rows of several
  // requests may share a launch. (A softmax over the candidates says false.)
  bool rows_are_independent = true;
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  std::vector<Lookup> prologue;
  bool operator==(const Signature&) const = default;

  // Index by public name; -1 when there is none.
  int FindInput(std::string_view name) const;
  int FindOutput(std::string_view name) const;
};

// The name of the package's text.
inline constexpr const char* kSignatureText = "signature";

// {"version": 1, "format", "batch", "rows_are_independent",
//  "inputs": [{"name", "dtype": "f32" or "string", "shape": [2, "batch"], "buffer", "offsets_of",
//  "id_policy"}],
//  "outputs": [...], "prologue": [{"input", "buffer", "keys", "values", "otherwise", "buckets",
//  "bucket_base"}]}
// Keys that are not UTF-8 are objects {"hex": "00ff"}. Fields at their defaults may be left out.
Json ToJson(const Signature& signature);
// Errors: kCorrupt, naming the field; kUnsupported (a version we do not know).
Result<Signature> SignatureFromJson(const Json& json);

// Proves that the signature fits the Program: every buffer is there, of the right kind and type,
// and has as many elements as the port's shape for all values of the registers; every input buffer
// is filled by one port or lookup; every register that a launch must set is known from an input's
// shape; names are unique. Errors: kInvalidArgument, naming the port.
Result<void> CheckSignature(const Signature& signature, const isa::Program& program);

}  // namespace millpower::ranking
