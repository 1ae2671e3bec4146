// Small models for the tests of the inference APIs, besides ranking/fake_device.h's.
#pragma once

#include <string>

#include "ranking/fake_device.h"

namespace millpower::serve {

// "x" f32 [batch, 2] and "country" strings [batch] ("de": 1, "fr": 2, others 0);
// "scores" f32 [batch, 2]: x + the country.
ranking::Loading FakeClassifier(const std::string& name);
// "x" f32 [batch, 1]; "outputs" f32 [batch, 1]: x / 2 + 3.
ranking::Loading FakeRegressor(const std::string& name);
// Runs the three of them.
Result<void> RunFakeModels(const ranking::FakeLaunch& launch);

}  // namespace millpower::serve
