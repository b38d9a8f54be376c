"""The sensor: events in memory, packed recordings on disk.

events = Events(x, y, t, p, height=480, width=640)
recording = write_recording("drive", events)
window = recording.window(1_000_000, 1_050_000)      # half-open, µs; nothing decoded or copied
"""

from evlift.events.frames import Frame, FrameTable
from evlift.events.recording import Recording, Window, open_recording
from evlift.events.stream import Events
from evlift.events.writing import write_recording

__all__ = ["Events", "Frame", "FrameTable", "Recording", "Window", "open_recording", "write_recording"]
