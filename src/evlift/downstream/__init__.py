"""What an encoder is worth downstream: a linear probe for semantic segmentation on its frozen tokens."""

from .labels import LABEL_SETS, LabelSet
from .metrics import class_accuracy, class_iou, confusion_matrix, mean_iou, pixel_accuracy
from .probe import probe_segmentation
from .segmentation import ProbeResult, linear_probe

__all__ = [
    "LABEL_SETS",
    "LabelSet",
    "ProbeResult",
    "class_accuracy",
    "class_iou",
    "confusion_matrix",
    "linear_probe",
    "mean_iou",
    "pixel_accuracy",
    "probe_segmentation",
]
