// A model that is cut into stages, run as one Program: what a launch brings goes through the
// stages' Programs one after the other, each on a device of its own.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "isa/program.h"

namespace millpower::device {

// `whole`: the model uncut, of which only the interface is used. Launches have its registers and
// inputs, `Output` its buffers. A stage finds its registers, and its inputs of integers, in it by
// name; its one input of f32, which all but the first have, is the one output of the stage before.
// All outputs of `whole` are the last stage's.
//
// One launch at a time, as of every LoadedProgram: stages that wait meanwhile are busy with the
// launches of other pipelines of the same devices. What a stage fails with, the launch fails with.
// A launch takes the time and energy of all stages.
//
// Errors: kInvalidArgument (stages that do not fit each other or the whole, naming what is
// missing).
Result<std::unique_ptr<LoadedProgram>> MakePipeline(
    std::shared_ptr<const isa::Program> whole, std::vector<std::unique_ptr<LoadedProgram>> stages);

}  // namespace millpower::device
