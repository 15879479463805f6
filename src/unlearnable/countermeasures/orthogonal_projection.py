"""Orthogonal projection: what a linear model can tell the classes apart by is taken out of the pictures.

Sandoval-Segura et al., "What Can We Learn from Unlearnable Datasets?", NeurIPS 2023 (arXiv 2305.19254), section 4:
removes additive noise of a class, which is linearly separable. CUDA is multiplicative.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures, pieces
from unlearnable.errors import expected

_BATCH: Final = 128


@countermeasures.register("orthogonal-projection")
@dataclass(frozen=True, kw_only=True)
class OrthogonalProjection(Countermeasure):
    """Train a linear model without bias on the pixels, and remove the span of its weights; training pictures alone.

    epochs, learning_rate: of plain SGD.
    """

    name: ClassVar[str] = "orthogonal-projection"
    main: ClassVar[str | None] = "epochs"
    epochs: int = 20
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 < self.learning_rate < np.inf:
            found = f"{self.epochs} and {self.learning_rate}"
            raise expected(
                "at least 1 epoch and a learning rate above 0", found, "choose 20 and 0.1, as the paper does"
            )

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        weights = linear_weights(published, self.epochs, self.learning_rate, generator)
        return project_out(published.images, weights)


def linear_weights(
    published: Published, epochs: int, learning_rate: float, generator: torch.Generator
) -> NDArray[np.float32]:
    """Train the linear model, on the 0 to 1 scale, from weights of zero; return (classes, samples of a picture)."""
    images = published.images.reshape(len(published.images), -1)
    labels = torch.from_numpy(published.labels.astype(np.int64))
    model = nn.Linear(images.shape[1], published.classes, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images), _BATCH):
            index = order[start : start + _BATCH]
            batch = torch.from_numpy(images[index.numpy()]) / 255
            loss = nn.functional.cross_entropy(model(batch), labels[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.weight.detach().numpy()


def project_out(images: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Take the span of the rows of ``weights`` out of every picture's difference from the mean picture.

    The paper takes it out of the picture itself, which then has values below black; for a model that comes after,
    the two differ by one constant picture.
    """
    basis = np.linalg.qr(weights.T.astype(np.float64))[0].astype(np.float32)
    mean = sum(images[part].sum(0, dtype=np.float64) for part in pieces(images)) / len(images)
    centre = np.asarray(mean, np.float32).ravel()

    def change(some: NDArray[np.uint8]) -> NDArray[Any]:
        flat = some.reshape(len(some), -1).astype(np.float32)
        return (flat - (flat - centre) @ basis @ basis.T).reshape(some.shape)

    return by_pieces(change, images)
