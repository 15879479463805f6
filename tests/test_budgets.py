"""Balls around pictures: what is inside, and how they are written."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from unlearnable import InputError
from unlearnable.budgets import L2, Linf, parse

BUDGETS = [Linf.of_255(8), Linf(1), L2(0.5), L2(3)]


def changes(scale=1.0, dtype=torch.float64):
    return scale * torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)


def size(budget, delta):
    """The norm of each picture's change, by NumPy."""
    return np.linalg.norm(delta.numpy().reshape(len(delta), -1), ord=np.inf if isinstance(budget, Linf) else 2, axis=1)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1, 100])
def test_projection_is_the_nearest_point_of_the_ball(budget, scale):
    delta = changes(scale)
    projected = budget.project(delta)
    assert (size(budget, projected) <= budget.radius * (1 + 1e-12)).all()
    inside = size(budget, delta) <= budget.radius
    assert torch.equal(projected[inside], delta[inside])
    # At the nearest point of a convex set, the way to any other point of it turns away from what was projected.
    others = budget.start(delta.expand(50, *delta.shape).flatten(0, 1)).reshape(50, *delta.shape)
    turned = ((delta - projected) * (others - projected)).flatten(2).sum(2)
    assert (turned <= 1e-9 * scale).all()


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_starts_are_uniform_in_the_ball(budget):
    images = torch.zeros(4000, 1, 1, 2)
    drawn = budget.start(images, torch.Generator().manual_seed(1))
    sizes = size(budget, drawn)
    assert (sizes <= budget.radius * (1 + 1e-6)).all()
    # Of a uniform distribution over a ball of two dimensions, a quarter lies within half the radius.
    assert (sizes <= budget.radius / 2).mean() == pytest.approx(0.25, abs=0.03)
    assert drawn.mean(0).abs().max() < 0.05 * budget.radius
    assert torch.equal(drawn, budget.start(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(drawn, budget.start(images, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("scale", [1, 1e-30])  # the squares of small ones are zero in float32
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_no_step_of_size_one_climbs_more(budget, scale):
    gradient = changes(scale, torch.float32)
    gradient[2] = 0
    step = budget.step(gradient)
    assert not step[2].any()
    assert size(budget, step)[[0, 1, 3, 4, 5]] == pytest.approx(1)
    flat = (gradient / scale).double().flatten(1)
    climbed = (flat * step.flatten(1)).sum(1)
    most = flat.abs().sum(1) if isinstance(budget, Linf) else flat.norm(dim=1)  # the dual norm
    assert climbed.numpy() == pytest.approx(most.numpy(), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("8/255", Linf(8 / 255)),
        ("linf:8/255", Linf(8 / 255)),
        ("Linf 8 / 255", Linf(8 / 255)),
        ("L2:0.5", L2(0.5)),
        ("l2:128/255", L2(128 / 255)),
        (".05", Linf(0.05)),
        ("l2: 2", L2(2)),
        ("linf:1e-3", Linf(0.001)),
    ],
)
def test_budgets_are_read(text, budget):
    assert parse(text) == budget
    assert parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Linf.of_255(8), "Linf 8/255"),
        (Linf(0.2), "Linf 0.2"),
        (Linf(0.031), "Linf 0.031"),
        (Linf(1 / 3), "Linf 85/255"),
        (L2(0.5), "L2 0.5"),
        (L2(128 / 255), "L2 128/255"),
        (L2(1), "L2 1"),
        (L2(2 / 3 + 1e-9), f"L2 {2 / 3 + 1e-9}"),
    ],
)
def test_budgets_are_written_exactly_and_short(budget, text):
    assert str(budget) == text
    assert parse(text) == budget


@pytest.mark.parametrize("text", ["", "l1:3", "8/0", "linf", "-1", "1/2/3", "8/255 of it", "nan", "linf:inf"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(InputError, match=r"expected a budget such as 8/255, linf:8/255 or l2:0\.5, found"):
        parse(text)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linf(8), "expected an Linf radius of at most 1, found 8: .* eight grey levels are 8/255"),
        (lambda: parse("8"), "expected an Linf radius of at most 1, found 8"),
        (lambda: Linf(0), "expected an Linf radius above 0, found 0"),
        (lambda: L2(-0.5), "expected an L2 radius above 0, found -0.5"),
        (lambda: L2(float("nan")), "expected an L2 radius above 0, found nan"),
        (lambda: L2(float("inf")), "expected an L2 radius above 0, found inf"),
    ],
)
def test_radii_out_of_range_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_norms_tell_budgets_apart():
    assert Linf(0.5) != L2(0.5)


def test_no_torch_is_loaded():
    code = "import sys, unlearnable.budgets as b; b.parse('8/255'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
