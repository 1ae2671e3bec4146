#include "device/probe/fit.h"

#include <algorithm>
#include <cmath>

namespace millpower::device::probe {
namespace {

constexpr double kFirstStep = 0.5;  // of the logarithm
constexpr double kLastStep = 0.002;
constexpr int kSweeps = 12;  // with one step, at most

}  // namespace

double Fit(const std::vector<Knob>& knobs, const std::function<double()>& cost) {
  for (const Knob& knob : knobs) *knob.value = std::clamp(*knob.value, knob.least, knob.most);
  double least = cost();
  for (double step = kFirstStep; step > kLastStep; step /= 2) {
    bool moved = true;
    for (int sweep = 0; moved && sweep < kSweeps; ++sweep) {
      moved = false;
      for (const Knob& knob : knobs)
        for (const double by : {std::exp(step), std::exp(-step)}) {
          const double before = *knob.value;
          *knob.value = std::clamp(before * by, knob.least, knob.most);
          const double now = cost();
          if (now < least) {
            least = now;
            moved = true;
            break;
          }
          *knob.value = before;
        }
    }
  }
  return least;
}

}  // namespace millpower::device::probe
