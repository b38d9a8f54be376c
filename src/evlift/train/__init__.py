"""Training: the loop on Lightning Fabric, its optimiser, its checkpoints and its log."""

from .loop import pretrain

__all__ = ["pretrain"]
