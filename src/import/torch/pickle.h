// Reads what torch.save wrote of a dict of tensors: a zip archive with a pickle (data.pkl) that
// names storages (data/0, data/1 ...).
//
// A pickle is a program for a stack machine and may call any function by name. This reader knows
// the instructions that torch.save needs, and of functions only those that make a tensor, a
// parameter, an OrderedDict or name a storage; nothing is executed, anything else is refused by
// name. The instructions are those of Python's pickletools.py; what torch calls stands in
// torch/_utils.py and torch/serialization.py.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "base/result.h"
#include "import/torch/strided.h"
#include "import/torch/zip.h"

namespace millpower::import::torch {

// Of the pickle itself, without the tensors' bytes.
inline constexpr size_t kMaxPickleBytes = size_t{256} << 20;
// A byte can make an object of a hundred. A tensor takes some 20, those in the memo counted.
inline constexpr size_t kMaxPickleObjects = size_t{1} << 20;
inline constexpr size_t kMaxPickleRank = 16;

// A storage as the pickle names it.
struct PickledStorage {
  std::string dtype_name;      // "FloatStorage"
  std::optional<DType> dtype;  // absent for a type that we do not read
  std::string key;             // of the record data/KEY
  int64_t elements = 0;
};

struct PickledTensor {
  PickledStorage storage;
  int64_t offset = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// The tensors in a dict by their keys; a single tensor has the key "". What else the dict holds is
// left out. Memory and time are linear in the pickle's length.
// Errors: kUnsupported: a function or an instruction that is not known, by name; kCorrupt.
Result<std::map<std::string, PickledTensor>> ReadPickle(std::span<const std::byte> pickle);

// The same of a whole file of torch.save, with the storages found. `inflated` takes the bytes of
// records that are compressed; the views lie there or in `file`.
// Errors: those of zip.h and ReadPickle; kUnsupported: a big-endian file.
Result<std::map<std::string, StridedTensor>> ReadTorchSave(
    std::span<const std::byte> file, std::vector<std::vector<std::byte>>& inflated);

}  // namespace millpower::import::torch
