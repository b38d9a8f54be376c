"""A linear probe for semantic segmentation: what can be read from frozen tokens with one matrix.

The features are computed once and kept in memory; only a linear head is trained on them. It stays linear end to end:
tokens are standardised with the training set's mean and variance (an affine map, folded into the head afterwards), a
matrix maps each token to class logits, and logits are upsampled bilinearly to the labels. With zero initial weights and
cross-entropy this is multinomial logistic regression: a convex problem, so what is measured is the tokens, not luck.

The loss is taken on a lattice of pixels (every `stride`-th row and column, the offset drawn anew each step). That is an
unbiased estimate of the loss over all pixels at a sixteenth of its price; the evaluation looks at every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import ConfigError, InputError, RunError
from . import metrics
from .labels import UNKNOWN
from .metrics import IGNORE

Features = Callable[[dict[str, Tensor]], Tensor]
"""A batch of a data set ({"grid": float32 [B, C, H, W], "image": float32 [B, 3, H, W], …}) to tokens [B, h, w, D]."""

SMALL = 1 << 22
"""Token values a step up to which the head is trained with one thread."""


@dataclass(frozen=True)
class ProbeResult:
    """A trained head and what it scored.

    weight float32 [K, D] and bias float32 [K] act on the raw tokens. confusion int64 [N, K, K] has one matrix a test
    item (rows the truth). loss: the training loss of every step.
    """

    weight: Tensor
    bias: Tensor
    confusion: NDArray[np.int64]
    loss: tuple[float, ...]

    @property
    def miou(self) -> float:
        return float(metrics.mean_iou(self.confusion.sum(0)))

    @property
    def accuracy(self) -> float:
        return float(metrics.pixel_accuracy(self.confusion.sum(0)))


def linear_probe(
    features: Features,
    train: Any,
    test: Any,
    *,
    classes: int,
    variants: int = 1,
    steps: int = 1000,
    batch: int = 16,
    lr: float = 0.01,
    seed: int = 0,
    patch: int | None = None,
    workers: int = 0,
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Extract tokens, train a linear head on `train`, and score it on `test` at the size of the test labels.

    Args:
        features: batch → tokens [B, h, w, D]; called without gradients.
        train, test: data sets whose items are dicts with what `features` reads and "labels", int [H, W], 0…K−1 or 255
            (ignored). `train` is read as `train[(variant, i)]` when `variants` > 1.
        classes: K.
        variants: realisations of every training item (other simulated motions, flips) that the head sees.
        steps, batch, lr, seed: of `fit`.
        patch: pixels of the labels' grid that one token spans; see `upsampling`.
    """
    tokens, labels = extract({"": features}, train, variants=variants, workers=workers, device=device)
    test_tokens, test_labels = extract({"": features}, test, workers=workers, device=device)
    weight, bias, loss = fit(
        tokens[""], labels, classes=classes, steps=steps, batch=batch, lr=lr, seed=seed, patch=patch, device=device
    )
    return ProbeResult(
        weight, bias, evaluate(weight, bias, test_tokens[""], test_labels, patch=patch, device=device), loss
    )


def extract(
    features: Mapping[str, Features],
    dataset: Any,
    *,
    variants: int = 1,
    table: NDArray[np.uint8] | None = None,
    batch: int = 16,
    workers: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    what: str = "tokens",
) -> tuple[dict[str, Tensor], Tensor]:
    """Run a data set through several feature functions in one pass, so that its events are made once.

    Args:
        features: name → feature function.
        dataset: see `linear_probe`; every item must have the same size.
        variants: passes over the data set; item i of pass v is `dataset[(v, i)]` if there is more than one.
        table: uint8 [256], label value → class, with 254 for values that are none (`LabelSet.table`);
            None: taken as they are.
    Returns:
        (name → float16 [variants · N, h, w, D], labels uint8 [variants · N, H, W]), both on the CPU. They
        take 2 bytes a token value of memory.
    Raises:
        InputError: no items, no labels, labels of another size than the input, a value that is no class.
        RunError: features that are not finite.
    """
    count = len(dataset)
    if count == 0:
        raise InputError("a data set of the probe is empty; give a folder or split with labelled pictures")
    order: list[Any] = [(v, i) if variants > 1 else i for v in range(variants) for i in range(count)]
    loader = DataLoader(dataset, batch_size=batch, sampler=order, num_workers=workers, collate_fn=_collate)
    tokens: dict[str, Tensor] = {}
    labels = torch.empty(0, dtype=torch.uint8)
    task = progress.add_task(what, total=len(order)) if progress else None
    done = 0
    with _threads(torch.get_num_threads() - workers):  # a core for each worker
        for items in loader:
            true = _check_labels(items, table)
            if done == 0:
                labels = torch.empty(len(order), *true.shape[1:], dtype=torch.uint8)
            stop = done + len(true)
            if true.shape[1:] != labels.shape[1:]:
                raise InputError(f"labels of {_size(true)} and {_size(labels)} in one data set; give one size")
            labels[done:stop] = true
            on_device = {k: v.to(device) for k, v in items.items() if k != "labels"}
            for name, function in features.items():
                with torch.no_grad():
                    found = function(on_device).to("cpu", torch.float16)
                if not torch.isfinite(found).all():
                    raise RunError(
                        f"features {name or 'given'} are not finite in float16; check the weights and the input"
                    )
                if name not in tokens:  # one allocation, of which nothing is ever copied again
                    tokens[name] = torch.empty(len(order), *found.shape[1:], dtype=torch.float16)
                tokens[name][done:stop] = found
            done = stop
            if progress and task is not None:
                progress.update(task, completed=done)
    return tokens, labels


