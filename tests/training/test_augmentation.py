import numpy as np
import pytest
import torch
from torch import Tensor

from unlearnable.training.augmentation import (
    Augmentation,
    AutoAugment,
    CutMix,
    Cutout,
    Mixup,
    TrivialAugment,
    draw_moves,
    moved,
    shares,
)

CASES = [Cutout(), Mixup(), CutMix(), AutoAugment(), TrivialAugment()]
IDS = [type(case).__name__ for case in CASES]


def batch(count: int = 12, size: int = 9) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, size, size + 2, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(count) % 4


def seeded(augmentation: Augmentation, images: Tensor, labels: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return augmentation(images, labels, 4, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("augmentation", CASES, ids=IDS)
def test_contract(augmentation: Augmentation) -> None:
    images, labels = batch()
    before = images.clone()
    out, targets = seeded(augmentation, images, labels)
    assert torch.equal(images, before)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.equal(out, images)
    again, same = seeded(augmentation, images, labels)
    assert torch.equal(out, again)
    assert torch.equal(targets, same)
    assert not torch.equal(out, seeded(augmentation, images, labels, seed=1)[0])
    assert torch.allclose(shares(targets, 4).sum(1), torch.ones(len(images)))
    one, _ = seeded(augmentation, images[:1], labels[:1])
    assert one.shape == images[:1].shape


@pytest.mark.parametrize("flip", [False, True])
def test_moves_are_a_crop_of_the_reflected_picture_and_a_flip(flip: bool) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (30, 7, 9, 3), dtype=np.uint8)
    moves = draw_moves(30, 7, 9, crop=3, flip=flip, generator=torch.Generator().manual_seed(0))
    out = moved(torch.from_numpy(images), torch.arange(30), moves)
    assert out.shape == (30, 3, 7, 9)
    assert out.is_contiguous(memory_format=torch.channels_last)
    seen = set()
    for image, new in zip(images, out, strict=True):
        large = np.pad(image, ((3, 3), (3, 3), (0, 0)), "reflect")
        crops = {
            (y, x, mirrored): large[y : y + 7, x : x + 9][:, :: -1 if mirrored else 1]
            for y in range(7)
            for x in range(7)
            for mirrored in (False, True)
        }
        result = (new.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
        seen |= {place for place, crop in crops.items() if np.array_equal(crop, result)}
        assert any(np.array_equal(crop, result) for crop in crops.values())
    assert {mirrored for _, _, mirrored in seen} == ({False, True} if flip else {False})
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(7))


def test_cutout_covers_one_square_and_no_more() -> None:
    images = torch.ones(200, 1, 8, 8)
    out, labels = seeded(Cutout(share=0.5), images, torch.zeros(200, dtype=torch.int64))
    rows, columns = (out != 1).any(3)[:, 0], (out != 1).any(2)[:, 0]
    for image, row, column in zip(out[:, 0], rows, columns, strict=True):
        assert 2 <= row.sum() <= 4
        assert 2 <= column.sum() <= 4
        assert (image[row][:, column] != 1).all()
        assert (image != 1).sum() == row.sum() * column.sum()
    assert rows.any(0).all()
    assert (labels == 0).all()


def test_mixup_blends_pictures_and_labels_alike() -> None:
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 2, 2)  # each picture is its label
    out, targets = seeded(Mixup(alpha=1.0), images, torch.arange(4))
    assert torch.allclose(out[:, :, 0, 0], targets)
    assert ((targets > 0).sum(1) <= 2).all()
    spread = torch.stack([seeded(Mixup(alpha=1.0), images, torch.arange(4), seed)[1].amax() for seed in range(300)])
    assert 0.71 < spread[spread < 1].mean() < 0.79  # the larger of u and 1 - u; 1 where one is blended with itself


def test_cutmix_labels_go_by_the_area_pasted() -> None:
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 10, 10)
    kept = []
    for seed in range(200):
        out, targets = seeded(CutMix(), images, torch.arange(4), seed)
        assert torch.allclose(out.mean((2, 3)), targets, atol=1e-5)
        box = (out != images).any(1)
        for one in box[box.any((1, 2))]:
            assert one.sum() == one.any(0).sum() * one.any(1).sum()  # a rectangle
        kept.append(targets.diagonal().min())
    assert 0.5 < torch.stack(kept).mean() < 0.75  # half on average, more where the border cuts the rectangle


def test_labels_already_mixed_are_mixed_again() -> None:
    images, labels = batch(4)
    once, soft = seeded(Mixup(), images, labels)
    _, twice = seeded(CutMix(), once, soft, 1)
    assert torch.allclose(twice.sum(1), torch.ones(4))
