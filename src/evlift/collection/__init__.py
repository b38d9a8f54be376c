"""What training learns from: pairs of an image and the events before it, built, opened and served."""

from .build import build_from_images, build_from_video
from .clips import Clips, Film, choose_clips, open_film
from .pairs import PairDataset, open_source
from .pictures import Picture, image_files
from .recordings import record_images, record_video
from .simulated import SimulatedPairs
from .store import Collection, is_collection, open_collection

__all__ = [
    "Clips",
    "Collection",
    "Film",
    "PairDataset",
    "Picture",
    "SimulatedPairs",
    "build_from_images",
    "build_from_video",
    "choose_clips",
    "image_files",
    "is_collection",
    "open_collection",
    "open_film",
    "open_source",
    "record_images",
    "record_video",
]
