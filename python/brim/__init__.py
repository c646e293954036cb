"""brim: ONNX models inside a byte budget.

    import brim
    model = brim.Model("yolox.onnx")
    (boxes,) = model.run(picture)            # NumPy in, NumPy out

Names are those of the C API (brim.h). Arrays go in from any strides and are copied once, into the layout that the kernels want;
results are arrays of their own. `Model.plan` gives the way without copies: views into the plan's memory.

Everything may be called from any thread; runs of one model wait for each other, and models that share a budget with a limit of
threads queue for them. The interpreter's lock is released while a model runs.
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

# How long OpenMP's threads spin after their work is read once, when libgomp is loaded: 1,000 pauses bridge the gaps inside a run
# and leave an idle process idle. The program's own choice wins, and its environment stays as it was.
_set = not any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
if _set:
    os.environ["GOMP_SPINCOUNT"] = "1000"
try:
    from . import _brim
    from ._brim import Budget
finally:
    if _set:
        del os.environ["GOMP_SPINCOUNT"]

__all__ = ["Budget", "Error", "IO", "Model", "Plan", "version"]

_NAMES = {-1: "out of budget", -2: "input/output error", -3: "wrong usage", -4: "malformed input", -5: "unsupported",
          -6: "limit exceeded", -7: "shapes do not fit", -8: "error"}
_PRECISIONS = {"f32": 1, "bf16": 2, "auto": 3}


class Error(RuntimeError):
    """What brim refused, and why. `code` is the number of brim.h (-1: out of budget), `name` its short name."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.name = _NAMES.get(code, "error")


_brim.set_error_class(Error)


class IO(NamedTuple):
    """An input or output: shape holds numbers, and names where a size is chosen at run time; None: the file does not say."""

    name: str
    dtype: str | None
    shape: tuple[int | str, ...] | None


_shared: Budget | None = None


def _default_budget() -> Budget:
    global _shared
    if _shared is None:
        _shared = Budget()
    return _shared


def version() -> str:
    """Of the library: "0.1.0"."""
    return str(_brim.version)


class Plan:
    """A model for fixed input shapes. Made by Model.plan."""

    def __init__(self, model: Model, plan: Any) -> None:
        self._model = model
        self._plan = plan

    def input(self, i: int = 0) -> npt.NDArray[Any]:
        """A view to write input i to, without copying. Fill it before each run: running overwrites it."""
        return np.asarray(self._plan.view(True, i))

    def output(self, i: int = 0) -> npt.NDArray[Any]:
        """A view of output i, valid until the next run of this plan; bfloat16 shows as uint16."""
        return np.asarray(self._plan.view(False, i))

    def run(self, *inputs: npt.ArrayLike | None, out: Sequence[npt.NDArray[Any] | None] = ()) -> list[npt.NDArray[Any]]:
        """Runs with these inputs (none at all, or None: written through its view), and returns views of the outputs.

        `out`: C-contiguous arrays to copy the outputs to instead, or None for a view.
        """
        shapes = self._plan.run([None if x is None else np.asarray(x) for x in inputs], list(out))
        if not out:
            return [self.output(i) for i in range(len(self._model.outputs))]
        return [self.output(i) if o is None else _cut(o, shapes[i]) for i, o in enumerate(out)]

    @property
    def memory(self) -> dict[str, int]:
        """Bytes: weights (of all plans of the model), activations and their lower bound, scratch, code; flops and kernels of a run."""
        return dict(self._plan.memory())

    def explain(self, *, as_dict: bool = False) -> Any:
        """The operations in order, with kernels, layouts and bytes: a table to print, or the same as a dictionary."""
        text = self._plan.explain(as_dict)
        return json.loads(text) if as_dict else text


def _cut(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The first numbers of an array that may be larger than what came out."""
    if array.shape == shape:
        return array
    return array.reshape(-1)[: int(np.prod(shape, dtype=np.int64))].reshape(shape)


class Model:
    """An ONNX file, or its bytes."""

    def __init__(self, source: str | os.PathLike[str] | bytes | bytearray | memoryview, *, threads: int = 0,
                 precision: Literal["f32", "bf16", "auto"] = "f32", budget: Budget | None = None, max_idle_plans: int = 0,
                 cache: str | os.PathLike[str] | None = None) -> None:
        """threads: of one run, 0 for all. budget: bytes and threads to share; without one, models share one without a limit.
        cache: folder that keeps what "auto" measured; None: $BRIM_CACHE, else $XDG_CACHE_HOME/brim, else ~/.cache/brim; "": none."""
        if precision not in _PRECISIONS:
            raise ValueError(f"precision {precision!r}: f32, bf16 or auto")
        in_memory = isinstance(source, (bytes, bytearray, memoryview))
        self.budget = budget if budget is not None else _default_budget()
        self._model = _brim.Model(None if in_memory else source, source if in_memory else None, self.budget, threads,
                                  _PRECISIONS[precision], max_idle_plans, None if cache is None else os.fspath(cache))
        self.inputs = [IO(name, dtype or None, shape) for name, dtype, shape in self._model.ios(True)]
        self.outputs = [IO(name, dtype or None, shape) for name, dtype, shape in self._model.ios(False)]
        self._last: tuple[tuple[tuple[int, ...], ...], Any] | None = None

    def plan(self, *shapes: Sequence[int]) -> Plan:
        """For these input shapes; none given: those of the file, a symbolic batch being 1. Plans for equal shapes are shared."""
        return Plan(self, self._model.plan([tuple(s) for s in shapes] if shapes else None))

    def run(self, *inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> list[npt.NDArray[Any]]:
        """The outputs, in the model's order, as arrays of their own. Inputs in the model's order, or one mapping by name."""
        arrays = self._arrays(inputs)
        shapes = tuple(a.shape for a in arrays)
        last = self._last
        if last is None or last[0] != shapes:
            last = self._last = (shapes, self._model.plan(shapes))
        plan = last[1]
        out = [np.empty(shape, dtype) for dtype, shape in plan.outputs()]
        return [_cut(o, shape) for o, shape in zip(out, plan.run(arrays, out))]

    def _arrays(self, inputs: tuple[Any, ...]) -> list[npt.NDArray[Any]]:
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            given = dict(inputs[0])
            missing = [io.name for io in self.inputs if io.name not in given]
            unknown = sorted(set(given) - {io.name for io in self.inputs})
            if missing or unknown:
                raise ValueError(f"inputs missing: {missing}, unknown: {unknown}")
            inputs = tuple(given[io.name] for io in self.inputs)
        if len(inputs) != len(self.inputs):
            raise ValueError(f"{len(inputs)} inputs: the model has {len(self.inputs)}")
        arrays = [np.asarray(x) for x in inputs]
        return [np.ascontiguousarray(a) if any(s <= 0 for s in a.strides) else a for a in arrays]
