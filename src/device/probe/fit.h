// Constants with which a model says most nearly what was measured. Internal.
#pragma once

#include <functional>
#include <vector>

namespace millpower::device::probe {

// A positive constant, sought between bounds, by factors.
struct Knob {
  double* value = nullptr;
  double least = 0, most = 0;
};

// Moves the knobs to where `cost` is least, one after the other by steps that halve: a fixed
// procedure, so that equal measurements give equal constants. Returns the least cost.
double Fit(const std::vector<Knob>& knobs, const std::function<double()>& cost);

}  // namespace millpower::device::probe