def _collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack the tensors that all items have; names and other notes are left behind."""
    stacked = {}
    for key in items[0]:
        if all(isinstance(item.get(key), (Tensor, np.ndarray)) for item in items):
            tensors = [torch.as_tensor(item[key]) for item in items]
            if len({t.shape for t in tensors}) > 1:
                raise InputError(f"items have {key}s of different sizes; give the probe one size for all")
            stacked[key] = torch.stack(tensors)
    return stacked


def _check_labels(items: dict[str, Tensor], table: NDArray[np.uint8] | None) -> Tensor:
    """The batch's labels as uint8 classes."""
    if "labels" not in items:
        raise InputError("no labels to learn from; put a label picture of the same name in labels/ for each picture")
    raw = items["labels"]
    for key in ("grid", "image"):
        if key in items and items[key].shape[-2:] != raw.shape[-2:]:
            raise InputError(
                f"labels are {_size(raw)} but the {key} is {_size(items[key])}; give labels of the picture's size"
            )
    if raw.min() < 0 or raw.max() > IGNORE:
        found = f"{int(raw.min())} to {int(raw.max())}"
        raise InputError(f"label values reach from {found}; use 8-bit class indices, 255 for void")
    if table is None:
        return raw.to(torch.uint8)
    mapped = torch.from_numpy(table)[raw.long()]
    if (mapped == UNKNOWN).any():
        value = int(raw[mapped == UNKNOWN].max())
        raise InputError(
            f"label value {value} is none of the {int((table < UNKNOWN).sum())} classes; name it, or give it as void"
        )
    return mapped


def _size(tensor: Tensor) -> str:
    return f"{tensor.shape[-2]}×{tensor.shape[-1]}"


def upsampling(tokens: int, pixels: int, patch: int | None = None) -> Tensor:
    """The matrix of bilinear upsampling along one axis, float32 [pixels, tokens], as `F.interpolate` does it.

    With `patch`, a token spans that many pixels and the last one may stick out (an input padded to the patch); without
    it the tokens span the pixels exactly.
    """
    span = pixels if patch is None else tokens * patch
    if span < pixels:
        raise ConfigError(f"{tokens} tokens of {patch} pixels do not cover {pixels}; give the real patch, or none")
    matrix = F.interpolate(torch.eye(tokens)[None], size=span, mode="linear", align_corners=False)[0]  # [tokens, span]
    return matrix[:, :pixels].T.contiguous()


