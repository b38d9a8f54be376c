"""What training asks of the event tokens: the activation mask, the losses by name, and the measures of collapse."""

from .losses import PRESETS, get_objective, scaleevent, scaleevent_released, token
from .mask import activation_mask, resample
from .measures import effective_rank, relation_fidelity

__all__ = [
    "PRESETS",
    "activation_mask",
    "effective_rank",
    "get_objective",
    "relation_fidelity",
    "resample",
    "scaleevent",
    "scaleevent_released",
    "token",
]
