"""The linear probe against what is known of it: separable tokens, noise, an exact solution, F.interpolate."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.downstream.metrics import class_iou, confusion_matrix, mean_iou
from evlift.downstream.segmentation import evaluate, extract, fit, linear_probe, predict, upsampling
from evlift.errors import ConfigError, InputError, RunError


class Pictures:
    """Labelled items whose tokens [2, 3, 8] are a random code of the class under them plus noise; or of any class.

    A class fills a picture, so that upsampling blurs nothing and a perfect score is possible; or (`blocks`) a token.
    """

    def __init__(self, count=12, classes=3, noise=0.1, seed=0, void=0.1, informative=True, blocks=False):
        rng = np.random.default_rng(seed)
        code = np.random.default_rng(99).normal(size=(classes, 8))
        true = rng.integers(0, classes, (count, 2, 3) if blocks else (count, 1, 1))
        shown = true if informative else rng.integers(0, classes, true.shape)
        self.tokens = (code[shown] + noise * rng.normal(size=(count, 2, 3, 8))).astype(np.float32)
        self.labels = np.broadcast_to(true, (count, 2, 3)).repeat(4, 1).repeat(4, 2)
        self.labels[rng.random(self.labels.shape) < void] = 255
        self.asked = []

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        self.asked.append(index)
        i = index[1] if isinstance(index, tuple) else index
        return {"tokens": torch.from_numpy(self.tokens[i]), "labels": torch.from_numpy(self.labels[i]), "name": f"{i}"}


def tokens_of(batch):
    return batch["tokens"]


def test_separable_tokens_are_read_without_error():
    train, test = Pictures(24), Pictures(12, seed=1)
    result = linear_probe(tokens_of, train, test, classes=3, steps=100)
    assert result.miou > 0.999 and result.accuracy > 0.999
    assert result.weight.shape == (3, 8) and result.confusion.shape == (12, 3, 3)
    assert result.loss[0] == pytest.approx(np.log(3), rel=1e-5)  # zero weights: every class is as likely
    assert result.loss[-1] < 0.1
    assert result.confusion.sum() == (test.labels != 255).sum()


def test_tokens_that_say_nothing_stay_at_chance():
    train, test = Pictures(200, informative=False), Pictures(100, seed=1, informative=False)
    result = linear_probe(tokens_of, train, test, classes=3, steps=60, lr=0.003)
    assert result.accuracy < 0.48 and result.miou < 0.33


def test_pixels_that_are_ignored_do_not_teach():
    """Wrong labels in a corner mislead the head; the same pixels as 255 do not, and none of them is scored."""
    right = Pictures(24, void=0.0)
    wrong, ignored, test = Pictures(24, void=0.0), Pictures(24, void=0.0), Pictures(12, seed=1, void=0.3)
    wrong.labels[:, :7] = (wrong.labels[:, :7] + 1) % 3
    ignored.labels[:, :7] = 255
    scores = [linear_probe(tokens_of, data, test, classes=3, steps=60) for data in (right, wrong, ignored)]
    assert scores[0].accuracy > 0.99 and scores[1].accuracy < 0.5 and scores[2].accuracy > 0.99
    assert scores[0].confusion.sum() == (test.labels != 255).sum()
    all_void = torch.full((2, 8, 12), 255, dtype=torch.uint8)
    with pytest.raises(InputError, match="every training label is void"):
        fit(torch.zeros(2, 2, 3, 8), all_void, classes=3)


def test_a_batch_without_labels_does_no_harm():
    data = Pictures(count=4, void=0.0)
    data.labels[:3] = 255
    tokens, labels = extract({"a": tokens_of}, data)
    weight, bias, loss = fit(tokens["a"], labels, classes=3, steps=8, batch=1)
    assert torch.isfinite(weight).all() and torch.isfinite(bias).all()
    assert loss.count(0.0) == 6  # two passes over four pictures, three of them void


def test_same_seed_same_head_other_seed_other_order():
    train, test = Pictures(count=20, noise=1.0), Pictures(seed=1, noise=1.0)
    results = [linear_probe(tokens_of, train, test, classes=3, steps=20, batch=4, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(results[0].weight, results[1].weight) and results[0].loss == results[1].loss
    np.testing.assert_array_equal(results[0].confusion, results[1].confusion)
    assert not torch.equal(results[0].weight, results[2].weight)


def test_the_number_of_threads_does_not_change_a_small_head():
    tokens, labels = extract({"a": tokens_of}, Pictures(count=300, noise=1.0))
    heads = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            heads.append(fit(tokens["a"], labels, classes=3, steps=10, batch=64))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
    assert torch.equal(heads[0][0], heads[1][0]) and heads[0][2] == heads[1][2]


def test_variants_ask_for_every_realisation_once():
    data = Pictures(count=5)
    tokens, labels = extract({"a": tokens_of}, data, variants=3, batch=4)
    assert data.asked == [(v, i) for v in range(3) for i in range(5)]
    assert tokens["a"].shape == (15, 2, 3, 8) and labels.shape == (15, 8, 12)
    np.testing.assert_array_equal(labels[5:10], data.labels)
    np.testing.assert_allclose(tokens["a"][10:], data.tokens, atol=2e-3)  # kept as float16


@given(st.integers(1, 7), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_upsampling_is_what_interpolate_does(tokens, times):
    pixels = tokens * times
    x = torch.rand(tokens)
    want = F.interpolate(x[None, None], size=pixels, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(upsampling(tokens, pixels) @ x, want)


def test_tokens_over_a_padded_border_stay_in_place():
    # 23 tokens of 16 px cover 368 px, of which the picture is the first 360.
    matrix = upsampling(23, 360, patch=16)
    centres = matrix @ (16 * torch.arange(23.0) + 7.5)  # a token's value is where its centre lies
    torch.testing.assert_close(centres[8:], torch.arange(8.0, 360), atol=1e-3, rtol=0)
    with pytest.raises(ConfigError, match="do not cover"):
        upsampling(22, 360, patch=16)


def test_prediction_is_the_argmax_of_bilinear_logits():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.rand(2, 3, 4, 5, generator=generator)
    weight, bias = torch.rand(6, 5, generator=generator), torch.rand(6, generator=generator)
    logits = (tokens.double() @ weight.double().T + bias.double()).permute(0, 3, 1, 2)
    want = F.interpolate(logits, size=(24, 32), mode="bilinear", align_corners=False).argmax(1)
    got = predict(weight, bias, tokens, (24, 32))
    assert got.dtype == torch.uint8 and (got == want).float().mean() > 0.999
    labels = torch.randint(0, 6, (2, 24, 32), generator=generator, dtype=torch.uint8)
    matrices = evaluate(weight, bias, tokens, labels, batch=1)
    want_matrix = confusion_matrix(want.numpy(), labels.numpy(), 6)
    assert abs(matrices.sum(0) - want_matrix).sum() <= 4
    assert mean_iou(matrices).shape == (2,) and class_iou(matrices).shape == (2, 6)


def test_the_head_is_logistic_regression_on_standardised_tokens():
    """Against gradient descent in float64 on every pixel, with the textbook formula and no autograd."""
    data = Pictures(count=16, noise=1.5, void=0.0, blocks=True)
    data.tokens = data.tokens * np.linspace(0.01, 100, 8, dtype=np.float32) + 7  # badly scaled on purpose
    tokens, labels = extract({"a": tokens_of}, data)
    weight, bias, _ = fit(tokens["a"], labels, classes=3, steps=400, batch=16, lr=0.05, weight_decay=0.0, stride=1)

    x = tokens["a"].double().numpy()
    x = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    rows, cols = upsampling(2, 8).double().numpy(), upsampling(3, 12).double().numpy()
    pixels = np.einsum("Hh,Ww,bhwd->bHWd", rows, cols, x).reshape(-1, 8)
    pixels = np.c_[pixels, np.ones(len(pixels))]
    want = np.eye(3)[data.labels.ravel()]
    theta = np.zeros((9, 3))

    def loss_and_share(theta):
        z = pixels @ theta
        z -= z.max(1, keepdims=True)
        share = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return -np.log(share[want == 1]).mean(), share

    for _ in range(3000):
        _, share = loss_and_share(theta)
        theta -= 0.5 * pixels.T @ (share - want) / len(pixels)
    best, _ = loss_and_share(theta)

    logits = (
        np.einsum("Hh,Ww,bhwk->bHWk", rows, cols, tokens["a"].double().numpy() @ weight.double().numpy().T)
        + bias.numpy()
    )
    logits = logits.reshape(-1, 3)
    logits -= logits.max(1, keepdims=True)
    ours = -(logits[want == 1] - np.log(np.exp(logits).sum(1))).mean()
    assert best - 1e-6 <= ours < best + 1e-3


def test_a_channel_that_never_changes_is_harmless():
    data = Pictures()
    data.tokens[..., 3] = 5.0
    result = linear_probe(tokens_of, data, data, classes=3, steps=50)
    assert torch.isfinite(result.weight).all() and result.accuracy > 0.6


def test_values_are_mapped_to_classes_and_unknown_ones_refused():
    data = Pictures(count=2, void=0.0)
    data.labels[0, 0, 0] = 11
    table = np.full(256, 254, np.uint8)
    table[[0, 1, 2]], table[[11, 255]] = [2, 1, 0], 255
    _, labels = extract({"a": tokens_of}, data, table=table)
    assert labels[0, 0, 0] == 255
    np.testing.assert_array_equal(labels[1], 2 - data.labels[1])
    data.labels[1, 0, 0] = 12
    with pytest.raises(InputError, match="label value 12 is none of the 3 classes"):
        extract({"a": tokens_of}, data, table=table)


def test_wrong_input_ends_in_one_line():
    class Unlabelled(Pictures):
        def __getitem__(self, index):
            return {"tokens": super().__getitem__(index)["tokens"]}

    class WrongSize(Pictures):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"image": torch.zeros(3, 16, 16)}

    with pytest.raises(InputError, match="no labels to learn from"):
        extract({"a": tokens_of}, Unlabelled())
    with pytest.raises(InputError, match="labels are 8×12 but the image is 16×16"):
        extract({"a": tokens_of}, WrongSize())
    with pytest.raises(InputError, match="is empty"):
        extract({"a": tokens_of}, [])
    with pytest.raises(RunError, match="not finite"):
        extract({"a": lambda batch: batch["tokens"] * float("nan")}, Pictures())
    negative = Pictures()
    negative.labels[0, 0, 0] = -1
    with pytest.raises(InputError, match="reach from -1"):
        extract({"a": tokens_of}, negative)
    with pytest.raises(InputError, match="1 class"):
        fit(torch.zeros(1, 2, 3, 8), torch.zeros(1, 8, 12, dtype=torch.uint8), classes=1)
