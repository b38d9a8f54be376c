"""Tests run side by side on few cores: one thread each, here and in the processes that tests start."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: two pools that spin on two cores are ten times slower
os.environ.setdefault("HF_HUB_OFFLINE", "1")
