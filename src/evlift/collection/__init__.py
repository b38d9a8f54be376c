"""What training learns from: pairs of an image and the events before it, built, opened and served."""

from .build import build_from_images, build_from_video
from .pairs import PairDataset, SimulatedPairs, open_source
from .pictures import Picture, image_files
from .store import Collection, is_collection, open_collection

__all__ = [
    "Collection",
    "PairDataset",
    "Picture",
    "SimulatedPairs",
    "build_from_images",
    "build_from_video",
    "image_files",
    "is_collection",
    "open_collection",
    "open_source",
]
