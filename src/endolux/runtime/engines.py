"""Engines: what runs a bundle's graph. ONNX Runtime is always there; OpenVINO is an extra."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from endolux.errors import DeviceError, ModelError, UsageError, missing_extra
from endolux.runtime.bundles import read_file
from endolux.runtime.card import LandmarkOutput
from endolux.types import Bundle, FloatArray

Precision: TypeAlias = Literal["exact", "fast"]
Batch: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
DEFAULT_ENGINE = "onnxruntime"
GRAPH = "model.onnx"
_INPUT = "image"
_COMPILED_SHAPES = 4  # OpenVINO keeps this many shapes compiled


@runtime_checkable
class Engine(Protocol):
    """Runs one graph. Instances may be shared by threads.

    Attributes:
        name: name in the registry.
        version: version of the library that computes.
        precision: arithmetic that is really used ("float32", or what the library chose).
        threads: number of threads that compute.
    """

    name: str
    version: str
    precision: str
    threads: int

    def run(self, batch: Batch) -> FloatArray:
        """Depth (or probabilities of classes) for a batch.

        Args:
            batch: N x h x w x 3 uint8 or N x 3 x h x w float32, as the bundle's card says.

        Returns:
            N x 1 x h x w float32; of landmarks N x classes x h x w.

        Raises:
            DeviceError: ``device.memory`` where memory gives out.
            ModelError: ``model.graph`` where the graph does not keep to the contract.
        """


EngineBuilder: TypeAlias = Callable[[Bundle, Precision, int], Engine]
ENGINES: dict[str, EngineBuilder] = {}
"""Engines by name."""


def register_engine(name: str) -> Callable[[EngineBuilder], EngineBuilder]:
    """Enter an engine into the registry under ``name``."""

    def enter(builder: EngineBuilder) -> EngineBuilder:
        ENGINES[name] = builder
        return builder

    return enter


def default_threads() -> int:
    """Number of CPU cores this process may use.

    Example:
        >>> default_threads() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def create_engine(
    bundle: Bundle, *, engine: str = DEFAULT_ENGINE, precision: str = "exact", threads: int | None = None
) -> Engine:
    """An engine for a bundle.

    Args:
        bundle: a loaded bundle with a ``model.onnx``.
        engine: "onnxruntime" or "openvino".
        precision: "exact" computes in float32; "fast" lets the engine choose (bfloat16 on some CPUs with OpenVINO;
            ONNX Runtime has nothing faster than float32 for these graphs, and says so in ``Engine.precision``).
        threads: number of threads; None means every core this process may use.

    Raises:
        UsageError: ``engine.unknown``, ``engine.precision`` or ``engine.threads``.
        MissingExtraError: where the engine is not installed.
        ModelError: ``model.graph`` or ``model.missing`` where the bundle has no usable graph.
    """
    if engine not in ENGINES:
        raise UsageError(
            f"No engine '{engine}'",
            why=f"The engines are: {', '.join(sorted(ENGINES))}.",
            fix=f"Use --engine {DEFAULT_ENGINE}.",
            error_id="engine.unknown",
        )
    chosen: Precision
    if precision == "exact":
        chosen = "exact"
    elif precision == "fast":
        chosen = "fast"
    else:
        raise UsageError(
            f"No precision '{precision}'",
            why="It is 'exact' (float32 throughout) or 'fast' (the engine chooses).",
            fix="Use --precision exact.",
            error_id="engine.precision",
        )
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(
            f"Cannot compute with {threads} threads",
            why="It takes at least one thread, and more than there are cores only slows it down.",
            fix=f"Leave --threads out to use the {default_threads()} cores of this process.",
            error_id="engine.threads",
        )
    return ENGINES[engine](bundle, chosen, threads if threads is not None else default_threads())


class _OnnxRuntime:
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime

        self.version: str = str(onnxruntime.__version__)
        self.precision = "float32"
        self.threads = threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        # Waiting threads that spin take the cores from decoding and encoding, which run at the same time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                read_file(bundle, GRAPH), options, providers=["CPUExecutionProvider"]
            )
        except MemoryError as error:
            raise _out_of_memory(str(error)) from error
        except Exception as error:
            # The library's exceptions have no common base of their own; anything it says means an unusable graph.
            if isinstance(error, (ModelError, OSError)):
                raise
            raise _bad_graph(bundle, _first_line(error)) from error
        inputs = [value.name for value in self._session.get_inputs()]
        outputs = [value.name for value in self._session.get_outputs()]
        _check_ports(bundle, inputs, outputs)
        self._output, self._channels = _port(bundle)

    def run(self, batch: Batch) -> FloatArray:
        try:
            (depth,) = self._session.run([self._output], {_INPUT: batch})
        except MemoryError as error:
            raise _out_of_memory(str(error)) from error
        except Exception as error:
            raise _run_error(error) from error
        return _checked(depth, batch, self._channels)


@register_engine("onnxruntime")
def _onnxruntime(bundle: Bundle, precision: Precision, threads: int) -> Engine:
    del precision  # float32 is both the exact and the fastest arithmetic it has for these graphs
    return _OnnxRuntime(bundle, threads)


