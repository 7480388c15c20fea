import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from segline.data.dataset import IGNORE
from segline.train.loss import LossSums


def batch(seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, generator=generator)
    target = torch.randint(0, classes, (2, 5, 6), generator=generator).to(torch.uint8)
    return logits, target, torch.rand(2, 5, 6, generator=generator) * 4


@given(st.integers(0, 1000), st.integers(2, 5))
def test_cross_entropy_is_the_weighted_mean_of_torch_values(seed: int, classes: int) -> None:
    logits, target, weights = batch(seed, classes)
    expected = (functional.cross_entropy(logits, target.long(), reduction="none") * weights).mean()
    assert torch.allclose(LossSums.of(logits, target, weights).loss(0), expected, atol=1e-6)


@given(st.integers(0, 1000))
def test_dice_agrees_with_a_naive_formula(seed: int) -> None:
    logits, target, weights = batch(seed)
    p, t = logits.softmax(1).numpy().astype(np.float64), target.numpy()
    terms = []
    for c in range(3):
        overlap = total = 0.0
        for b, y, x in np.ndindex(t.shape):
            overlap += p[b, c, y, x] * (t[b, y, x] == c)
            total += p[b, c, y, x] + (t[b, y, x] == c)
        terms.append((2 * overlap + 1) / (total + 1))
    sums = LossSums.of(logits, target, weights)
    assert (sums.loss(0.7) - sums.loss(0)).item() == pytest.approx(0.7 * (1 - np.mean(terms)), abs=1e-5)


@given(st.integers(0, 1000), st.floats(0, 2))
def test_sums_of_parts_give_the_loss_of_the_whole(seed: int, dice: float) -> None:
    logits, target, weights = batch(seed)
    parts = [LossSums.of(logits[i : i + 1], target[i : i + 1], weights[i : i + 1]) for i in range(2)]
    whole = LossSums.of(logits, target, weights)
    assert torch.allclose((parts[0] + parts[1]).loss(dice), whole.loss(dice), atol=1e-6)


def test_ignored_pixels_change_nothing_and_get_no_gradient() -> None:
    logits, target, weights = batch(0)
    target[0, :2] = IGNORE
    logits.requires_grad_()
    loss = LossSums.of(logits, target, weights).loss(1)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, :2] == 0).all()
    other = logits.detach().clone()
    other[0, :, :2] = 99
    assert torch.allclose(LossSums.of(other, target, weights).loss(1), loss)


@given(st.integers(0, 1000))
def test_an_object_map_adds_its_mean_binary_cross_entropy(seed: int) -> None:
    logits, target, weights = batch(seed, classes=4)  # the last channel is the object map
    object_map = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed))
    target[target == 3] = IGNORE
    without = LossSums.of(logits[:, :3], target, weights)
    both = LossSums.of(logits, target, weights, object_map)
    each = functional.binary_cross_entropy_with_logits(logits[:, 3], object_map, reduction="none")
    assert torch.allclose(both.loss(1) - without.loss(1), each[target != IGNORE].mean(), atol=1e-5)


def test_a_batch_of_ignored_pixels_has_a_finite_loss() -> None:
    logits, target, weights = batch(0)
    assert LossSums.of(logits, torch.full_like(target, IGNORE), weights * 0).loss(1).item() == 0


def test_a_perfect_prediction_has_no_loss() -> None:
    _, target, weights = batch(0)
    logits = functional.one_hot(target.long(), 3).permute(0, 3, 1, 2) * 100.0
    assert LossSums.of(logits, target, weights).loss(1).item() == pytest.approx(0, abs=1e-6)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits, target, weights = batch(0)
    sums = LossSums.of(logits.to(torch.bfloat16), target, weights)
    assert sums.cross_entropy.dtype == torch.float32
    assert sums.loss(1).item() == pytest.approx(LossSums.of(logits, target, weights).loss(1).item(), rel=2e-2)
