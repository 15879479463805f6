"""The numbers behind the figures: one function a figure, each returning a small tidy table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from sklearn.datasets import load_digits

from unlearnable.errors import expected
from unlearnable.pictures.dataset import load
from unlearnable.theory.adversarial_fit import Rule, fit_linear, fit_quadratic, risk
from unlearnable.theory.checks import Matrix, Vector, count, numbers
from unlearnable.theory.factor_analysers import fit_factor_analysers
from unlearnable.theory.filter_design import distortion, strongest_filters
from unlearnable.theory.gaussian_mixture import (
    ROUNDING,
    chernoff_bound,
    clean_accuracy,
    monte_carlo,
    monte_carlo_classes,
    picture_filter,
)
from unlearnable.theory.generalised_linear import generalised_linear_risks
from unlearnable.theory.latent import (
    SCALINGS,
    draw_direction,
    draw_features,
    gaussian_mixture_risks,
    linear_risks,
    robust_shift,
)
from unlearnable.theory.nonlinear import nonlinear_risks

Value = float | int | str
RATIOS = (1.1, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Table:
    """``rows`` all have the same keys; ``settings`` is what was the same for all of them."""

    rows: list[dict[str, Value]]
    settings: dict[str, Value]

    def column(self, name: str, **where: Value) -> Vector:
        """Return one column as float64, of the rows whose other columns have these values."""
        chosen = (row for row in self.rows if all(row[key] == value for key, value in where.items()))
        return np.array([float(row[name]) for row in chosen])

    def values(self, name: str) -> list[Value]:
        """List the different values of a column, in order of appearance."""
        return list(dict.fromkeys(row[name] for row in self.rows))


def flat_mean(d: int, norm: float) -> Vector:
    """Return the mean of shape (d,) with equal entries and this norm, the one the figures use."""
    return np.full(d, norm / math.sqrt(d))


def accuracy_map(norms: Sequence[float] = (1.0, 2.5, 5.0), d: int = 100, points: int = 51) -> Table:
    """Compute the exact accuracy and its bound over (a_-, a_+) in [0, 1/2]^2: the paper's figure.

    The accuracy is symmetric in the two; every pair is in the table, half of them computed.
    """
    grid = np.linspace(0, 0.5, points).tolist()
    rows: list[dict[str, Value]] = []
    for norm in norms:
        mu = flat_mean(d, norm)
        found = {
            (low, high): (clean_accuracy(mu, low, high), chernoff_bound(mu, low, high))
            for low, high in product(grid, grid)
            if low <= high
        }
        for low, high in product(grid, grid):
            exact, bound = found[min(low, high), max(low, high)]
            rows.append({"norm": norm, "a_negative": low, "a_positive": high, "exact": exact, "chernoff": bound})
    return Table(rows, {"d": d, "mean": "equal entries"})


def three_ways(norms: Sequence[float] = (1.0, 2.5, 5.0), d: int = 50, samples: int = 20_000, seed: int = 0) -> Table:
    """Compare exact value, drawing with its interval, and bound, along a_- = 0."""
    rows: list[dict[str, Value]] = []
    for norm, a in product(norms, np.linspace(0, 0.5, 21).tolist()):
        mu = flat_mean(d, norm)
        drawn = monte_carlo(mu, 0.0, a, samples=samples, seed=seed)
        row: dict[str, Value] = {"norm": norm, "a_positive": a, "exact": clean_accuracy(mu, 0.0, a)}
        row |= {"drawn": drawn.value, "low": drawn.low, "high": drawn.high, "chernoff": chernoff_bound(mu, 0.0, a)}
        rows.append(row)
    return Table(rows, {"d": d, "a_negative": 0.0, "samples": samples, "seed": seed, "mean": "equal entries"})


def dimensions(
    norm: float = 5.0, filters: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5), largest: int = 10_000
) -> Table:
    """Follow the exact accuracy from 2 dimensions on, class -1 unfiltered."""
    sizes = sorted({round(size) for size in np.geomspace(2, largest, 24)})
    rows: list[dict[str, Value]] = [
        {"a_positive": a, "d": d, "exact": clean_accuracy(flat_mean(d, norm), 0.0, a)} for a in filters for d in sizes
    ]
    return Table(rows, {"norm": norm, "a_negative": 0.0, "mean": "equal entries"})


def many_classes(d: int = 100, norm: float = 4.0, samples: int = 4_000, seed: int = 0) -> Table:
    """Draw the accuracy for 2 to 50 classes: random means, the filters a spread evenly over [0, a_max]."""
    rows: list[dict[str, Value]] = []
    for classes, most in product((2, 3, 5, 10, 20, 50), (0.0, 0.2, 0.5)):
        rng = np.random.default_rng(seed)
        means = np.stack([draw_direction(d, norm, rng) for _ in range(classes)])
        drawn = monte_carlo_classes(means, np.linspace(0, most, classes).tolist(), samples=samples, seed=seed)
        rows.append({"classes": classes, "a_max": most, "drawn": drawn.value, "low": drawn.low, "high": drawn.high})
    return Table(rows, {"d": d, "norm": norm, "samples": samples, "seed": seed, "mean": "random directions"})


def budgets(
    norm: float = 2.5,
    d: int = 24,
    shares: Sequence[float] = (0.1, 0.3, 0.45, 0.6, 0.75),
    randoms: int = 60,
    seed: int = 0,
) -> Table:
    """Compare the strongest filters found for a distortion with random ones, for 3, 5 and 7 taps."""
    mu, rng = flat_mean(d, norm), np.random.default_rng(seed)
    rows: list[dict[str, Value]] = []
    for taps in (3, 5, 7):
        for share in shares:
            found = strongest_filters(mu, share * norm, taps=taps, starts=2, seed=seed)
            rows.append({"kind": "strongest", "taps": taps, "distortion": share, "exact": found.accuracy})
        for most in np.linspace(0.05, 0.95, randoms).tolist():
            pair = rng.uniform(0, most / (taps - 1), (2, taps)) * rng.uniform(0, 2, (2, 1))
            pair[:, taps // 2] = 1
            spent = max(distortion(mu, one) for one in pair) / norm
            accuracy = clean_accuracy(mu, *pair)
            rows.append({"kind": "random", "taps": taps, "distortion": spent, "exact": accuracy})
    return Table(rows, {"norm": norm, "d": d, "seed": seed, "mean": "equal entries", "distortion": "|(A-I)mu| / |mu|"})


STRENGTHS = {3: (0.02, 0.05, 0.1, 0.2, 0.3, 0.5), 5: (0.01, 0.03, 0.06, 0.1, 0.2), 9: (0.003, 0.01, 0.03, 0.06, 0.1)}
"""p_b to try for each side k; 0.3 for k = 3 and 0.06 for k = 9 are the published ones."""


def pictures(side: int = 16, norm: float = 2.5, pairs: int = 8, seed: int = 0) -> Table:
    """Compute the accuracy for pictures filtered in two dimensions with reflection, for pairs of random filters.

    Drawn as CUDA's are, k^2 - 1 taps uniform in [0, p_b], and the tap of 1 in the middle or anywhere; then scaled to
    sum to 1, as dividing a picture by its maximum takes the gain back. The mean is a smooth picture; the noise is that
    of rounding to 8 bits.
    """
    rng = np.random.default_rng(seed)
    wave = np.add.outer(np.arange(side), np.arange(side)) / side
    picture = np.cos(2 * np.pi * wave) + 0.5 * np.cos(2 * np.pi * (wave.T[::-1] * 2)) + 1
    mu = (picture * (norm / np.linalg.norm(picture))).ravel()
    rows: list[dict[str, Value]] = []
    for place, k in product(("middle", "anywhere"), STRENGTHS):
        for blur, _ in product(STRENGTHS[k], range(pairs)):
            matrices = []
            for kernel in rng.uniform(0, blur, (2, k, k)):
                kernel[(k // 2, k // 2) if place == "middle" else tuple(rng.integers(k, size=2))] = 1
                matrices.append(picture_filter(kernel / kernel.sum(), side, side))
            spent = max(float(np.linalg.norm(matrix @ mu - mu)) for matrix in matrices) / norm
            exact = clean_accuracy(mu, *matrices, noise=ROUNDING)
            rows.append({"tap": place, "k": k, "blur": blur, "distortion": spent, "exact": exact})
    return Table(
        rows,
        {"side": side, "norm": norm, "pairs": pairs, "seed": seed, "padding": "reflect", "noise": round(ROUNDING, 5)},
    )


def mixture_risks(
    epsilons: Sequence[float] = (0.25, 0.5, 1.0), k: int = 20, norm: float = 2.0, draws: int = 20
) -> Table:
    """Average the four risks over draws of W and mu, against d/k, for p = 2 and inf and both scalings of W.

    For p = inf the radius is epsilon / sqrt(d), whose corner reaches as far in l_2.
    """
    rows: list[dict[str, Value]] = []
    for p, scaling, epsilon, ratio in product(("2", "inf"), SCALINGS, epsilons, RATIOS):
        d = int(k * ratio)
        radius = epsilon if p == "2" else epsilon / math.sqrt(d)
        found = [
            gaussian_mixture_risks(draw_direction(k, norm, rng), draw_features(d, k, rng, scaling), radius, float(p))
            for rng in _streams(draws)
        ]
        row: dict[str, Value] = {"p": p, "scaling": scaling, "epsilon": epsilon, "ratio": ratio, "d": d}
        for name in ("standard_optimal_adversarial", "robust_optimal_standard", "robust_optimal_adversarial"):
            row |= _mean(name, [getattr(one, name) for one in found])
        row["standard_optimal_standard"] = found[0].standard_optimal_standard
        row |= _mean("tradeoff", [one.tradeoff for one in found]) | _mean("price", [one.price for one in found])
        rows.append(row)
    return Table(rows, {"k": k, "norm": norm, "draws": draws, "phi": "identity", "seeds": f"0 to {draws - 1}"})


def link_risks(epsilons: Sequence[float] = (0.25, 0.5, 1.0), k: int = 20, norm: float = 5.0, draws: int = 5) -> Table:
    """Average the risks of the generalised linear model with a logistic link against d/k, for both scalings of W."""
    rows: list[dict[str, Value]] = []
    for scaling, epsilon, ratio in product(SCALINGS, epsilons, RATIOS):
        d = int(k * ratio)
        found = [
            generalised_linear_risks(draw_direction(k, norm, rng), draw_features(d, k, rng, scaling), epsilon)
            for rng in _streams(draws)
        ]
        row: dict[str, Value] = {"scaling": scaling, "epsilon": epsilon, "ratio": ratio, "standard": found[0].standard}
        for name in ("adversarial", "best_linear_adversarial", "least_adversarial"):
            row |= _mean(name, [getattr(one, name) for one in found])
        rows.append(row)
    return Table(rows, {"k": k, "norm": norm, "draws": draws, "p": 2, "link": "logistic"})


def nonlinear(epsilon: float = 0.5, k: int = 10, norm: float = 2.0, draws: int = 8, samples: int = 500) -> Table:
    """Bracket the AR of two rules on a curved surface against d/k; W's entries N(0, 1/k).

    One rule is the standard-optimal one; the other has the weights that would be robust-optimal were phi the identity.
    For p = inf the radius is epsilon / sqrt(d), and the certified risk is the exact one.
    """
    rows: list[dict[str, Value]] = []
    for p, ratio in product(("2", "inf"), RATIOS[:-1]):
        d = int(k * ratio)
        radius = epsilon if p == "2" else epsilon / math.sqrt(d)
        found: dict[str, list[float]] = {}
        for seed, rng in enumerate(_streams(draws)):
            mu, features = draw_direction(k, norm, rng), draw_features(d, k, rng)
            robust = robust_shift(mu, features, radius, float(p)).weights
            for rule, theta in (("standard", None), ("robust", robust)):
                risks = nonlinear_risks(mu, features, radius, p=float(p), theta=theta, samples=samples, seed=seed)
                for name in ("standard", "attacked", "certified"):
                    found.setdefault(f"{rule}_rule_{name}", []).append(getattr(risks, name).value)
        row: dict[str, Value] = {"p": p, "ratio": ratio}
        for name, values in found.items():
            row |= _mean(name, values)
        rows.append(row)
    return Table(rows, {"epsilon": epsilon, "k": k, "norm": norm, "draws": draws, "samples": samples, "scaling": "1/k"})


def finite_samples(epsilon: float = 0.5, k: int = 10, norm: float = 2.0, draws: int = 10) -> Table:
    """Train logistic regression on n samples, standard and adversarially, against d/k; the risks are exact."""
    rows: list[dict[str, Value]] = []
    for n, ratio in product((100, 1000), RATIOS[:-1]):
        found: dict[str, list[float]] = {}
        for rng in _streams(draws):
            mu, features = draw_direction(k, norm, rng), draw_features(int(k * ratio), k, rng)
            y = rng.choice([-1.0, 1.0], n)
            x = (y[:, None] * mu + rng.standard_normal((n, k))) @ features.T
            for name, trained_at in (("standard", 0.0), ("adversarial", epsilon)):
                theta = fit_linear(x, y, trained_at).weights
                # Against a radius that no linear rule withstands, training returns next to nothing: guessing.
                pair = linear_risks(theta, mu, features, epsilon) if np.linalg.norm(theta) > 1e-9 else (0.5, 0.5)
                for kind, value in zip(("sr", "ar"), pair, strict=True):
                    found.setdefault(f"{name}_{kind}", []).append(value)
            best = gaussian_mixture_risks(mu, features, epsilon)
            found.setdefault("least_ar", []).append(best.robust_optimal_adversarial)
        row: dict[str, Value] = {"n": n, "ratio": ratio}
        for name, values in found.items():
            row |= _mean(name, values)
        rows.append(row)
    return Table(rows, {"epsilon": epsilon, "k": k, "norm": norm, "draws": draws, "scaling": "1/k", "p": 2})


def digit_risks(
    images: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    *,
    pair: tuple[int, int] = (3, 8),
    latent: Sequence[int] = (1, 2, 4, 8, 16, 32),
    epsilon: float = 0.5,
    samples: int = 600,
    draws: int = 3,
) -> Table:
    """Train on samples of mixtures of factor analysers fitted to two digits, against their latent dimension.

    ``images`` has shape (n, d) and values from 0 to 1, ``labels`` (n,); without them, scikit-learn's 8 x 8 digits. Two
    analysers a digit, equally many samples of each; risks on 2,000 fresh ones. A quadratic rule has d^2 weights: for
    MNIST's 784 pixels, average them down first, as :func:`mnist` does.
    """
    if images is None or labels is None:
        images, labels = load_digits(return_X_y=True)
        images = np.asarray(images) / 16
    x, y = numbers(images, 2, "the images"), numbers(labels, 1, "the labels")
    if len(x) != len(y):
        raise expected(f"{len(x)} labels, one an image", str(len(y)), "give as many labels as images")
    for digit in pair:
        if not np.any(y == digit):
            raise expected(f"images of the digit {digit}", "none", "choose a pair that the labels have")
    rows: list[dict[str, Value]] = []
    for k in latent:
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for seed, rng in enumerate(_streams(draws)):
            models = [fit_factor_analysers(x[y == digit], 2, k, seed=seed) for digit in pair]
            train, test = (
                (np.concatenate([model.sample(half, rng) for model in models]), np.repeat([-1.0, 1.0], half))
                for half in (samples // 2, 1000)
            )
            for training, trained_at in (("standard", 0.0), ("adversarial", epsilon)):
                rules: dict[str, Rule] = {
                    "linear": fit_linear(*train, trained_at),
                    "quadratic": fit_quadratic(*train, trained_at),
                }
                for name, rule in rules.items():
                    found.setdefault((name, training), []).append((risk(rule, *test), risk(rule, *test, epsilon)))
        for (name, training), pairs in found.items():
            row: dict[str, Value] = {"k": k, "rule": name, "training": training}
            standard, adversarial = zip(*pairs, strict=True)
            rows.append(row | _mean("standard", standard) | _mean("adversarial", adversarial))
    settings: dict[str, Value] = {"d": x.shape[1], "digits": " and ".join(map(str, pair)), "epsilon": epsilon}
    return Table(rows, settings | {"samples": samples, "draws": draws, "p": 2})


def mnist(path: Path, *, side: int = 14, limit: int = 20_000) -> tuple[Matrix, Vector]:
    """Load digits from whatever holds pictures: images (n, d) from 0 to 1, and labels (n,).

    Pictures of more than ``side`` pixels are averaged down over blocks, 28 x 28 to 14 x 14. The classes are to be named
    0 to 9, as subfolders or in a file. Raises InputError where they are not.
    """
    dataset = load(path, limit=limit)
    names = dataset.class_names
    if not all(name.isdecimal() and int(name) < 10 for name in names):
        raise expected("classes named 0 to 9", ", ".join(map(repr, names[:4])), "name the digits' folders or labels so")
    grey = dataset.images.mean(axis=3) / 255
    block = max(1, max(grey.shape[1:]) // side)
    rows, columns = (extent // block for extent in grey.shape[1:])
    blocks = grey[:, : rows * block, : columns * block].reshape(len(grey), rows, block, columns, block)
    return blocks.mean(axis=(2, 4)).reshape(len(grey), -1), np.array([float(name) for name in names])[dataset.labels]


def _streams(draws: int) -> list[np.random.Generator]:
    """Return a generator a draw. Raises InputError for fewer than two draws, which have no spread."""
    return [np.random.default_rng(seed) for seed in range(count(draws, 2, "a number of draws"))]


def _mean(name: str, values: Sequence[float]) -> dict[str, Value]:
    """Return the mean of some draws, and its standard error."""
    return {name: float(np.mean(values)), f"{name}_error": float(np.std(values, ddof=1) / math.sqrt(len(values)))}
