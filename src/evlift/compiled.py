"""numba with evlift's settings: compiled for given types, cached on disk, and free of Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """njit for one signature, cached on disk where a cache can be written, else compiled anew by each process."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to keep its cache in
            return njit(signature, **options)(function)

    return wrap
