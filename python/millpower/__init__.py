"""Runs models of PyTorch and TensorFlow on Millpower.

    torch.compile(model, backend="millpower")      # millpower.torch
    millpower.tf.function_wrapper(function)        # millpower.tf
    millpower.Model("model.onnx")(x=array)         # any file that `millpower infer` takes

The work is done by the program `millpower`: that of MILLPOWER_BINARY, or else the one on PATH.
"""

from millpower.worker import LoadError, Model, UnsupportedModel

__all__ = ["LoadError", "Model", "UnsupportedModel"]
