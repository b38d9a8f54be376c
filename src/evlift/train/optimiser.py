"""AdamW with decay on matrices only, and the learning rate as a function of the step."""

import math

import torch
from torch import nn


def adamw(module: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); norms, biases and single tokens (one dimension that varies) do not decay."""
    decay: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (decay if parameter.squeeze().ndim >= 2 else rest).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def rate(step: int, *, steps: int, peak: float, warmup: float, floor: float = 0.01) -> float:
    """Learning rate of step `step` (0-based): linear from 0 over `warmup·steps`, then a cosine down to `floor·peak`."""
    climb = warmup * steps
    if step < climb:
        return peak * (step + 1) / (climb + 1)
    progress = (step - climb) / max(1.0, steps - climb)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
