"""Noise: Gaussian, shot (Poisson), impulse (salt and pepper). Every value of a picture by itself."""

from typing import Final

import numpy as np

from unlearnable.attacks.corruptions.base import Corruption, Draws, Floats


def _added(images: Floats, noise: Floats, deviation: float) -> Floats:
    return images + noise


def _normal(chance: np.random.Generator, picture: Floats, deviation: float) -> Draws:
    return (chance.normal(0, deviation, picture.shape),)


def _counted(images: Floats, photons: Floats, most: float) -> Floats:
    return photons / most


def _poisson(chance: np.random.Generator, picture: Floats, most: float) -> Draws:
    """Count the photons of which a white value has ``most`` on average."""
    return (chance.poisson(picture * most),)


def _salted(images: Floats, grains: Floats, share: float) -> Floats:
    return np.where(np.isnan(grains), images, grains)


def _grains(chance: np.random.Generator, picture: Floats, share: float) -> Draws:
    """Draw 0 or 1 for a share of the values, and nothing, NaN, for the others."""
    hit = chance.random(picture.shape) < share
    return (np.where(hit, chance.integers(0, 2, picture.shape), np.nan),)


GAUSSIAN: Final = Corruption((0.04, 0.06, 0.08, 0.09, 0.10), _added, _normal)
SHOT: Final = Corruption((500, 250, 100, 75, 50), _counted, _poisson)
IMPULSE: Final = Corruption((0.01, 0.02, 0.03, 0.05, 0.07), _salted, _grains)
