"""PGD and FGSM against a slow version in NumPy, closed forms and each other."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.attacks.networks import Linear, convolutional, pictures
from unlearnable import InputError
from unlearnable.attacks import PGD, fgsm, frozen, named
from unlearnable.budgets import L2, Linf

pytestmark = pytest.mark.usefixtures("one_thread")

BUDGETS = [Linf.of_255(8), L2(0.5)]


class Curved(nn.Module):
    """Logits W2 tanh(W1 x) of double precision, whose gradient is written out below."""

    def __init__(self):
        super().__init__()
        draws = np.random.default_rng(0)
        self.w1 = nn.Parameter(torch.from_numpy(draws.normal(size=(7, 12))))
        self.w2 = nn.Parameter(torch.from_numpy(draws.normal(size=(3, 7))))

    def forward(self, images):
        return torch.tanh(images.flatten(1) @ self.w1.T) @ self.w2.T


def slow_gradient(model, x, label):
    """Of the cross-entropy for one picture, by the chain rule."""
    w1, w2 = model.w1.detach().numpy(), model.w2.detach().numpy()
    hidden = np.tanh(w1 @ x)
    logits = w2 @ hidden
    shares = np.exp(logits) / np.exp(logits).sum()
    shares[label] -= 1
    return w1.T @ ((1 - hidden**2) * (w2.T @ shares))


def slow_pgd(model, x, label, *, norm, radius, steps, step_size, start):
    """Madry et al., section 2.1, one flat picture after another."""
    moved = np.clip(x + start, 0, 1)
    for _ in range(steps):
        gradient = slow_gradient(model, moved, label)
        if norm == "linf":
            moved = np.clip(moved + step_size * np.sign(gradient), x - radius, x + radius)
        else:
            change = moved + step_size * gradient / np.sqrt((gradient**2).sum()) - x
            moved = x + change * min(1, radius / np.sqrt((change**2).sum()))
        moved = np.clip(moved, 0, 1)
    return moved


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize(("steps", "step_size"), [(1, 0.02), (5, None), (12, 0.05)])
@pytest.mark.parametrize(("budget", "norm"), [(Linf(0.1), "linf"), (L2(0.4), "l2")])
def test_pgd_is_what_the_formula_says(budget, norm, steps, step_size, random_start):
    model = Curved()
    images = torch.rand(6, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    attack = PGD(budget=budget, steps=steps, step_size=step_size, random_start=random_start)
    changed = attack(model, images, labels, torch.Generator().manual_seed(1)).numpy()
    starts = budget.start(images, torch.Generator().manual_seed(1)).numpy() * random_start
    for image, label, start, result in zip(images.numpy(), labels, starts, changed, strict=True):
        wanted = slow_pgd(
            model,
            image.ravel(),
            label,
            norm=norm,
            radius=budget.radius,
            steps=steps,
            step_size=step_size or 2.5 * budget.radius / steps,
            start=start.ravel(),
        )
        assert result.ravel() == pytest.approx(wanted, abs=1e-12)
    assert (changed != images.numpy()).any()


@pytest.mark.parametrize("budget", [Linf(0.05), L2(0.3)], ids=str)
def test_fgsm_goes_the_whole_way_along_the_gradient(budget):
    model, images = Linear(2), pictures(8, 4, 0.4, 0.6)
    labels = torch.arange(8) % 2
    towards = model.weight.detach()[1 - labels] - model.weight.detach()[labels]
    way = towards.sign() if isinstance(budget, Linf) else towards / towards.norm(dim=1, keepdim=True)
    wanted = images + budget.radius * way.reshape(images.shape)
    assert fgsm(budget=budget)(model, images, labels) == pytest.approx(wanted.numpy(), abs=1e-6)


@pytest.mark.parametrize("kind", [Linf, L2])
def test_robust_accuracy_of_a_linear_network_is_the_exact_one(kind):
    """Of two classes, the loss rises along one direction, and PGD finds the worst point there is."""
    model, images = Linear(2), pictures(200, 4, 0.3, 0.7)
    labels = torch.arange(200) % 2
    logits = model(images).detach()
    order = 1 if kind is Linf else 2  # the dual norm
    slope = torch.linalg.vector_norm(model.weight.detach()[0] - model.weight.detach()[1], order)
    sign = 1 - 2 * labels
    distances = sign * (logits[:, 0] - logits[:, 1]) / slope
    for radius in distances[distances > 0].quantile(torch.tensor([0.1, 0.5, 0.9])).tolist():
        budget = kind(radius)
        for attack in (fgsm(budget=budget), PGD(budget=budget, steps=20, step_size=radius)):
            changed = attack(model, images, labels, torch.Generator().manual_seed(0))
            right = model(changed).argmax(1) == labels
            sure = (distances - radius).abs() > 1e-5
            assert torch.equal(right[sure], (distances > radius)[sure])


@pytest.mark.parametrize("restarts", [1, 3])
def test_no_pass_is_wasted(restarts):
    model = Linear()
    PGD(budget=Linf(0.1), steps=7, restarts=restarts)(model, pictures(4, 4), torch.arange(4))
    assert model.passes == 7 * restarts + (restarts if restarts > 1 else 0)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_restarts_keep_the_worst_of_each_picture(budget):
    model, images = convolutional(), pictures(30)
    with frozen(model):
        labels = model(images).argmax(1)
    options = {"budget": budget, "steps": 1, "step_size": budget.radius / 10}  # so that the start decides

    def outcome(changed):
        with frozen(model):
            logits = model(changed)
        return (logits.argmax(1) != labels).tolist(), functional.cross_entropy(logits, labels, reduction="none")

    together = PGD(restarts=4, **options)(model, images, labels, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    alone = [PGD(**options)(model, images, labels, generator) for _ in range(4)]
    outcomes = [outcome(changed) for changed in alone]
    chosen = set()
    for n in range(30):
        fooled = [run for run in range(4) if outcomes[run][0][n]]
        best = fooled[0] if fooled else max(range(4), key=lambda run: outcomes[run][1][n])
        chosen.add(best)
        assert torch.equal(together[n], alone[best][n])
    assert len(chosen) > 1


def test_restarts_take_labels_as_shares_too():
    model, images = convolutional(), pictures(30)
    with frozen(model):
        whole = model(images).argmax(1)
    shares = functional.one_hot(whole, 5).float()
    attack = PGD(budget=BUDGETS[0], steps=1, step_size=BUDGETS[0].radius / 10, restarts=4)
    changed = [attack(model, images, labels, torch.Generator().manual_seed(0)) for labels in (whole, shares)]
    assert torch.equal(*changed)


def test_the_loss_is_a_hook():
    """TRADES: away from the clean answer, whatever the labels."""
    model, images = convolutional(), pictures(5)
    with frozen(model):
        clean = model(images).softmax(1)

    def divergence(logits, shares):
        return functional.kl_div(logits.log_softmax(1), shares, reduction="none").sum(1)

    def apart(changed):
        with frozen(model):
            return divergence(model(changed), clean)

    climbed = PGD(budget=Linf(0.1), loss=divergence)(model, images, clean, torch.Generator().manual_seed(0))
    drawn = (images + Linf(0.1).start(images, torch.Generator().manual_seed(0))).clamp(0, 1)
    assert (apart(climbed) > 3 * apart(drawn)).all()


@pytest.mark.parametrize("kind", [Linf, L2])
def test_more_room_and_more_steps_never_help_the_network(kind):
    model, images = convolutional(), pictures(60)
    with frozen(model):
        labels = model(images).argmax(1)
    sizes = [1e-6, 0.01, 0.05, 0.5] if kind is Linf else [1e-6, 0.1, 0.5, 8]

    def robust(name, radius):
        changed = named(name, budget=kind(radius))(model, images, labels, torch.Generator().manual_seed(0))
        with frozen(model):
            return int((model(changed).argmax(1) == labels).sum())

    shares = [robust("pgd10", radius) for radius in sizes]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 60
    assert shares[-1] == 0
    assert 0 < shares[2] < 60
    assert robust("pgd40", sizes[2]) <= robust("pgd10", sizes[2]) <= robust("fgsm", sizes[2])


def test_the_network_sees_the_layout_it_is_given():
    seen = []

    class Looking(nn.Module):
        def forward(self, images):
            seen.append(images.is_contiguous(memory_format=torch.channels_last))
            return images.mean((2, 3))

    for budget in BUDGETS:
        PGD(budget=budget, steps=2)(Looking(), pictures(4).to(memory_format=torch.channels_last), torch.arange(4) % 3)
    assert seen == [True] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "expected at least 1 step, found 0"),
        ({"step_size": 0.0}, "expected a step size above 0, found 0.0"),
        ({"restarts": 0}, "expected at least 1 restart, found 0"),
        ({"restarts": 2, "random_start": False}, "expected a random start with several restarts, found none"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PGD(budget=Linf(0.1), **options)
