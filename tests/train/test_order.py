from hypothesis import given
from hypothesis import strategies as st

from evlift.train.order import StepSampler, keys_of_step


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 3))
def test_every_epoch_is_a_permutation(length, batch, seed):
    steps = -(-2 * length // batch)
    keys = [key for step in range(steps) for key in keys_of_step(step, length=length, batch=batch, seed=seed)]
    for epoch in (0, 1):
        assert sorted(index for e, index in keys if e == epoch) == list(range(length))
    assert [e for e, _ in keys] == sorted(e for e, _ in keys)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 6))
def test_ranks_together_see_one_process_batches_from_any_start(length, share, world, start):
    common = dict(length=length, batch=share * world, seed=1)
    whole = list(StepSampler(0, 8, **common))
    ranks = [list(StepSampler(start, 8, rank=rank, world=world, **common)) for rank in range(world)]
    for step in range(start, 8):
        together = [ranks[i % world][step - start][i // world] for i in range(share * world)]
        assert together == whole[step]


def test_seed_and_epoch_change_the_order():
    def epoch(seed, step):
        return [index for _, index in keys_of_step(step, length=64, batch=64, seed=seed)]

    assert epoch(0, 0) != epoch(1, 0)
    assert epoch(0, 0) != epoch(0, 1)
