"""`millpower.tf.function_wrapper(function, input_signature)`: a TensorFlow function that Millpower runs."""

import tempfile
import warnings

import tensorflow as tf

from millpower.worker import LoadError, Model, UnsupportedModel


class FallbackWarning(UserWarning):
    """A function runs on TensorFlow instead of Millpower."""


def function_wrapper(function, input_signature=None):
    """A callable that does what `function` does, on Millpower.

    `function`: a tf.function, a Keras model, or a Python function of tensors. `input_signature`: a
    list of tf.TensorSpec, where the function has none of its own. Variables are taken as they are
    now. What can't be run falls back to TensorFlow, with a warning that names the operators.
    """
    traced = function if hasattr(function, "get_concrete_function") else tf.function(function)
    concrete = traced.get_concrete_function(*(input_signature or []))
    module = tf.Module()
    module.function = traced
    module.captured = [variable for variable in concrete.graph.variables]
    names = [spec.name for spec in tf.nest.flatten(concrete.structured_input_signature)
             if isinstance(spec, tf.TensorSpec)]
    try:
        with tempfile.TemporaryDirectory(prefix="millpower-") as folder:
            tf.saved_model.save(module, folder, signatures=concrete)
            model = Model(folder)
    except UnsupportedModel as error:
        warnings.warn(f"Millpower leaves a function to TensorFlow: {error}", FallbackWarning, stacklevel=2)
        return function
    except LoadError as error:  # an importer may take what it has not seen for a damaged file
        warnings.warn(f"Millpower leaves a function to TensorFlow: it could not be loaded: {error}", FallbackWarning,
                      stacklevel=2)
        return function

    outputs = sorted(concrete.structured_outputs) if isinstance(concrete.structured_outputs, dict) else None
    expected = [port["name"] for port in model.inputs]

    def run(*arguments, **keywords):
        values = dict(zip(names, arguments)) | keywords
        arrays = model.run({name: tf.convert_to_tensor(values[name]).numpy() for name in expected})
        tensors = {name: tf.convert_to_tensor(array) for name, array in arrays.items()}
        if outputs is not None:
            return {name: tensors[name] for name in outputs}
        flat = [tensors[name] for name in sorted(tensors, key=lambda n: (len(n), n))]
        return tf.nest.pack_sequence_as(concrete.structured_outputs, flat)

    return run
