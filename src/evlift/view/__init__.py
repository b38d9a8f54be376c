"""Pictures of events and tokens, and the one-file HTML report that a person reads after a run."""

from .animation import save_animation
from .flow import flow_key, flow_picture
from .panel import PairPanel, pair_grid, pair_strip, panel_basis
from .pictures import event_picture, save_picture
from .report import write_report
from .tokens import PCABasis, query_points, similarity_map, similarity_picture

__all__ = [
    "PCABasis",
    "PairPanel",
    "event_picture",
    "flow_key",
    "flow_picture",
    "pair_grid",
    "pair_strip",
    "panel_basis",
    "query_points",
    "save_animation",
    "save_picture",
    "similarity_map",
    "similarity_picture",
    "write_report",
]
