"""Pruning: how much is cut off and what, that it stays off, and what is left standing in files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.training.small import dark_and_bright
from unlearnable.errors import InputError
from unlearnable.models import build
from unlearnable.training.checkpoint import Network, load_network, plain_network, save_network
from unlearnable.training.recipes import named
from unlearnable.training.rsr.costs import layer_costs
from unlearnable.training.rsr.noise import inject_noise, noise_off, strengths
from unlearnable.training.rsr.pruning import fine_tune, prune, reestimate
from unlearnable.training.rsr.sparse import described, pack, unpack
from unlearnable.training.rsr.weights import places

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = dark_and_bright()
ABOUT = Network(model="resnet9-w16", class_names=("dark", "bright"), channels=3, size=8, training={})


def network(*, noise: bool) -> nn.Module:
    torch.manual_seed(0)
    made = build("resnet9-w16", classes=2, size=8)
    return inject_noise(made) if noise else made


def values(network: nn.Module) -> Tensor:
    return torch.cat([place.kept.flatten() for place in places(network)])


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.85, 0.999])
def test_the_smallest_weights_of_all_layers_together_go(sparsity: float, noise: bool) -> None:
    pruned = network(noise=noise)
    before = values(pruned).numpy()
    share = prune(pruned, sparsity)
    after = values(pruned).numpy()
    assert abs((after == 0).sum() - sparsity * len(before)) <= 1
    assert share == (after == 0).mean()
    kept = np.sort(np.abs(before))[round(sparsity * len(before)) :].min()
    np.testing.assert_array_equal(after, np.where(np.abs(before) >= kept, before, 0))


@pytest.mark.parametrize("noise", [False, True])
def test_memory_order_does_not_matter(noise: bool) -> None:
    plain, other = (network(noise=noise) for _ in range(2))
    other.to(memory_format=torch.channels_last)  # as networks come out of training
    assert prune(plain, 0.85) == prune(other, 0.85)
    assert torch.equal(values(plain), values(other))


def test_zeros_that_the_lasso_made_go_too() -> None:
    pruned = network(noise=True)
    with torch.no_grad():
        for place in places(pruned):
            place.values[:, ::2] = 0
    zeros = float((values(pruned) == 0).float().mean())
    assert prune(pruned, 0.1) == pytest.approx(zeros) != 0.1


def test_noise_is_nowhere_that_a_weight_is_cut_off() -> None:
    pruned = network(noise=True)
    prune(pruned, 0.85)
    pruned(torch.rand(2, 3, 8, 8)).sum().backward()
    for place in places(pruned):
        off = place.kept == 0
        first, second = place.layer.weight, place.layer.weight
        assert (first[off] == 0).all()
        assert (first[~off] != second[~off]).all()
        assert (place.values.grad[off] == 0).all()


def test_training_on_keeps_zeros_and_trains_the_rest() -> None:
    pruned = network(noise=True)
    prune(pruned, 0.85)
    before = values(pruned)
    recipe = named("adversarial", steps=2, batch_size=10, crop=1, noise=True, lasso=1e-4)
    trained = fine_tune(pruned, DATA, recipe, 2, seed=1)
    after = values(pruned)
    assert trained.model is pruned
    assert ((after == 0) >= (before == 0)).all()
    assert (after != before)[before != 0].float().mean() > 0.9


def test_statistics_are_the_mean_over_an_epoch_and_weights_stay() -> None:
    pruned = network(noise=False)
    prune(pruned, 0.5)
    before = values(pruned)
    recipe = named("erm", batch_size=10, crop=0, flip=False)
    reestimate(pruned, DATA, recipe, precision="float32")
    assert torch.equal(values(pruned), before)
    # The first layer's input is the picture itself: its statistics in closed form, over all batches.
    first, norm = pruned.features[0][0], pruned.features[0][1]
    images = (torch.from_numpy(DATA.images).permute(0, 3, 1, 2) / 255 - 0.45) / 0.25
    wanted = first(images).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, wanted, rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1


def test_a_pruned_network_comes_back_from_its_file(tmp_path: Path) -> None:
    pruned = network(noise=True)
    share = prune(pruned, 0.85)
    about = Network(**vars(ABOUT) | {"noise": True, "sparsity": share})
    images = torch.rand(3, 3, 8, 8)
    pruned.eval()
    for sparse in (False, True):
        save_network(tmp_path / "network.safetensors", pruned, about, sparse=sparse)
        back, said = load_network(tmp_path / "network.safetensors")
        assert said == about
        assert torch.equal(values(back), values(pruned))
        assert all(torch.equal(*pair) for pair in zip(strengths(back), strengths(pruned), strict=True))
        with noise_off(back), noise_off(pruned):
            assert torch.equal(back(images), pruned(images))
        for place in places(back):
            assert (place.layer.weight[place.kept == 0] == 0).all()
        with pytest.raises(InputError, match="expected a network that is not pruned, found one that is"):
            prune(back, 0.9)
    plain = plain_network(pruned, about)
    with noise_off(pruned):
        torch.testing.assert_close(plain(images), pruned(images))
    assert sorted(plain.state_dict()) == sorted(build("resnet9-w16", classes=2).state_dict())


def test_a_pruned_network_without_noise_is_a_plain_file(tmp_path: Path) -> None:
    pruned = network(noise=False)
    share = prune(pruned, 0.85)
    save_network(tmp_path / "network.safetensors", pruned, Network(**vars(ABOUT) | {"sparsity": share}))
    plain = build("resnet9-w16", classes=2)
    plain.load_state_dict(load_file(tmp_path / "network.safetensors"))
    images = torch.rand(3, 3, 8, 8)
    assert torch.equal(plain.eval()(images), pruned.eval()(images))


def test_a_sparse_file_is_a_fraction_of_the_dense_one(tmp_path: Path) -> None:
    pruned = network(noise=True)
    about = Network(**vars(ABOUT) | {"noise": True, "sparsity": prune(pruned, 0.85)})
    save_network(tmp_path / "dense.safetensors", pruned, about)
    save_network(tmp_path / "sparse.safetensors", pruned, about, sparse=True)
    ratio = (tmp_path / "sparse.safetensors").stat().st_size / (tmp_path / "dense.safetensors").stat().st_size
    assert ratio <= 0.25


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 5),
        torch.tensor(7),
        torch.tensor([0.0, float("nan"), float("inf"), 1e-40]),
        torch.empty(0, 3),
        torch.randn(4, 3, 3, 3).mul(torch.rand(4, 3, 3, 3) > 0.5).to(memory_format=torch.channels_last),
    ],
    ids=lambda tensor: str(tuple(tensor.shape)),
)
def test_packed_tensors_come_back(tensor: Tensor) -> None:
    packed = pack(tensor)
    back = unpack(packed, *described(tensor))
    assert (packed.dtype, back.dtype) == (torch.uint8, tensor.dtype)
    torch.testing.assert_close(back, tensor, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "dtype", "shape"),
    [
        (lambda packed: packed[:-5], "float32", [50]),
        (lambda packed: packed.flip(0), "float32", [50]),
        (lambda packed: packed, "float32", [49]),
        (lambda packed: packed, "float32", [80]),
        (lambda packed: packed, "float32", [10**12]),
        (lambda packed: packed, "load", [50]),
        (lambda packed: packed[:0], "float32", [50]),
    ],
)
def test_damaged_ones_are_told(change, dtype: str, shape: list[int]) -> None:
    packed = pack(torch.arange(50.0) - 20)
    with pytest.raises(InputError, match="expected a compressed tensor, found"):
        unpack(change(packed), dtype, shape)


def test_multiply_adds_are_those_that_are_made() -> None:
    made = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Flatten(), nn.Linear(6 * 16, 5), nn.Identity()
    )
    made.train()
    prune(made, 0.5)
    costs = layer_costs(made, channels=4, size=8)
    # By hand: each of the 6 x 16 outputs of the convolution is a sum of 2 x 9 products.
    assert [(cost.layer, cost.weights, cost.multiply_adds) for cost in costs] == [
        ("0", 6 * 18, 6 * 16 * 18),
        ("2", 480, 480),
    ]
    assert [cost.kept for cost in costs] == [int(place.kept.count_nonzero()) for place in places(made)]
    assert costs[0].remaining == 16 * costs[0].kept
    assert costs[1].sparsity == 1 - costs[1].kept / 480
    assert made.training


def test_costs_of_a_network_of_the_zoo_agree_with_pytorchs_counter() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    made = inject_noise(build("mobilenetv2", classes=3, size=16)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(torch.rand(1, 3, 16, 16))
    assert 2 * sum(cost.multiply_adds for cost in layer_costs(made, channels=3, size=16)) == counter.get_total_flops()


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_out_of_range(sparsity: float) -> None:
    with pytest.raises(InputError, match="expected a sparsity from 0 to below 1, found"):
        prune(network(noise=False), sparsity)


def test_nothing_to_prune_and_pruned_already() -> None:
    with pytest.raises(InputError, match="expected a network with convolutions or linear layers"):
        prune(nn.Sequential(nn.BatchNorm2d(3)), 0.5)
    pruned = network(noise=False)
    prune(pruned, 0.5)
    with pytest.raises(InputError, match="expected a network that is not pruned, found one that is"):
        prune(pruned, 0.6)
