"""A function of the user's own, named on the command line as `python:module.function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ConfigError


def load_function(name: str, what: str) -> Callable[..., Any]:
    """The function that `name`, `python:module.function`, means; modules in the working directory are found.

    Args:
        what: it is to be, such as "teacher": the first word of an error.
    Raises:
        ConfigError: the name is of another form, the module cannot be imported, or it has no such function.
    """
    module_name, _, function_name = name.removeprefix("python:").rpartition(".")
    if not name.startswith("python:") or not module_name or not function_name:
        raise ConfigError(f"{what} {name!r} names no function; write python:module.function")
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not search the working directory, `python -m` does
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module may do while it is imported
        raise ConfigError(
            f"{what} {name!r}: module {module_name!r} cannot be imported ({told(error)}); run where it can be found"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"{what} {name!r}: module {module_name!r} has no function {function_name!r}; check the name")
    return function


def told(error: BaseException) -> str:
    """An error of the user's code in one line, for a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
