// When instructions ran, in Chrome's trace event format ("Trace Event Format", Google, 2016), which
// ui.perfetto.dev opens. Both devices write it: what is predicted and what is measured lie side by
// side.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millpower::device {

// A JSON array of events, one a line. Safe for concurrent use.
class TraceFile {
 public:
  // Errors: kIo.
  static Result<std::unique_ptr<TraceFile>> Open(const std::filesystem::path& path);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  // A row of the picture: `process` and `thread` group rows; named once.
  void NameRow(int process, int thread, std::string_view process_name,
               std::string_view thread_name);
  // Microseconds. `arguments`: JSON members, e.g. "\"bytes\":12"; may be empty.
  void Add(int process, int thread, std::string_view name, double begin_us, double duration_us,
           std::string_view arguments = {});
  // Ends the file; events that come later are dropped. Errors: kIo when anything could not be
  // written.
  Result<void> Close();

 private:
  explicit TraceFile(std::FILE* file) : file_(file) {}
  void Write(const std::string& event);

  std::mutex mutex_;
  std::FILE* file_ = nullptr;
  bool first_ = true;
  bool failed_ = false;
};

}  // namespace millpower::device
