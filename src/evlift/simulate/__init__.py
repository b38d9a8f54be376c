"""Pictures and videos to events: motion, the sensor, and pairs made on the fly."""

from .motion import Motion, draw_motion, matrices, shake_poses
from .read import find_shots, iter_video, packaged_video, read_video
from .sensor import SENSORS, PixelArray, Sensor, get_sensor
from .stills import Pair, pair_from_image
from .video import VideoSimulator, events_from_video, shake

__all__ = [
    "SENSORS",
    "Motion",
    "Pair",
    "PixelArray",
    "Sensor",
    "VideoSimulator",
    "draw_motion",
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
