"""Segmentation measures against plain loops over pixels, and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from evlift.downstream.metrics import class_accuracy, class_iou, confusion_matrix, mean_iou, pixel_accuracy
from evlift.errors import InputError


def by_pixel_loops(prediction, truth, classes):
    """IoU and recall a class, their mean and the accuracy, by looking at one pixel after another."""
    pairs = [(int(p), int(t)) for p, t in zip(prediction.ravel(), truth.ravel(), strict=True) if t != 255]
    iou, recall = [], []
    for k in range(classes):
        both = sum(p == k and t == k for p, t in pairs)
        either = sum(p == k or t == k for p, t in pairs)
        true = sum(t == k for _, t in pairs)
        iou.append(both / either if either else math.nan)
        recall.append(both / true if true else math.nan)
    present = [v for v in iou if not math.isnan(v)]
    mean = sum(present) / len(present) if present else math.nan
    accuracy = sum(p == t for p, t in pairs) / len(pairs) if pairs else math.nan
    return iou, recall, mean, accuracy


@st.composite
def labelled(draw):
    classes = draw(st.integers(1, 6))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    dtype = draw(st.sampled_from([np.uint8, np.int64]))
    prediction = draw(hnp.arrays(dtype, shape, elements=st.integers(0, classes - 1)))
    truth = draw(hnp.arrays(dtype, shape, elements=st.sampled_from([*range(classes), 255])))
    return prediction, truth, classes


@given(labelled())
@settings(deadline=None, max_examples=150)
def test_every_measure_equals_a_loop_over_pixels(case):
    prediction, truth, classes = case
    confusion = confusion_matrix(prediction, truth, classes)
    assert confusion.dtype == np.int64 and confusion.shape == (classes, classes)
    iou, recall, mean, accuracy = by_pixel_loops(prediction, truth, classes)
    np.testing.assert_allclose(class_iou(confusion), iou, rtol=1e-12)
    np.testing.assert_allclose(class_accuracy(confusion), recall, rtol=1e-12)
    np.testing.assert_allclose(mean_iou(confusion), mean, rtol=1e-12)
    np.testing.assert_allclose(pixel_accuracy(confusion), accuracy, rtol=1e-12)


def test_agrees_with_torchmetrics_when_a_class_never_occurs():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 4, (2, 3, 20, 30))  # of 6 classes, 4 and 5 never occur
    truth[rng.random(truth.shape) < 0.2] = 255
    confusion = confusion_matrix(prediction, truth, 6)
    p, t = torch.from_numpy(prediction), torch.from_numpy(truth)
    assert float(mean_iou(confusion)) == pytest.approx(
        float(multiclass_jaccard_index(p, t, 6, ignore_index=255)), abs=1e-6
    )
    micro = multiclass_accuracy(p, t, 6, average="micro", ignore_index=255)
    assert float(pixel_accuracy(confusion)) == pytest.approx(float(micro), abs=1e-6)
    assert np.isnan(class_iou(confusion)[4:]).all() and not np.isnan(class_iou(confusion)[:4]).any()


def test_a_class_that_is_only_predicted_counts_as_zero():
    confusion = confusion_matrix([0, 0, 1, 2], [0, 0, 1, 1], 4)
    assert class_iou(confusion)[:3].tolist() == [1.0, 0.5, 0.0]
    assert float(mean_iou(confusion)) == pytest.approx(0.5)  # over 0, 1 and 2; class 3 occurs nowhere
    assert class_accuracy(confusion)[1] == 0.5 and np.isnan(class_accuracy(confusion)[2])


def test_rows_are_the_truth_and_matrices_add():
    assert confusion_matrix([1], [0], 2).tolist() == [[0, 1], [0, 0]]
    rng = np.random.default_rng(1)
    prediction, truth = rng.integers(0, 3, (2, 7, 50))
    parts = np.stack([confusion_matrix(p, t, 3) for p, t in zip(prediction, truth, strict=True)])
    np.testing.assert_array_equal(parts.sum(0), confusion_matrix(prediction, truth, 3))
    # A stack of matrices gives one score each.
    np.testing.assert_allclose(mean_iou(parts), [mean_iou(part) for part in parts])
    np.testing.assert_allclose(pixel_accuracy(parts), (prediction == truth).mean(1))


def test_many_classes_do_not_wrap_around_in_eight_bits():
    labels = np.arange(200, dtype=np.uint8)
    np.testing.assert_array_equal(confusion_matrix(labels, labels, 200), np.eye(200, dtype=np.int64))


def test_ignored_pixels_may_hold_any_prediction():
    assert confusion_matrix([99, 1], [255, 1], 2).tolist() == [[0, 0], [0, 1]]
    assert np.isnan(mean_iou(confusion_matrix([0], [255], 2)))


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([0, 1], [0], "give both one size"),
        ([2], [0], "prediction holds label 2"),
        ([0], [11], "truth holds label 11"),
    ],
)
def test_wrong_labels_are_refused(prediction, truth, message):
    with pytest.raises(InputError, match=message):
        confusion_matrix(prediction, truth, 2)
