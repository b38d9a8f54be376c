"""What evlift raises when the person at the keyboard can put it right.

Each message is one line, ``what is wrong; what to do``: the command line prints it after ``evlift:`` and exits with 2.
"""


class EvliftError(Exception):
    """Root of the family. A message names the file or value at fault and the next step."""


class InputError(EvliftError, ValueError):
    """A recording, picture, video, label or array that cannot be used as it is."""


class ConfigError(EvliftError, ValueError):
    """A setting that is unknown, out of range, or at odds with another."""


class RunError(EvliftError, RuntimeError):
    """A run folder, checkpoint or saved encoder that cannot be continued, read or written."""