def fit(
    tokens: Tensor,
    labels: Tensor,
    *,
    classes: int,
    steps: int = 1000,
    batch: int = 16,
    lr: float = 0.01,
    weight_decay: float = 1e-3,
    stride: int = 4,
    seed: int = 0,
    patch: int | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    what: str = "head",
) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Train the linear head with AdamW on a cosine that ends at 0.

    Args:
        tokens: float [N, h, w, D]. labels: uint8 [N, H, W], 0…K−1 or 255.
        stride: pixels between two that the loss looks at, along both axes.
        seed: order of the items and offsets of the lattice; the weights start at zero.
    Returns:
        weight float32 [K, D] and bias float32 [K] for raw tokens, on the CPU; the loss of every step.
    """
    if classes < 2:
        raise InputError(f"there is {classes} class to tell apart; give two or more, or check the void value")
    if not (labels != IGNORE).any():
        raise InputError("every training label is void; check the label pictures and the void value")
    count, h, w, dim = tokens.shape
    # A step on so little is over before a second thread is awake; and with one, the sums are the same on any machine.
    threads = 1 if batch * h * w * dim < SMALL else torch.get_num_threads()
    with _threads(threads):
        mean, std = _statistics(tokens)
    rows = upsampling(h, labels.shape[1], patch).to(device)
    cols = upsampling(w, labels.shape[2], patch).to(device)
    shift, scale = mean.float().to(device), (1 / std).float().to(device)
    weight = torch.zeros(classes, dim, device=device, requires_grad=True)
    bias = torch.zeros(classes, device=device, requires_grad=True)
    optimiser = torch.optim.AdamW(
        [{"params": [weight], "weight_decay": weight_decay}, {"params": [bias], "weight_decay": 0.0}], lr=lr
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    stride = max(1, min(stride, labels.shape[1] // h, labels.shape[2] // w))
    task = progress.add_task(what, total=steps) if progress else None
    losses: list[Tensor] = []
    queue = torch.empty(0, dtype=torch.long)
    with _threads(threads):
        for step in range(steps):
            while len(queue) < min(batch, count):
                queue = torch.cat([queue, torch.randperm(count, generator=generator)])
            chosen, queue = queue[:batch], queue[batch:]
            top, left = torch.randint(stride, (2,), generator=generator).tolist()
            x = (tokens[chosen].to(device, torch.float32) - shift) * scale
            true = labels[chosen][:, top::stride, left::stride].to(device).long()
            logits = _upsample(x @ weight.T + bias, rows[top::stride], cols[left::stride])
            # A batch may be void throughout: the sum is then 0, and so is the loss.
            total = F.cross_entropy(logits.flatten(0, 2), true.flatten(), ignore_index=IGNORE, reduction="sum")
            loss = total / (true != IGNORE).sum().clamp_min(1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
            if progress and task is not None:
                progress.update(task, completed=step + 1)
    with torch.no_grad():  # fold the standardisation into the head, in float64
        folded = weight.double().cpu() / std
        offset = bias.double().cpu() - folded @ mean
    return folded.float(), offset.float(), tuple(torch.stack(losses).tolist())


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """PyTorch's threads on the CPU while inside; at least one."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, number))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _statistics(tokens: Tensor, chunk: int = 256) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel in float64, [D] each; a channel that never changes gets 1."""
    total = torch.zeros(tokens.shape[-1], dtype=torch.float64)
    for part in tokens.split(chunk):
        total += part.double().sum((0, 1, 2))
    number = tokens[..., 0].numel()
    mean = total / number
    square = torch.zeros_like(total)
    for part in tokens.split(chunk):
        square += (part.double() - mean).square().sum((0, 1, 2))
    std = (square / number).sqrt()
    return mean, torch.where(std > 1e-6 * mean.abs().clamp_min(1e-6), std, torch.ones_like(std))


def _upsample(logits: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """[B, h, w, K] with [H, h] and [W, w] → [B, H, W, K]."""
    return torch.einsum("Ww,bHwk->bHWk", cols, torch.einsum("Hh,bhwk->bHwk", rows, logits))


def predict(
    weight: Tensor,
    bias: Tensor,
    tokens: Tensor,
    size: tuple[int, int],
    *,
    patch: int | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """The class of every pixel, uint8 [B, H, W], from tokens [B, h, w, D] and a head on raw tokens."""
    rows, cols = (
        upsampling(tokens.shape[1], size[0], patch).to(device),
        upsampling(tokens.shape[2], size[1], patch).to(device),
    )
    with torch.no_grad():
        logits = tokens.to(device, torch.float32) @ weight.to(device).T + bias.to(device)
        return _upsample(logits, rows, cols).argmax(-1).to("cpu", torch.uint8)


def evaluate(
    weight: Tensor,
    bias: Tensor,
    tokens: Tensor,
    labels: Tensor,
    *,
    patch: int | None = None,
    device: str | torch.device = "cpu",
    batch: int = 8,
) -> NDArray[np.int64]:
    """Confusion matrices int64 [N, K, K], one an item, over every labelled pixel of `labels` uint8 [N, H, W]."""
    size = (labels.shape[1], labels.shape[2])
    found = []
    for some, true in zip(tokens.split(batch), labels.split(batch), strict=True):
        for one, label in zip(predict(weight, bias, some, size, patch=patch, device=device), true, strict=True):
            found.append(metrics.confusion_matrix(one.numpy(), label.numpy(), len(bias)))
    return np.stack(found)
