"""AugMix against Pillow, operation by operation, and against its formulas, picture by picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from tests.training.small import dark_and_bright, tiny, weights
from unlearnable.attacks import frozen
from unlearnable.errors import InputError
from unlearnable.training import augmix
from unlearnable.training.augmix import OPERATIONS, AugMix, divergence_of_views, draw, mixed
from unlearnable.training.bullettrain import BOUNDARY, OUTLIER, ROBUST, BulletTrain, grouped, signed_spread
from unlearnable.training.loop import train
from unlearnable.training.meter import GradientMeter
from unlearnable.training.recipes import named

pytestmark = pytest.mark.usefixtures("one_thread")


def chance(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_pillow(name: str, picture: Image.Image, level: float, sign: int) -> Image.Image:
    """The authors' operations, as their paper's code for CIFAR states them, on a scale of 10."""
    width, height = picture.size

    def affine(*coefficients: float) -> Image.Image:
        return picture.transform(picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)

    match name:
        case "autocontrast":
            return ImageOps.autocontrast(picture)
        case "equalize":
            return ImageOps.equalize(picture)
        case "posterize":
            return ImageOps.posterize(picture, 4 - int(4 * level / 10))
        case "solarize":
            return ImageOps.solarize(picture, 256 - int(256 * level / 10))
        case "rotate":
            return picture.rotate(sign * int(30 * level / 10), Image.Resampling.BILINEAR)
        case "shear_x":
            return affine(1, sign * 0.3 * level / 10, 0, 0, 1, 0)
        case "shear_y":
            return affine(1, 0, 0, sign * 0.3 * level / 10, 1, 0)
        case "translate_x":
            return affine(1, 0, sign * int(width / 3 * level / 10), 0, 1, 0)
        case "translate_y":
            return affine(1, 0, 0, 0, 1, sign * int(height / 3 * level / 10))
    raise AssertionError(name)


def pictures(count: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Smooth ones, of few levels or many, and flat ones: uint8, (count, height, width, channels)."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        coarse = rng.integers(40, 200, (4, 4, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))
        if number % 5 == 3:
            picture = (picture // 64) * 64  # few levels: equalize has steps of 0 or few
        if number % 5 == 4:
            picture = np.full_like(picture, 7 * number)
        made.append(picture[:, :, :channels])
    return np.stack(made)


def tensor_of(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


def as_pillow(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture if picture.shape[2] == 3 else picture[:, :, 0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (12, 17)], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
def test_every_operation_is_pillows(operation, size: tuple[int, int], channels: int) -> None:
    images = pictures(20, channels, size)
    levels = torch.empty(20).uniform_(0.1, 10, generator=chance())
    signs = torch.where(torch.arange(20) % 2 == 0, 1, -1)
    found = operation(tensor_of(images), levels / 10, signs).permute(0, 2, 3, 1)
    wanted = np.stack(
        [
            np.asarray(of_pillow(operation.__name__, as_pillow(image), level, sign)).reshape(image.shape)
            for image, level, sign in zip(images, levels.tolist(), signs.tolist(), strict=True)
        ]
    )
    apart = np.abs(found.numpy() - wanted)
    # A level, from the last bit of a bilinear mean or of Pillow's table; never a pixel of the border more or less.
    assert (found == found.round()).all()
    assert apart.max() <= 1
    assert (apart > 0).mean() < (
        0.05 if operation.__name__ in ("rotate", "shear_x", "shear_y", "autocontrast") else 1e-9
    )
    few = operation.__name__ == "equalize" and size == (12, 17)  # pixels, for 255 steps: Pillow leaves them alone
    assert few or (found.numpy() != images).any()


def test_the_operations_that_resemble_the_corruptions_are_left_out() -> None:
    assert {one.__name__ for one in OPERATIONS} == {
        *("autocontrast", "equalize", "posterize", "rotate", "solarize"),
        *("shear_x", "shear_y", "translate_x", "translate_y"),
    }


def test_draws_have_the_distributions_of_the_paper() -> None:
    draws = draw(20_000, 3.0, chance())
    assert draws.weights.sum(1).allclose(torch.ones(20_000))
    assert draws.weights.mean(0) == pytest.approx(torch.full((3,), 1 / 3), abs=0.01)
    assert draws.weights.var(0) == pytest.approx(torch.full((3,), 1 / 18), abs=0.003)  # of Dirichlet(1, 1, 1)
    assert draws.shares.mean() == pytest.approx(0.5, abs=0.01)
    assert draws.shares.var() == pytest.approx(1 / 12, abs=0.003)
    assert draws.levels.min() >= 0.1
    assert draws.levels.max() <= 3
    assert draws.levels.mean() == pytest.approx(1.55, abs=0.01)
    assert [(draws.depths == depth).float().mean().item() for depth in (1, 2, 3)] == pytest.approx(
        [1 / 3] * 3, abs=0.01
    )
    assert draws.kinds.unique().tolist() == list(range(9))
    assert draws.signs.unique().tolist() == [-1, 1]


def test_a_view_is_the_mixture_of_its_chains() -> None:
    images, count = pictures(30), 30
    draws = draw(count, 3.0, chance())
    found = mixed(tensor_of(images) / 255, draws)
    far = []
    for i in range(count):
        mixture = np.zeros((32, 32, 3))
        for chain in range(3):
            picture = Image.fromarray(images[i])
            for step in range(int(draws.depths[i, chain])):
                name = OPERATIONS[draws.kinds[i, chain, step]].__name__
                picture = of_pillow(
                    name, picture, draws.levels[i, chain, step].item(), int(draws.signs[i, chain, step])
                )
            mixture += draws.weights[i, chain].item() * np.asarray(picture) / 255
        share = draws.shares[i].item()
        wanted = (1 - share) * images[i] / 255 + share * mixture
        far.append(np.abs(found[i].permute(1, 2, 0).numpy() - wanted))
    # At a threshold, an operation may turn a level by which another was off into many.
    assert np.median(np.max(far, (1, 2, 3))) < 1 / 255
    assert np.mean(far) < 0.2 / 255
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_view_does_not_depend_on_the_others() -> None:
    images, draws = tensor_of(pictures(12)) / 255, draw(12, 3.0, chance())
    which = torch.tensor([7, 2, 11])
    assert torch.equal(mixed(images[which], draws.of(which)), mixed(images, draws)[which])


def slow_divergence(logits: np.ndarray) -> list[float]:
    """(views, count, classes), from the formula."""
    found = []
    for i in range(logits.shape[1]):
        shares = np.exp(logits[:, i]) / np.exp(logits[:, i]).sum(1, keepdims=True)
        middle = np.clip(shares.mean(0), 1e-7, 1)
        found.append(np.mean([sum(p * np.log(p / m) for p, m in zip(one, middle, strict=True)) for one in shares]))
    return found


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("views", [2, 3])
def test_divergence_against_its_formula(views: int, classes: int) -> None:
    logits = (2 * torch.randn(views, 7, classes, dtype=torch.float64, generator=chance())).requires_grad_()
    assert divergence_of_views(logits).tolist() == pytest.approx(slow_divergence(logits.detach().numpy()), rel=1e-10)
    assert torch.autograd.gradcheck(divergence_of_views, logits)
    same = logits[:1].expand(views, -1, -1)
    assert divergence_of_views(same).tolist() == pytest.approx([0] * 7, abs=1e-12)


def network(classes: int = 3, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, classes)
    ).double()
    with torch.no_grad():
        made[4].weight *= 12
    return made.train()


def small(count: int = 24, channels: int = 3) -> Tensor:
    return (tensor_of(pictures(count, channels, (8, 8))) / 255).double()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_whole_loss(smoothing: float) -> None:
    images, labels = small(), torch.arange(24) % 3
    model, seen = network(), []
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    loss, logits = AugMix()(model, images, labels, smoothing, chance())
    assert [len(one) for one in seen] == [3 * 24]  # one batch
    draws = draw(48, 3.0, chance())
    both = torch.cat([images, mixed(images.repeat(2, 1, 1, 1), draws)])
    assert torch.equal(seen[0], both)
    every = network()(both)
    wanted = functional.cross_entropy(every[:24], labels, label_smoothing=smoothing).item()
    wanted += 12 * np.mean(slow_divergence(every.detach().numpy().reshape(3, 24, 3)))
    assert loss.item() == pytest.approx(wanted, rel=1e-9)
    assert torch.equal(logits, every[:24])
    soft = functional.one_hot(labels, 3).double()
    assert AugMix()(network(), images, soft, smoothing, chance()).loss.item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("given", [(0, 2, 0), (0, 2, 1), (1, 1, 2), (0, 0, 0)], ids=str)
def test_every_group_gets_its_views(given: tuple[int, int, int]) -> None:
    images, rule = small(), BulletTrain(views=given, gamma=0.7)
    with frozen(network()) as _, torch.no_grad():
        said = network().eval()(images)
    labels = torch.where(torch.arange(24) % 3 == 0, (said.argmax(1) + 1) % 3, said.argmax(1))
    objective, memory = rule.over(named("augmix").objective)
    memory.accuracy.fill_(0.4)
    model, seen = network(), []
    meter = GradientMeter(model)
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0]) if module.training else None)
    loss, _ = objective(model, images, labels, 0.0, chance())

    group = grouped(signed_spread(said, labels), torch.tensor(0.4)).tolist()
    assert set(group) == {OUTLIER, BOUNDARY, ROBUST}
    drawn = mixed(images.repeat(2, 1, 1, 1), draw(48, 3.0, chance()))
    batch, places = list(images), {}
    for number in range(2):
        for i in range(24):
            if given[group[i]] > number:
                places[i, number] = len(batch)
                batch.append(drawn[number * 24 + i])
    assert torch.equal(seen[0], torch.stack(batch))
    assert meter.count == len(batch)
    logits = network()(torch.stack(batch)).detach()
    wanted, right = functional.cross_entropy(logits[:24], labels).item(), 0
    for i in range(24):
        of = [places[i, number] for number in range(given[group[i]])]
        wanted += 12 / 24 * slow_divergence(logits[[i, *of]].numpy()[:, None])[0]
        right += all(logits[place].argmax() == labels[i] for place in of) if of else said[i].argmax() == labels[i]
    assert loss.item() == pytest.approx(wanted, rel=1e-9)
    assert memory.split == (group.count(OUTLIER), group.count(BOUNDARY), group.count(ROBUST))
    assert memory.accuracy.item() == pytest.approx(0.9 * 0.4 + 0.1 * 0.7 * int(right) / 24)


def test_where_all_get_both_views_training_is_the_plain_one() -> None:
    data = dark_and_bright()
    plain = named("augmix", epochs=2, batch_size=16, crop=2, learning_rate=0.05)
    alike = replace(plain, accelerate=BulletTrain(views=(2, 2, 2)))
    faster = replace(plain, accelerate=BulletTrain())
    first, second, third = (train(data, model=tiny, recipe=one, seed=3) for one in (plain, alike, faster))
    assert torch.equal(weights(first.model), weights(second.model))
    assert first.gradients == second.gradients == 2 * 40 * 3
    assert third.gradients == 2 * 40 + 2 * sum(split.boundary for split in third.splits)
    assert not torch.equal(weights(first.model), weights(third.model))


@pytest.mark.parametrize("accelerate", [None, BulletTrain()])
@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (3, 3)])
def test_grey_pictures_of_two_classes_and_no_batch_normalisation(classes: int, channels: int, accelerate) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes)).double()
    objective = named("augmix").objective
    if accelerate is not None:
        objective, _ = accelerate.over(objective)
    loss, _ = objective(model, small(6, channels), torch.zeros(6, dtype=torch.int64), 0.0, chance())
    loss.backward()
    assert loss.isfinite()
    assert model[1].weight.grad.isfinite().all()


def test_what_is_out_of_range_is_an_error() -> None:
    for severity in (0, 11, float("nan")):
        with pytest.raises(InputError, match=r"expected a severity from 0\.1 to 10"):
            named("augmix", severity=severity)
    with pytest.raises(InputError, match="expected a weight of 0 or more"):
        named("augmix", weight=-1.0)
    for views in ((0, 3, 0), (0, 2)):
        with pytest.raises(InputError, match="expected three numbers of views from 0 to 2"):
            BulletTrain(views=views)
    objective, _ = BulletTrain().over(named("augmix").objective)
    with pytest.raises(InputError, match="expected one class a picture"):
        objective(network(), small(4), torch.full((4, 3), 1 / 3, dtype=torch.float64), 0.0, chance())


def test_all_the_constants_of_the_paper() -> None:
    assert (augmix.CHAINS, augmix.DEPTH, augmix.VIEWS) == (3, 3, 2)
    assert named("augmix").objective == AugMix(severity=3.0, weight=12.0)
