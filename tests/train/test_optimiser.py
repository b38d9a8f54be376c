import math

import pytest
import torch
from torch import nn

from evlift.train.optimiser import adamw, rate


def test_rate_climbs_then_follows_a_cosine():
    rates = [rate(s, steps=100, peak=2.0, warmup=0.1) for s in range(100)]
    assert rates[:10] == pytest.approx([2.0 * (s + 1) / 11 for s in range(10)])
    for s in range(10, 100):
        expected = 2.0 * (0.01 + 0.99 * (1 + math.cos(math.pi * (s - 10) / 90)) / 2)
        assert rates[s] == pytest.approx(expected)
    assert max(rates) == rates[10] == 2.0


def test_norms_and_biases_do_not_decay():
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    module.register_parameter("token", nn.Parameter(torch.ones(1, 1, 4)))
    module.register_parameter("frozen", nn.Parameter(torch.ones(4, 4), requires_grad=False))
    decay, rest = adamw(module, lr=1e-3, weight_decay=0.1).param_groups
    assert [p.shape for p in decay["params"]] == [(4, 4)] and decay["weight_decay"] == 0.1
    assert len(rest["params"]) == 4 and rest["weight_decay"] == 0.0
