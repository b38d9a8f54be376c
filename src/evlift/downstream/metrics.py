"""Segmentation measures from one confusion matrix, so that every number of a report has one definition.

A confusion matrix is int64 [..., K, K], rows the ground truth, columns the prediction. Matrices add: sum them over
batches, pictures or processes, then measure once. Leading dimensions are kept, so a stack of matrices, one a picture,
gives one score a picture.

All measures are fractions of 1. A class that a measure says nothing about is NaN in the per-class arrays and left out
of the mean: `mean_iou` averages over the classes that occur in the ground truth **or** in the prediction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

IGNORE = 255
"""The label value that no loss and no measure looks at."""


def confusion_matrix(
    prediction: ArrayLike, truth: ArrayLike, classes: int, *, ignore: int = IGNORE
) -> NDArray[np.int64]:
    """Count the pixels of each (true class, predicted class).

    Args:
        prediction: integers 0…`classes`−1, any shape.
        truth: the same shape; 0…`classes`−1, or `ignore`.
        classes: K.
        ignore: the value in `truth` whose pixels are not counted, whatever is predicted there.
    Returns:
        int64 [K, K], rows the truth, columns the prediction.
    Raises:
        InputError: the shapes differ, or a counted value is not a class.
    """
    predicted, true = np.asarray(prediction), np.asarray(truth)
    if predicted.shape != true.shape:
        raise InputError(f"prediction is {predicted.shape} and truth {true.shape}; give both one size")
    counted = true != ignore
    # int64 before the arithmetic below: uint8 · K would wrap.
    predicted, true = predicted[counted].astype(np.int64), true[counted].astype(np.int64)
    for name, values in (("truth", true), ("prediction", predicted)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            worst = values.max() if values.max() >= classes else values.min()
            raise InputError(f"{name} holds label {worst} of {classes} classes; map it to {ignore}, or add a class")
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """part / whole in float64, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union, [..., K]; NaN for a class in neither the truth nor the prediction."""
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(hit, confusion.sum(-1) + confusion.sum(-2) - hit)


def class_accuracy(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of a class's true pixels that are predicted as it (its recall), [..., K]; NaN where it has none."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1))


def mean_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of `class_iou` over the classes that occur in the truth or the prediction, [...]; NaN if no pixel counts."""
    iou = class_iou(confusion)
    occurs = ~np.isnan(iou)
    return _ratio(np.where(occurs, iou, 0.0).sum(-1), occurs.sum(-1))


def pixel_accuracy(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the counted pixels that are right, [...]; NaN if no pixel counts."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))
