"""evlift: lift event-camera streams into the feature space of image foundation models.

    import evlift
    encoder = evlift.load_encoder("runs/demo/structure/encoder")
    tokens = encoder.encode(events)                      # evlift.Events -> float32 [h, w, D]

The names below load their room on first use, so that ``import evlift`` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Events",
    "SimulatedPairs",
    "collection",
    "convert",
    "downstream",
    "encoder",
    "errors",
    "events",
    "load_encoder",
    "load_teacher",
    "objective",
    "open_collection",
    "open_recording",
    "pretrain",
    "represent",
    "simulate",
    "teachers",
    "train",
    "view",
    "write_recording",
]

_ROOM_OF = {
    "Events": "events",
    "SimulatedPairs": "collection",
    "convert": "events",
    "load_encoder": "encoder",
    "load_teacher": "teachers",
    "open_collection": "collection",
    "open_recording": "events",
    "pretrain": "train",
    "write_recording": "events",
}

if TYPE_CHECKING:
    from . import collection, downstream, encoder, errors, events, objective, represent, simulate, teachers, train, view
    from .collection import SimulatedPairs, open_collection
    from .encoder import load_encoder
    from .events import Events, convert, open_recording, write_recording
    from .teachers import load_teacher
    from .train import pretrain


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'evlift' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
