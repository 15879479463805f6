"""Randomized smoothing: a radius within which no change whatever turns the answer, proven by sampling.

Cohen, Rosenfeld, Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019 (arXiv 1902.02918):
the smoothed classifier answers what the network most often answers under Gaussian noise. Where it gives a class with
probability p or more, its answer stays the same within sigma times the p-quantile of the normal distribution, in L2
(theorem 1, with its bound on the second class of 1 - p).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from unlearnable.attacks.base import frozen
from unlearnable.errors import expected

ABSTAINED: Final = -1
"""In place of a class, where no class is proven to be the most frequent one."""


@dataclass(frozen=True)
class Certificate:
    """What is proven about the smoothed classifier.

    radii: (count,) float64, at least 0, L2 on the 0 to 1 scale, over all values of a picture: the answer is the same
        everywhere closer than this. 0 where it abstains.
    predicted: (count,) int64, the class that holds there, or :data:`ABSTAINED`.
    labels: (count,) int64, the true classes.
    """

    radii: NDArray[np.float64]
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]

    def certified_accuracy(self, radius: float) -> float:
        """Return the share of pictures, 0 to 1, named rightly and provably so out to this radius at least.

        >>> proven = Certificate(np.array([0.5, 1.0, 0.0]), np.array([3, 4, ABSTAINED]), np.array([3, 0, 7]))
        >>> proven.certified_accuracy(0.4), proven.certified_accuracy(0.6)
        (0.3333333333333333, 0.0)
        """
        return float(((self.predicted == self.labels) & (self.radii >= radius)).mean())


def certify(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    *,
    sigma: float,
    guesses: int = 100,
    samples: int = 100_000,
    alpha: float = 0.001,
    batch_size: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Certify each picture by algorithm CERTIFY (section 3.2.2). Same arguments, same device: same result.

    model: takes floats (count, channels, height, width) on the 0 to 1 scale, the noisy ones beyond it as well; best
        trained with noise of this sigma. Used in evaluation mode, at the precision of the autocast around the call if
        there is one, and left as it was found.
    images, labels: (count, height, width, channels) and (count,).
    sigma: standard deviation of the noise, on the 0 to 1 scale.
    guesses: noisy copies by which the class is chosen, n0 in the paper.
    samples: other copies by which its probability is bounded, n in the paper. They limit the largest radius there
        is: 3.81 sigma for 100,000.
    alpha: probability, for each picture, that what is proven does not hold.
    progress: called after each picture with how many are done, and how many there are.

    Raises InputError for numbers out of range.
    """
    if not 0 < sigma < math.inf:
        raise expected("a sigma above 0", str(sigma), "the usual ones are 0.12, 0.25, 0.5 and 1")
    if min(guesses, samples, batch_size) < 1:
        raise expected("at least 1 noisy copy", str(min(guesses, samples, batch_size)), "100 and 100,000 are usual")
    if not 0 < alpha < 1:
        raise expected("an alpha between 0 and 1", str(alpha), "0.001 is usual")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    radii, predicted = np.zeros(len(images)), np.full(len(images), ABSTAINED)
    with frozen(model), torch.inference_mode():
        for place, image in enumerate(images):
            picture = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1) / 255
            guess = int(_counts(model, picture, sigma, guesses, batch_size, generator).argmax())
            right = int(_counts(model, picture, sigma, samples, batch_size, generator)[guess])
            least = lower_bound(right, samples, alpha)
            if least > 0.5:
                radii[place], predicted[place] = sigma * stats.norm.ppf(least), guess
            if progress:
                progress(place + 1, len(images))
    return Certificate(radii, predicted, labels.astype(np.int64))


def lower_bound(right: int, total: int, alpha: float) -> float:
    """Return what a probability is at least, but for a chance of ``alpha``, by Clopper and Pearson (Biometrika 1934).

    >>> round(lower_bound(100_000, 100_000, 0.001), 6)
    0.999931
    """
    return float(stats.beta.ppf(alpha, right, total - right + 1)) if right else 0.0


def _counts(
    model: nn.Module, picture: Tensor, sigma: float, samples: int, batch_size: int, generator: torch.Generator
) -> Tensor:
    """Count the answers to noisy copies of a picture: (classes,)."""
    counts: Tensor | int = 0
    for start in range(0, samples, batch_size):
        shape = (min(batch_size, samples - start), *picture.shape)
        noise = torch.randn(shape, generator=generator, device=picture.device)
        logits = model(picture + sigma * noise)
        counts = counts + torch.bincount(logits.argmax(1), minlength=logits.shape[1])
    assert isinstance(counts, Tensor)  # noqa: S101 - for the type checker
    return counts
