"""D-VAE: what the class alone tells of a picture, once its outline is known, is taken out; the outline is what stays.

Yu, Wang, Xia, Yang, Lu, Tan, Kot, "Purify Unlearnable Examples via Rate-Constrained Variational Autoencoders", ICML
2024 (arXiv 2405.01460), written against every noise that is made to be learned: that can be predicted from the class. A
network that may keep few bits of a picture spends them on what pictures have in common; a second decoder is told the
class as well, and predicts what the first has left out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnable.countermeasures.base import Countermeasure, Published, countermeasures, pieces
from unlearnable.errors import expected
from unlearnable.training.chance import derived, generator, seeded
from unlearnable.training.precision import autocast, default_device
from unlearnable.training.schedule import rate

_RATES: Final = (1.0, 3.0)  # nats a pixel that the two networks may keep
_RATE_WEIGHT: Final = 0.01
_LOUDEST: Final = 0.002  # mean square, on the 0 to 1 scale, that what is predicted from the class may have at no cost
_LEARNING_RATE: Final = 0.002  # of Adam
_CLIP: Final = 5.0  # norm of the gradient
_BATCH: Final = 32
_WIDTH: Final = 32
_GROUPS: Final = 8  # of channels, normalised together
_CODE: Final = 32  # channels, for each 2 x 2 pixels


@countermeasures.register("d-vae")
@dataclass(frozen=True, kw_only=True)
class DisentanglingAutoencoder(Countermeasure):
    """Train two autoencoders one after the other, and publish what the second keeps; training pictures alone.

    The first may keep little, and what it predicts from the class is subtracted from the pictures. The second, trained
    on what that leaves, may keep more; its prediction is subtracted as well, and its outline of the rest is the result.

    epochs: passes of each training over the pictures.

    Raises FloatingPointError where a training diverges.
    """

    name: ClassVar[str] = "d-vae"
    main: ClassVar[str | None] = "epochs"
    epochs: int = 60

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise expected("at least 1 epoch", str(self.epochs), "choose 60, as the paper does")

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        images, labels = published.images, published.labels
        for nats in _RATES:
            seed = int(rng.integers(2**62))
            network = disentangling_network(images, labels, published.classes, nats, self.epochs, seed)
            images = _through(network, images, labels, lambda batch, parts: batch - parts.perturbation)
        return _through(network, images, labels, lambda _, parts: parts.outline)


class Parts(NamedTuple):
    """What pictures are taken apart into.

    outline, perturbation: (count, channels, height, width); pictures on the 0 to 1 scale, and what to add to them.
    rate: Kullback-Leibler divergence of the codes from a standard normal distribution, in nats a pixel.
    """

    outline: Tensor
    perturbation: Tensor
    rate: Tensor


class DisentanglingNetwork(nn.Module):
    """An encoder to a Gaussian code for each 2 x 2 pixels, and two decoders of it, one of which knows the class.

    size: (height, width). The paper's is larger, made of the parts of a ResNet-18; what else is different is told in
    ``docs/countermeasures.md``.
    """

    def __init__(self, classes: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        places = (-(-side // 2) for side in size)
        self.embedding = nn.Parameter(torch.randn(classes, _CODE, *places))
        self.encoder = _Convolutions(4 * channels, 2 * _CODE)
        self.outline = _Convolutions(_CODE, 4 * channels)
        self.perturbation = _Convolutions(2 * _CODE, 4 * channels)

    def forward(self, images: Tensor, labels: Tensor, chance: torch.Generator | None = None) -> Parts:
        """Take pictures, (count, channels, height, width) from 0 to 1, apart; by the codes' means without chance."""
        height, width = self.size
        even = F.pad(images - 0.5, (0, width % 2, 0, height % 2), mode="replicate")
        code, log_variance = self.encoder(F.pixel_unshuffle(even, 2)).float().chunk(2, 1)
        divergence = 0.5 * (code.square() + log_variance.exp() - 1 - log_variance)
        if chance is not None:
            normal = torch.randn(code.shape, generator=chance, device=code.device)
            code = code + normal * (0.5 * log_variance).exp()
        chosen = F.one_hot(labels, len(self.embedding)).to(code)  # gradients of an index may add in any order
        of_class = (chosen @ self.embedding.flatten(1)).reshape(-1, *self.embedding.shape[1:])
        told = torch.cat([code, of_class], 1)
        outline, perturbation = (
            F.pixel_shuffle(part.float(), 2)[:, :, :height, :width]
            for part in (self.outline(code), self.perturbation(told))
        )
        return Parts(outline + 0.5, perturbation, divergence.sum(1).mean() / 4)


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, _WIDTH), nn.ReLU()),
            *(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, _WIDTH)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


class _Convolutions(nn.Module):
    """A convolution, and a network beside it that adds to it: of two residual blocks, and nothing at the start."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.plain = nn.Conv2d(inputs, outputs, 3, padding=1)
        last = nn.Conv2d(_WIDTH, outputs, 3, padding=1, bias=False)
        nn.init.zeros_(last.weight)
        self.deep = nn.Sequential(nn.Conv2d(inputs, _WIDTH, 3, padding=1), nn.ReLU(), _Residual(), _Residual(), last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.plain(x) + self.deep(x)
        return out


def disentangling_network(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int, nats: float, epochs: int, seed: int
) -> DisentanglingNetwork:
    """Train a network to take pictures apart that keeps about so many nats a pixel; in evaluation.

    Both the outline and its sum with the perturbation are to be near the picture, in the mean square; so that what is
    left to the perturbation is what the class tells beyond the outline.
    """
    place = torch.device(default_device())
    its = torch.from_numpy(labels.astype(np.int64))
    with seeded(derived(seed, "network"), place):
        network = DisentanglingNetwork(classes, images.shape[3], (images.shape[1], images.shape[2])).to(place)
        optimizer = torch.optim.Adam(network.parameters())
        chance = generator(place, seed, "codes")
        batches = math.ceil(len(images) / _BATCH)
        for step in range(epochs * batches):
            epoch, number = divmod(step, batches)
            if number == 0:
                order = torch.randperm(len(images), generator=generator("cpu", seed, "order", epoch))
            index = order[number * _BATCH : (number + 1) * _BATCH]
            batch = torch.from_numpy(images[index.numpy()]).to(place).permute(0, 3, 1, 2) / 255
            with autocast(place, "auto"):
                parts = network(batch, its[index].to(place), chance)
            both = (parts.outline + parts.perturbation).clamp(0, 1)
            loss = F.mse_loss(parts.outline, batch) + F.mse_loss(both, batch)
            loss = loss + _RATE_WEIGHT * parts.rate.clamp_min(nats)
            loss = loss + parts.perturbation.square().mean().clamp_min(_LOUDEST)
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * rate("cosine", step, epochs * batches)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
            optimizer.step()
            if number == batches - 1 and not loss.isfinite():
                raise FloatingPointError(f"the loss of d-vae is {loss.item():g} after epoch {epoch + 1}")
    return network.eval()


def _through(
    network: DisentanglingNetwork,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    made: Callable[[Tensor, Parts], Tensor],
) -> NDArray[np.uint8]:
    """Make pictures of pictures and what the network takes them apart into; rounded and clipped."""
    place = torch.device(default_device())
    out = np.empty_like(images)
    for part in pieces(images):
        batch = torch.from_numpy(images[part].copy()).to(place).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            parts = network(batch, torch.from_numpy(labels[part].astype(np.int64)).to(place))
        changed = (255 * made(batch, parts)).round().clamp(0, 255)
        out[part] = changed.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
    return out