class _OpenVino:
    """OpenVINO on the CPU; compiled per shape, because static shapes run faster."""

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: Precision, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise missing_extra("openvino", "openvino") from error
        self.version: str = str(openvino.__version__).split("-")[0]
        self.threads = threads
        self._openvino = openvino
        self._core = openvino.Core()
        self._options: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        if precision == "exact":
            self._options["INFERENCE_PRECISION_HINT"] = "f32"
            self._options["EXECUTION_MODE_HINT"] = "ACCURACY"
        try:
            self._model = self._core.read_model(read_file(bundle, GRAPH), b"")
        except RuntimeError as error:
            raise _bad_graph(bundle, _first_line(error)) from error
        inputs = [name for port in self._model.inputs for name in sorted(port.get_names())]
        outputs = [name for port in self._model.outputs for name in sorted(port.get_names())]
        _check_ports(bundle, inputs, outputs)
        self._output, self._channels = _port(bundle)
        self.precision = "float32"
        self._compiled: collections.OrderedDict[tuple[int, ...], object] = collections.OrderedDict()
        self._lock = threading.Lock()
        if precision == "fast":
            # Only a compiled graph knows which arithmetic the plugin chose, and the record is written before the run.
            spec = bundle.card.preprocessing
            size = tuple(max(1, side // spec.multiple) * spec.multiple for side in (spec.height, spec.width))
            try:
                self._request((1, *size, 3) if spec.layout == "nhwc-uint8" else (1, 3, *size))
            except RuntimeError as error:
                raise _bad_graph(bundle, _first_line(error)) from error

    def _request(self, shape: tuple[int, ...]) -> object:
        request = self._compiled.get(shape)
        if request is None:
            model = self._model.clone()
            model.reshape({_INPUT: list(shape)})
            compiled = self._core.compile_model(model, "CPU", self._options)
            reported = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
            self.precision = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(reported, reported)
            request = compiled.create_infer_request()
            self._compiled[shape] = request
            while len(self._compiled) > _COMPILED_SHAPES:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(shape)
        return request

    def run(self, batch: Batch) -> FloatArray:
        with self._lock:
            try:
                request = self._request(batch.shape)
                results = request.infer({_INPUT: batch}, share_inputs=True, share_outputs=False)  # type: ignore[attr-defined]
                depth = results[self._output]
            except MemoryError as error:
                raise _out_of_memory(str(error)) from error
            except RuntimeError as error:
                raise _run_error(error) from error
        return _checked(depth, batch, self._channels)


@register_engine("openvino")
def _openvino(bundle: Bundle, precision: Precision, threads: int) -> Engine:
    return _OpenVino(bundle, precision, threads)


def _port(bundle: Bundle) -> tuple[str, int]:
    """Name and channels of the graph's output."""
    output = bundle.card.output
    return ("probabilities", len(output.classes)) if isinstance(output, LandmarkOutput) else ("depth", 1)


def _check_ports(bundle: Bundle, inputs: list[str], outputs: list[str]) -> None:
    wanted = _port(bundle)[0]
    if inputs != [_INPUT] or wanted not in outputs:
        raise _bad_graph(bundle, f"It takes {inputs} and gives {outputs}, instead of '{_INPUT}' and '{wanted}'.")


def _checked(depth: object, batch: Batch, channels: int) -> FloatArray:
    height, width = batch.shape[1:3] if batch.dtype == np.uint8 else batch.shape[2:4]
    expected = (batch.shape[0], channels, height, width)
    if not isinstance(depth, np.ndarray) or depth.shape != expected or depth.dtype != np.float32:
        found = f"{depth.shape} {depth.dtype}" if isinstance(depth, np.ndarray) else type(depth).__name__
        raise ModelError(
            f"The network gave {found} for a batch of {batch.shape}",
            why=f"The card promises {expected} float32: one value, or one a class, for each pixel of the input.",
            fix="Export the model again with 'endolux export'.",
            error_id="model.graph",
        )
    return depth


def _bad_graph(bundle: Bundle, reason: str) -> ModelError:
    return ModelError(
        f"The graph '{bundle.file(GRAPH)}' cannot be used",
        why=reason,
        fix="Export the model again with 'endolux export', or upgrade the engine.",
        error_id="model.graph",
    )


def _run_error(error: Exception) -> ModelError | DeviceError:
    text = str(error)
    lowered = text.lower()
    if any(sign in lowered for sign in ("bad_alloc", "allocate", "out of memory", "bad allocation")):
        return _out_of_memory(_first_line(error))
    return ModelError(
        "The network could not be run",
        why=f"The engine said: {_first_line(error)}",
        fix="Export the model again with 'endolux export --verify', or try another --engine.",
        error_id="model.graph",
    )


def _out_of_memory(reason: str) -> DeviceError:
    return DeviceError(
        "Memory gave out while the network ran",
        why=f"The engine said: {reason or 'out of memory'}.",
        fix="Close other programs, or use a smaller model or batch.",
        error_id="device.memory",
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines and lines[0].startswith("Exception from") else lines[0] if lines else type(error).__name__
