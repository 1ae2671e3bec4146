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
  // `format` writes the total: bytes, unless something else is counted.
  ProgressLine(std::string what, bool enabled, std::string (*format)(int64_t) = FormatSize)
      : what_(std::move(what)),
        enabled_(enabled && ::isatty(STDERR_FILENO) == 1),
        format_(format) {}
  ~ProgressLine() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void operator()(int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (!enabled_ || total == 0 || now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    shown_ = true;
    std::fprintf(stderr, "\r\033[K%s %3d%% of %s", what_.c_str(),
                 static_cast<int>(100 * done / total), format_(total).c_str());
    std::fflush(stderr);
  }

 private:
  std::string what_;
  bool enabled_;
  std::string (*format_)(int64_t);
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace millpower::cli
