"""numba with evlift's settings: compiled for given types, cached on disk, and free of Python's lock.

numba takes a cached loop for fresh as long as the time stamp of its own file stays. That runs old code, with old sizes
of buffers, when a constant or a function of another file changed, when the file changed while it was being compiled,
and when two processes fill the cache at once after an update. So the name in the cache carries a digest of all that the
machine code was made from, the processor included: what changed has another name. (What a loop takes from a module of
ours by attribute, ``module.NUMBER``, escapes it: import the name.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import numpy as np
from numba import config, njit
from numba import types as nb
from numba.core.registry import cpu_target


def compiled(signature: Any = None, **more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """njit for one signature, cached on disk where a cache can be written, else compiled anew by each process.

    Without a signature for the types of each first call. more: other options of njit.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", **more}
        settings = [getattr(config, name) for name in ("OPT", "BOUNDSCHECK")]
        machine = cpu_target.target_context.codegen().magic_tuple()
        parts = [str(signature), str(options), str(settings), str(machine), *_parts(function, set())]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        function.__qualname__ += f"_{digest[:16]}"
        try:
            return njit(signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # numba found no folder to keep its cache in, or the disk is full
            return njit(signature, **options)(function)

    return wrap


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """All of a value that machine code may depend on, the same in every process."""
    value = getattr(value, "py_func", getattr(value, "_defn", value))  # of a compiled function, of an intrinsic
    if isinstance(value, CodeType):
        yield value.co_code.hex()
        yield repr((value.co_names, value.co_varnames))
        for constant in value.co_consts:
            yield from _parts(constant, seen)
    elif hasattr(value, "__code__"):
        if id(value) not in seen:
            seen.add(id(value))
            yield value.__qualname__  # with the digest of a loop compiled before, which knows its options
            yield from _parts(value.__code__, seen)
            for name in _names(value.__code__):
                yield name
                yield from _parts(value.__globals__.get(name), seen)
            for cell in value.__closure__ or ():
                yield from _parts(cell.cell_contents, seen)
    elif isinstance(value, tuple):
        yield f"tuple {len(value)}"
        for item in value:
            yield from _parts(item, seen)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    elif isinstance(value, frozenset):
        yield repr(sorted(map(repr, value)))
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | nb.Type):
        yield f"{type(value).__name__} {value!r}"
    else:  # a module, a type: what it holds belongs to numba or NumPy, whose versions numba looks at
        yield str(getattr(value, "__name__", type(value).__name__))


def _names(code: CodeType) -> Iterator[str]:
    """The names that code looks up outside itself, those of the functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
