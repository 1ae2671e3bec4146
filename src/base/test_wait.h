// For tests: waiting for what another thread does, instead of for time to pass.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace millpower {

// Whether `is_so` came true, asked again and again. Only a test that fails waits for the limit: it
// is far beyond what threads take on a machine that has much else to do.
inline bool Eventually(const std::function<bool()>& is_so) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace millpower
