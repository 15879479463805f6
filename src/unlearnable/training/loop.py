"""The training loop: pictures held in memory, augmented a batch at a time, SGD on a one-cycle schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Precision = Literal["auto", "float32", "bfloat16"]
"""Of the arithmetic; "auto" is bfloat16 wherever the device is built for it. Weights are always float32."""

_WARM_UP: Final = 0.25  # share of the steps in which the learning rate rises
_NORMAL_95: Final = 1.959964  # quantile of the normal distribution for a two-sided 95 % interval


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run, beside the pictures, the network and the seed.

    learning_rate: the highest; it rises linearly from 0 over the first quarter of the steps and falls to 0 again.
    crop: pictures are shifted by up to this many pixels, at random, and filled up by reflection.
    flip: whether pictures are mirrored at random, left to right.
    """

    epochs: int
    batch_size: int = 512
    learning_rate: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop: int = 4
    flip: bool = True


class Accuracy(NamedTuple):
    """Right answers out of all.

    >>> accuracy = Accuracy(right=30, total=100)
    >>> accuracy.share, [round(bound, 3) for bound in accuracy.interval()]
    (0.3, [0.219, 0.396])
    """

    right: int
    total: int

    @property
    def share(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.right / self.total

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the share by Wilson's score method (JASA 1927)."""
        z2 = _NORMAL_95**2
        centre = (self.right + z2 / 2) / (self.total + z2)
        wrong = self.total - self.right
        half = _NORMAL_95 * math.sqrt(self.right * wrong / self.total + z2 / 4) / (self.total + z2)
        return max(0.0, centre - half), min(1.0, centre + half)


class Moves(NamedTuple):
    """Where each pixel of an augmented batch comes from: (count, height) rows and (count, width) columns."""

    rows: Tensor
    columns: Tensor


def draw_moves(count: int, height: int, width: int, recipe: Recipe, generator: torch.Generator) -> Moves:
    """Draw a random shift, and a mirroring where the recipe asks for it, for each of ``count`` pictures."""

    def shifted(size: int) -> Tensor:
        shift = torch.randint(-recipe.crop, recipe.crop + 1, (count, 1), generator=generator)
        index = (torch.arange(size) + shift).abs()
        return size - 1 - (size - 1 - index).abs()  # with abs above: reflected at both borders

    rows, columns = shifted(height), shifted(width)
    if recipe.flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    return Moves(rows, columns)


def train(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    *,
    model: Callable[[], nn.Module],
    recipe: Recipe,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train a classifier with cross-entropy. Same arguments, same machine, as many threads: same numbers.

    images, labels: (count, height, width, channels) and (count,).
    model: builds the network, which takes floats on the 0 to 1 scale; called under the seed.
    device: of PyTorch; a GPU where there is one, if not given.
    progress: called after each epoch with its number, from 1, and its mean loss.

    Raises FloatingPointError when the loss is no longer a number.
    """
    place = torch.device(device or default_device())
    pictures, targets = _held(images, place), torch.from_numpy(labels.astype(np.int64)).to(place)
    height, width = images.shape[1:3]
    if recipe.crop >= min(height, width):
        raise ValueError(f"expected a crop below the pictures' {height} x {width} pixels, got {recipe.crop}")
    draws = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same batches
    batches = math.ceil(len(images) / recipe.batch_size)
    steps = recipe.epochs * batches
    with (
        torch.random.fork_rng([place] if place.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        network = model().to(place).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )
        loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        for epoch in range(recipe.epochs):
            total = torch.zeros((), device=place)
            # Sizes differ by one picture at most: a small last batch would upset batch normalisation.
            for batch, index in enumerate(torch.randperm(len(images), generator=draws).tensor_split(batches)):
                optimizer.param_groups[0]["lr"] = recipe.learning_rate * one_cycle(epoch * batches + batch, steps)
                moves = draw_moves(len(index), height, width, recipe, draws)
                index = index.to(place)
                with _autocast(place, precision):
                    loss = loss_of(network(_moved(pictures, index, moves)), targets[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(index)
            mean = total.item() / len(images)
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} in epoch {epoch + 1}: lower the learning rate")
            if progress:
                progress(epoch + 1, mean)
    return network.eval()


def evaluate(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    *,
    precision: Precision = "auto",
    batch_size: int = 1000,
) -> Accuracy:
    """Count the pictures that a trained model names rightly; as they are, with no augmentation."""
    place = next(model.parameters()).device
    model.eval()
    right = 0
    with torch.inference_mode(), _autocast(place, precision):
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            predicted = model(_held(images[part], place).permute(0, 3, 1, 2) / 255).argmax(1)
            right += int((predicted.cpu().numpy() == labels[part]).sum())
    return Accuracy(right, len(images))


def one_cycle(step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the highest.

    >>> [round(one_cycle(step, 8), 2) for step in range(8)]
    [0.5, 1.0, 0.86, 0.71, 0.57, 0.43, 0.29, 0.14]
    """
    rising = math.ceil(_WARM_UP * steps)
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising + 1)


def default_device() -> str:
    """Name the GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _held(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"expected pictures as (count, height, width, channels) in uint8, found {images.dtype} of {images.shape}"
        )
    return torch.from_numpy(np.ascontiguousarray(images)).to(device)


def _moved(pictures: Tensor, index: Tensor, moves: Moves) -> Tensor:
    """Gather a batch, each pixel from where the moves say: floats on the 0 to 1 scale, channels last in memory."""
    rows, columns = moves.rows.to(pictures.device), moves.columns.to(pictures.device)
    batch = pictures[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    return batch.permute(0, 3, 1, 2) / 255


def _autocast(device: torch.device, precision: Precision) -> torch.autocast:
    wanted = precision == "bfloat16" or (precision == "auto" and _has_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; where it is emulated, float32 is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # of PyTorch 2.10 and later
    return device.type == "cpu" and any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
