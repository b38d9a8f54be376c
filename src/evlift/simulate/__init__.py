"""Pictures and videos to events: motion, the sensor, and pairs made on the fly.

events = events_from_video(frames, times_us, sensor="davis240", seed=0)
pair = pair_from_image(image, depth=depth, sensor="davis346", seed=0)     # image, labels, events, flow, mask
"""

from .interpolate import FlowInterpolator, Interpolator
from .motion import PATHS, Motion, SampledMotion, draw_motion, draw_path, matrices, shake_poses
from .pixels import PixelArray
from .read import CutFinder, find_shots, iter_video, packaged_video, read_video
from .sensor import SENSORS, Sensor, get_sensor
from .stills import Pair, pair_from_image
from .video import VideoSimulator, events_from_video, shake

__all__ = [
    "PATHS",
    "SENSORS",
    "CutFinder",
    "FlowInterpolator",
    "Interpolator",
    "Motion",
    "Pair",
    "PixelArray",
    "SampledMotion",
    "Sensor",
    "VideoSimulator",
    "draw_motion",
    "draw_path",
    "events_from_video",
    "find_shots",
    "get_sensor",
    "iter_video",
    "matrices",
    "packaged_video",
    "pair_from_image",
    "read_video",
    "shake",
    "shake_poses",
]
