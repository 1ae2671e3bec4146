// Progress of something that takes a while, as one line on standard error that is drawn over.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "cli/size.h"

namespace millpower::cli {

// Prints nothing unless standard error is a terminal, and nothing for what is over quickly.
class ProgressLine {
 public:
  ProgressLine(std::string what, bool enabled)
      : what_(std::move(what)), enabled_(enabled && ::isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void operator()(int64_t done_bytes, int64_t total_bytes) {
    const auto now = std::chrono::steady_clock::now();
    if (!enabled_ || total_bytes == 0 || now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    shown_ = true;
    std::fprintf(stderr, "\r\033[K%s %3d%% of %s", what_.c_str(),
                 static_cast<int>(100 * done_bytes / total_bytes), FormatSize(total_bytes).c_str());
    std::fflush(stderr);
  }

 private:
  std::string what_;
  bool enabled_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace millpower::cli
