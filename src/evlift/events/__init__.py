"""The sensor: events in memory, recordings in any format, packed recordings on disk.

events = open_recording("drive.raw").events()        # any format of evlift.events.readers
recording, = convert("drive.raw", "drive")           # packed: any window by two look-ups
window = recording.window(1_000_000, 1_050_000)      # half-open, µs; nothing decoded or copied
"""

from evlift.events.convert import convert
from evlift.events.frames import Frame, FrameTable
from evlift.events.recording import Recording, Window, open_recording
from evlift.events.source import FileRecording
from evlift.events.stream import Events
from evlift.events.writing import write_recording

__all__ = [
    "Events",
    "FileRecording",
    "Frame",
    "FrameTable",
    "Recording",
    "Window",
    "convert",
    "open_recording",
    "write_recording",
]
