"""`torch.compile(model, backend="millpower")`.

What torch.compile hands over is exported (torch.export) and run by Millpower, on the CPU, in a process
of its own. Weights are taken as they are at that moment: compile models for inference, in eval mode and
under torch.no_grad(). What can't be run falls back to PyTorch, with a warning that names the operators.
"""

import pathlib
import tempfile
import warnings

import numpy as np
import torch

from millpower.worker import LoadError, Model, UnsupportedModel


class FallbackWarning(UserWarning):
    """A part of a model runs on PyTorch instead of Millpower."""


class _Frozen(torch.nn.Module):
    """The graph with its parameters as constants: only what changes from call to call is an input."""

    def __init__(self, graph, values, is_input):
        super().__init__()
        self.graph = graph
        self.is_input = is_input
        for i, (value, given) in enumerate(zip(values, is_input)):
            if not given:
                self.register_buffer(f"constant_{i}", value.detach().clone())

    def forward(self, *inputs):
        given = iter(inputs)
        return self.graph(*[next(given) if is_input else getattr(self, f"constant_{i}")
                            for i, is_input in enumerate(self.is_input)])


def _fall_back(graph, why):
    warnings.warn(f"Millpower leaves a part of the model to PyTorch: {why}", FallbackWarning, stacklevel=2)
    return graph.forward


def _to_numpy(tensor):
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    return tensor.numpy()


def _to_torch(array, dtype):
    tensor = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    return tensor.view(torch.bfloat16) if dtype == "bf16" else tensor


def backend(graph, example_inputs):
    """The backend that torch.compile calls: a callable that does what `graph` does."""
    if any(not isinstance(value, torch.Tensor) for value in example_inputs):
        return _fall_back(graph, "its shapes are symbolic; use torch.compile(..., dynamic=False)")
    if any(value.device.type != "cpu" for value in example_inputs):
        return _fall_back(graph, "its tensors are not on the CPU")
    if torch.is_grad_enabled() and any(value.requires_grad and not isinstance(value, torch.nn.Parameter)
                                       for value in example_inputs):
        return _fall_back(graph, "gradients are asked for; use torch.no_grad()")
    is_input = [not isinstance(value, torch.nn.Parameter) for value in example_inputs]
    inputs = tuple(value.detach().clone() for value, given in zip(example_inputs, is_input) if given)
    if not inputs:
        return _fall_back(graph, "it has no inputs")
    frozen = _Frozen(graph, example_inputs, is_input).eval()
    try:
        with tempfile.TemporaryDirectory(prefix="millpower-") as folder, torch.no_grad():
            path = pathlib.Path(folder) / "model.pt2"
            try:
                torch.export.save(torch.export.export(frozen, inputs), str(path))
            except Exception as error:  # it raises whatever it likes
                return _fall_back(graph, f"torch.export: {type(error).__name__}: {error}")
            model = Model(path)
    except UnsupportedModel as error:
        return _fall_back(graph, str(error))
    except LoadError as error:  # an importer may take what it has not seen for a damaged file
        return _fall_back(graph, f"it could not be loaded: {error}")
    names = [port["name"] for port in model.inputs]
    types = [port["dtype"] for port in model.outputs]

    def run(*values):
        given = [value for value, use in zip(values, is_input) if use]
        arrays = model.run({name: _to_numpy(value) for name, value in zip(names, given)})
        return tuple(_to_torch(array, dtype) for array, dtype in zip(arrays.values(), types))

    return run
