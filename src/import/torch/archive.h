// The two layouts of .pt2 files, both zip archives:
//   since torch 2.8  NAME/archive_format ("pt2"), NAME/models/MODEL.json, and the tensors' bytes
//                    one record each (data/weights/weight_0 ...), listed with types and strides in
//                    data/weights/MODEL_weights_config.json and data/constants/...; or, in 2.8, as
//                    files of torch.save (data/weights/MODEL.pt)
//   up to 2.7        serialized_exported_program.json, version ("8.2"), and files of torch.save,
//                    serialized_state_dict.pt and serialized_constants.pt
// (torch/export/pt2_archive/_package.py, torch/export/__init__.py). Sample inputs and compiled code
// are not looked at. The file is not trusted.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "import/torch/strided.h"

namespace millpower::import::torch {

struct Pt2Archive {
  std::string program;  // JSON; see program.h
  // Parameters and persistent buffers, and constants and other buffers. Storages lie in the file
  // or in `inflated`.
  std::map<std::string, StridedTensor> weights, constants;
  std::vector<std::vector<std::byte>> inflated;
};

// Whether the bytes begin as a zip archive does.
bool IsZip(std::span<const std::byte> file);

// The bytes must outlive the archive. Errors: those of zip.h and pickle.h; kCorrupt: neither
// layout, or a listed record is not there; kUnsupported: another version, another byte order, or
// several models in one file.
Result<Pt2Archive> OpenPt2Archive(std::span<const std::byte> file);

}  // namespace millpower::import::torch
