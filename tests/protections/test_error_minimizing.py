"""The loop of the noise family: what a step costs, which gradient it follows, what it leaves alone, how it goes on."""

import json
import math
import os
import shutil
import signal
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.training.small import tiny, weights
from unlearnable import Key
from unlearnable.attacks.masked import MaskedPGD
from unlearnable.attacks.pgd import PGD
from unlearnable.budgets import Linf
from unlearnable.errors import InputError
from unlearnable.pictures.dataset import Dataset
from unlearnable.protections import _bilevel, protections
from unlearnable.protections._bilevel import Member, UniformNoise, Unperturbed, fit_noise, optimised
from unlearnable.protections.countered import Countered
from unlearnable.protections.crop_flip import CropFlip
from unlearnable.protections.error_maximizing import TAP, Decoy
from unlearnable.protections.error_minimizing import EM, REM, SEM
from unlearnable.protections.masking import masked
from unlearnable.protections.noise import Noise
from unlearnable.protections.settings import PRESETS, Settings
from unlearnable.protections.stability import stability
from unlearnable.training.meter import GradientMeter
from unlearnable.training.objectives import Adversarial, CrossEntropy

pytestmark = pytest.mark.usefixtures("one_thread")

RADIUS = Linf.of_255(8)
SMALL = Settings(model="tiny", steps=6, batch_size=8, noise_steps=2, samples=2, inner_steps=5)


def pictures(count=20, size=8, classes=2):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    labels = np.arange(count, dtype=np.int64) % classes
    return Dataset(images, labels, tuple("abcdef"[:classes]), tuple(f"{n:03}" for n in range(count)))


DATA = pictures()
METHODS = {"em": EM, "rem": REM, "sem": SEM}


def fitted(kind=SEM, data=DATA, settings=SMALL, **options):
    inner = options.pop("inner", {})
    options = {"network": tiny, "seed": 5, "radius": RADIUS, "precision": "float32"} | options
    member = kind(steps=settings.steps, **inner).member(8)
    return fit_noise(data, member=member, settings=settings, **options)


@pytest.mark.parametrize(("kind", "passes"), [(SEM, 61), (REM, 561), (EM, 11)])
def test_a_step_costs_what_the_formula_says(kind, passes):
    """At the CIFAR-10 settings: SEM K J + A + 1, REM K J (A + 1) + A + 1, EM K + 1."""
    method = kind(preset="paper", steps=1, model="resnet9-w16", batch_size=4)
    data = pictures(4)
    made = fit_noise(
        data, network=tiny, member=method.member(8), settings=method.settings(), radius=RADIUS, seed=0, per_class=False
    )
    step, last = method.member(8).passes(method.settings())
    assert step == passes
    by_class = last * 4  # one class after the other: two with two pictures each
    assert made.gradients == 4 * passes + 4 * last + by_class


def test_what_a_step_costs_is_counted_example_by_example():
    one = fitted(settings=replace(SMALL, steps=1))
    two = fitted(settings=replace(SMALL, steps=2))
    step = 2 * 2 + 5 + 1
    first_batches = [len(part) for part in torch.arange(20).tensor_split(3)]
    assert two.gradients - one.gradients == step * first_batches[1]


def test_sem_is_rem_where_the_inner_radius_is_zero():
    sem, rem = (fitted(kind, inner={"inner_radius": 0}) for kind in (SEM, REM))
    assert np.array_equal(sem.patterns, rem.patterns)
    assert np.array_equal(sem.by_class, rem.by_class)
    assert not np.array_equal(fitted(SEM).patterns, fitted(REM).patterns)


class Linear(nn.Module):
    """Logits linear in the picture, so that its gradient is known; nothing to train."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 3).double()

    def forward(self, images):
        return self.layer(images.flatten(1))


class Fixed:
    """Disturbs by the same amount every time, so that two ways of computing see the same."""

    def __call__(self, model, images, labels, generator):
        return (images + torch.linspace(-0.02, 0.02, images[0].numel()).reshape(images[0].shape)).clamp(0, 1)


@pytest.mark.parametrize("countered", [None, Countered()])
@pytest.mark.parametrize("per_group", [False, True])
@pytest.mark.parametrize("ascend", [False, True])
def test_noise_follows_the_straight_through_gradient(per_group, ascend, countered):
    """One step against autograd through transformation, what scrapers do and range, the disturbance a constant."""
    torch.manual_seed(0)
    network = Linear()
    images = torch.rand(5, 3, 8, 8, dtype=torch.float64)
    images[0, 0, 0, :4] = torch.tensor([0.0, 1.0, 0.01, 0.99])
    labels = torch.tensor([0, 1, 2, 0, 1])
    owner = labels if per_group else None
    start = (torch.rand(3 if per_group else 5, 3, 8, 8, dtype=torch.float64) - 0.5) / 16
    transform = CropFlip(padding=2)
    member = Member(perturb=Fixed(), objective=None, transform=transform, countered=countered, ascend=ascend)
    made = optimised(
        network,
        images,
        labels,
        start,
        member=member,
        steps=1,
        samples=3,
        step_size=0.004,
        radius=8 / 255,
        chance=torch.Generator().manual_seed(3),
        owner=owner,
    )
    noise = start.clone().requires_grad_()
    views = (images + (noise if owner is None else noise[owner])).clamp(0, 1)
    chance = torch.Generator().manual_seed(3)
    views = transform.apply(views, transform.draw(15, 8, 8, chance))
    if countered:
        views = countered(views, labels.repeat(3), chance)
    disturbance = (Fixed()(network, views, None, None) - views).detach()
    functional.cross_entropy(network(views + disturbance), labels.repeat(3)).backward()
    sign = 1 if ascend else -1
    wanted = (start + sign * 0.004 * noise.grad.sign()).clamp(-8 / 255, 8 / 255)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-15)
    if not countered:  # which spreads what one sample does over all others
        assert (noise.grad == 0).any()  # beyond the range or outside every cut-out: stays


def test_noise_goes_where_finite_differences_point():
    torch.manual_seed(1)
    network = Linear()
    images, labels = torch.rand(2, 3, 8, 8, dtype=torch.float64) * 0.8 + 0.1, torch.tensor([0, 2])
    start = torch.zeros_like(images)
    made = optimised(
        network,
        images,
        labels,
        start,
        member=Member(perturb=Unperturbed(), objective=None, transform=None),
        steps=1,
        samples=1,
        step_size=0.001,
        radius=8 / 255,
        chance=torch.Generator(),
    )

    def loss(values):
        with torch.no_grad():
            return functional.cross_entropy(network(values), labels, reduction="sum").item()

    for place in [(0, 0, 0, 0), (0, 2, 3, 7), (1, 1, 5, 5), (1, 0, 7, 2)]:
        up, down = images.clone(), images.clone()
        up[place] += 1e-5
        down[place] -= 1e-5
        slope = (loss(up) - loss(down)) / 2e-5
        assert made[place].item() == pytest.approx(-0.001 * math.copysign(1, slope))


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_how_many_samples_go_at_once_decides_nothing_but_memory(monkeypatch, copies):
    """Exact here: the linear network sums in the same way for any batch."""
    torch.manual_seed(0)
    network = Linear()
    images, labels = torch.rand(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    member = Member(perturb=Unperturbed(), objective=None, transform=None)
    options = {"member": member, "steps": 3, "samples": 5, "step_size": 0.004, "radius": 8 / 255}
    whole = optimised(network, images, labels, torch.zeros_like(images), chance=torch.Generator(), **options)
    monkeypatch.setattr(_bilevel, "_AT_ONCE_ELSEWHERE", copies * 4 * 64)
    meter = GradientMeter(network)
    parts = optimised(network, images, labels, torch.zeros_like(images), chance=torch.Generator(), **options)
    assert torch.equal(whole, parts)
    assert meter.count == 3 * 5 * 4


@pytest.mark.parametrize("kind", METHODS.values())
def test_noise_and_attack_leave_the_network_as_it_was(kind):
    network = tiny()
    network.train()
    network[0].weight.requires_grad_(False)
    before = weights(network).clone()
    images = torch.rand(6, 3, 8, 8)
    optimised(
        network,
        images,
        torch.tensor([0, 1] * 3),
        torch.zeros_like(images),
        member=kind(inner_radius=4).member(8) if kind is not EM else EM().member(8),
        steps=2,
        samples=2,
        step_size=0.01,
        radius=8 / 255,
        chance=torch.Generator().manual_seed(0),
    )
    assert torch.equal(weights(network), before)
    assert all(module.training for module in network.modules())
    assert [parameter.requires_grad for parameter in network.parameters()] == [False] + [True] * 5


def test_running_statistics_move_once_a_step():
    made = fitted()
    assert int(made.model[1].num_batches_tracked) == SMALL.steps
    assert not made.model.training


@pytest.mark.parametrize("levels", [1, 2.5, 8, 16])
@pytest.mark.parametrize("kind", METHODS.values())
def test_radius_holds(kind, levels):
    made = fitted(kind, radius=Linf.of_255(levels))
    noise = np.concatenate([made.patterns, made.by_class]).astype(int)
    assert abs(noise).max() == int(levels)
    protected = DATA.images + made.patterns.astype(int)
    assert abs(protected.clip(0, 255) - DATA.images.astype(int)).max() <= levels


@pytest.mark.parametrize("kind", METHODS.values())
def test_masked_noise_is_as_loud_as_each_place_allows(kind):
    images = DATA.images.copy()
    images[:, :, :4] = 128 + images[:, :, :4] // 64  # nearly even on the left
    data = replace(DATA, images=images)
    made = fitted(kind, data=data, masking=1)
    most = masked(images, 8, 1)[..., None].astype(int)
    loud = abs(made.patterns.astype(int))
    assert (loud <= most).all()
    assert (loud == most).mean() > 0.3
    assert loud[:, :, :2].max() < 8 < loud[:, :, 6:].max()
    assert abs(made.by_class.astype(int)).max() == 8  # which knows no places


def test_each_step_of_masked_noise_goes_by_its_place():
    data = pictures(4)
    one = fitted(EM, data=data, settings=replace(SMALL, noise_steps=1, samples=1), masking=2)
    most = masked(data.images, 8, 2)[..., None].astype(int)
    inside = (data.images >= most) & (data.images <= 255 - most)  # where noise is not cut off, and so has a slope
    assert (abs(one.patterns.astype(int)) == most)[inside].mean() > 0.99
    assert inside.mean() > 0.5


def test_masked_noise_starts_anywhere_that_its_place_allows():
    indifferent = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    nn.init.zeros_(indifferent[1].weight)
    member = replace(EM().member(8), objective=None)
    data = pictures(40)
    options = {"member": member, "settings": SMALL, "radius": RADIUS, "seed": 0, "masking": 2}
    made = fit_noise(data, network=lambda: indifferent, **options)
    share = made.patterns / masked(data.images, 8, 2)[..., None]
    assert np.quantile(share, [0.05, 0.5, 0.95]) == pytest.approx([-0.9, 0, 0.9], abs=0.05)


def test_the_surrogate_learns_from_masked_noise_as_loud_as_it_is():
    shown = []

    class Watching(CrossEntropy):
        def __call__(self, model, images, *others):
            shown.append(images)
            return super().__call__(model, images, *others)

    member = replace(EM().member(8), objective=Watching())
    settings = replace(SMALL, steps=1, batch_size=len(DATA))
    fit_noise(DATA, network=tiny, member=member, settings=settings, radius=RADIUS, seed=0, masking=2)
    clean = torch.from_numpy(DATA.images).permute(0, 3, 1, 2) / 255
    changes = 255 * (shown[0][:, None] - clean).flatten(2).abs().amax(2).amin(1)  # of each from what it comes from
    assert changes.max() == pytest.approx(32, abs=1e-3)


def test_disturbances_stay_in_their_ball_and_in_range():
    images = torch.rand(4, 3, 8, 8)
    out = UniformNoise(budget=Linf.of_255(4))(nn.Identity(), images, None, torch.Generator().manual_seed(0))
    assert 0 <= out.min() <= out.max() <= 1
    assert (out - images).abs().max() <= 4 / 255 + 1e-7
    assert (out - images).abs().mean() == pytest.approx(2 / 255, rel=0.1)  # uniform


def test_last_pass_writes_every_picture_once(monkeypatch):
    """Batches of 7, 7 and 6: the last, smaller one is not left out."""
    written = []
    one = _bilevel._Fit._noise

    def seen(self, model, index, images, labels, held, purpose, number):
        noise = one(self, model, index, images, labels, held, purpose, number)
        if purpose == "last pass":
            written.extend((255 * images[:, 0, 0, 0]).round().int().tolist())
        return noise

    images = DATA.images.copy()
    images[:, 0, 0, 0] = np.arange(20)
    monkeypatch.setattr(_bilevel._Fit, "_noise", seen)
    made = fitted(data=replace(DATA, images=images))
    assert written == list(range(20))
    assert (abs(made.patterns).reshape(20, -1).max(1) > 0).all()


def test_last_pass_is_with_the_last_surrogate():
    """The patterns that are kept are what the surrogate at the end gives, and it gives them again."""
    made = fitted()
    again = fit_noise(
        DATA,
        network=lambda: made.model,
        member=replace(SEM().member(8), objective=None),
        settings=SMALL,
        radius=RADIUS,
        seed=5,
        precision="float32",
    )
    assert np.array_equal(made.patterns, again.patterns)
    assert np.array_equal(made.by_class, again.by_class)


def test_noise_a_class():
    made = fitted(per_class=True)
    assert made.patterns.shape == (0, 8, 8, 3)
    assert made.by_class.shape == (2, 8, 8, 3)
    assert not np.array_equal(made.by_class[0], made.by_class[1])
    assert made.gradients == (2 + 5 + 1) * sum([7, 7, 6] * 2) + 2 * 20  # one sign step a batch
    assert SEM().member(8).passes(SMALL, per_class=True) == (8, 2)


@pytest.mark.parametrize("kind", METHODS.values())
@pytest.mark.parametrize("per_class", [False, True])
def test_noise_makes_the_loss_small(kind, per_class):
    settings = replace(SMALL, steps=30, noise_steps=5)
    made = fitted(kind, settings=settings, per_class=per_class)
    noise = made.by_class[DATA.labels] if per_class else made.patterns
    protected = (DATA.images + noise.astype(int)).clip(0, 255).astype(np.uint8)
    found = stability(made.model, DATA.images, protected, DATA.labels, budget=Linf.of_255(4))
    assert found.protected < found.clean
    assert max(found.protected, found.random) < found.adversarial
    assert found.rise == (found.random - found.protected, found.adversarial - found.protected)


def run_in(state, **options):
    return fitted(state=state, about={"method": "SEM"}, **options)


class StopError(Exception):
    pass


@pytest.mark.parametrize(
    ("at", "per_class", "masking"),
    [*product([1, 4, 6, 7, 8, 9, 10], [False, True], [0]), (4, False, 1), (8, False, 1)],
)
def test_killed_anywhere_it_goes_on_to_the_same_bits(tmp_path, monkeypatch, at, per_class, masking):
    monkeypatch.setattr(_bilevel, "_SAVE_SECONDS", 0)
    whole = fitted(per_class=per_class, masking=masking)

    def stop(status):
        if status.done == at:
            raise StopError  # as rude as kill -9: what has been done since the last save is lost

    if at < 6 + 3 + 2 * (not per_class):
        with pytest.raises(StopError):
            run_in(tmp_path, progress=stop, per_class=per_class, masking=masking)
    again = run_in(tmp_path, per_class=per_class, masking=masking)
    assert np.array_equal(again.patterns, whole.patterns)
    assert np.array_equal(again.by_class, whole.by_class)
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.gradients == whole.gradients


def test_ctrl_c_is_written_down_after_the_step(tmp_path):
    asked = []

    def press(status):
        asked.append(status)
        if status.done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, progress=press)
    assert asked[-1].done in (4, 5)
    again = run_in(tmp_path, progress=asked.append)
    assert [status.done for status in asked] == list(range(1, 12))
    assert all(status.total == 11 and status.seconds_left >= 0 and 25 < status.psnr < 60 for status in asked)
    assert [status.gradients for status in asked] == sorted({status.gradients for status in asked})
    assert np.array_equal(again.patterns, fitted().patterns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": replace(SMALL, samples=3)}, "samples 3"),
        ({"radius": Linf.of_255(4)}, "radius 0.0156"),
        ({"kind": REM}, "member_perturb"),
        ({"seed": 6}, "seed"),
        ({"data": pictures(21)}, "ids"),
        ({"masking": 1}, "masking 1"),
    ],
)
def test_going_on_with_other_options_is_refused(tmp_path, options, message):
    run_in(tmp_path)
    with pytest.raises(InputError, match=f"expected a run started with {message}"):
        run_in(tmp_path, **options)


def test_noise_file_of_another_shape_is_refused(tmp_path):
    np.save(tmp_path / "noise.npy", np.zeros((3, 8, 8, 3), np.int8))
    with pytest.raises(
        InputError, match=r"expected noise of shape \(20, 8, 8, 3\).*found int8 of shape \(3, 8, 8, 3\)"
    ):
        run_in(tmp_path)
    (tmp_path / "noise.npy").write_bytes(b"no noise")
    with pytest.raises(InputError, match="expected the noise of this run"):
        run_in(tmp_path)


def test_too_small_a_disk_is_said_before_work_starts(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000))
    begun = []
    with pytest.raises(InputError, match=r"MB of room on the disk for the noise, found 0\.0 MB"):
        run_in(tmp_path, progress=begun.append)
    assert not begun
    assert not (tmp_path / "noise.npy").exists()


def test_too_small_a_disk_is_said_before_a_surrogate_is_trained(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000))
    built = []
    with pytest.raises(InputError, match="MB of room on the disk for the noise"):
        run_in(tmp_path, network=lambda: built.append(1) or tiny())
    assert not built


def test_what_the_run_writes_beside_the_noise_needs_room_too(tmp_path, monkeypatch):
    """Noise a class takes none, but the network does, four times over."""
    usage = shutil.disk_usage(tmp_path)
    needed = 4 * sum(tensor.nbytes for tensor in tiny().state_dict().values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(InputError, match="MB of room on the disk for the noise"):
        run_in(tmp_path, per_class=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    run_in(tmp_path, per_class=True)


def test_numbers_that_are_none_stop_it():
    with pytest.raises(FloatingPointError, match="choose another --model or --seed"):
        fitted(EM, settings=replace(SMALL, learning_rate=1e30))


def test_gradients_that_are_no_numbers_stop_it():
    """A surrogate that is spoilt would leave the noise as chance had it: the sign of such a gradient is 0."""
    network = tiny()
    network[0].weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="the gradient that noise is made with is no number any more"):
        fit_noise(DATA, network=lambda: network, member=TAP().member(8), settings=SMALL, radius=RADIUS, seed=0)


class Dead(nn.Module):
    """A network that cannot learn."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return (0 * self.weight * images.flatten(1).sum(1))[:, None].expand(-1, 2)


def test_a_surrogate_that_does_not_learn_stops_it(monkeypatch):
    monkeypatch.setattr(_bilevel, "_ENOUGH", 2)
    done = []
    with pytest.raises(InputError, match=r"a surrogate that .* found 0\.693 after 3 steps, about as by guessing"):
        fitted(EM, network=Dead, progress=done.append)
    assert len(done) == 2  # at half the steps, not at the end


def test_halfway_less_is_asked_of_a_surrogate(monkeypatch):
    """With many classes it begins slowly: 0.985 of the loss of guessing is enough halfway, and not in the end."""
    monkeypatch.setattr(_bilevel, "_ENOUGH", 2)
    monkeypatch.setattr(_bilevel, "guessing", lambda labels: math.log(2) / 0.985)
    with pytest.raises(InputError, match=r"a loss below 0\.690\), found 0\.693 after 6 steps"):
        fitted(EM, network=Dead)


def test_one_class_alone_cannot_be_protected():
    with pytest.raises(InputError, match="expected pictures of two classes at least, found 10 of 1"):
        fitted(data=DATA.select(np.arange(0, 20, 2)))


def test_a_class_with_one_picture_is_refused():
    with pytest.raises(InputError, match="expected two pictures of each class at least, found one of 'b'"):
        fitted(data=DATA.select(np.array([0, 2, 4, 6, 7])))


@pytest.mark.parametrize("per_class", [False, True])
def test_a_class_without_pictures_gets_no_noise(per_class):
    """What it would start from is chance, which protects nothing and looks like noise."""
    made = fitted(data=replace(DATA, class_names=("a", "b", "c")), per_class=per_class)
    assert [noise.any() for noise in made.by_class] == [True, True, False]


SURE = {"model": "resnet9-w16", "steps": 2, "noise_steps": 2, "samples": 1, "batch_size": 10}


def test_method_goes_on_from_its_folder_and_ends_there(tmp_path, key):
    method = SEM(**SURE)
    noise = method.fit(DATA, key, state=tmp_path / "state")
    assert isinstance(noise.patterns, np.memmap)
    assert not (tmp_path / "state" / "noise.npy").exists()
    assert np.array_equal(noise.patterns, method.fit(DATA, key).patterns)
    told = []
    again = method.fit(DATA, key, state=tmp_path / "state", progress=told.append)  # nothing left to do
    assert not told
    assert np.array_equal(noise.patterns, again.patterns)
    with pytest.raises(InputError, match=r"\(steps 2\), found steps 3: start it with the same options"):
        replace(method, steps=3).fit(DATA, key, state=tmp_path / "state")
    with pytest.raises(InputError, match=r"\(method SEM\), found method REM"):
        REM(**SURE).fit(DATA, key, state=tmp_path / "state")
    with pytest.raises(InputError, match=r"expected the options of the run .*\(key .*\), found key"):
        method.fit(DATA, Key(bytes(32)), state=tmp_path / "state")
    with pytest.raises(InputError, match=r"\(pictures 20 with digest .*\), found pictures 19 with digest"):
        method.fit(DATA.select(np.arange(19)), key, state=tmp_path / "state")
    secrets = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert key.secret not in secrets
    seed = int.from_bytes(key.derive("noise", "SEM", {"seed": 0}), "little")
    assert str(seed).encode() not in secrets
    assert json.loads((tmp_path / "state" / "options.json").read_bytes())["key"] == key.check_value


def test_too_little_memory_on_a_gpu_is_said_in_a_line(tmp_path, key, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more")

    monkeypatch.setattr(_bilevel._Fit, "_one", full)
    with pytest.raises(InputError, match="found too little for resnet9-w16 and a canvas of 8 pixels: choose"):
        SEM(**SURE).fit(DATA, key, state=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_samples_are_taken_or_refused():
    with pytest.raises(InputError, match="expected one sample a step for em, found 2"):
        protections.create("em", samples=2)
    assert [TAP(samples=samples).settings().samples for samples in (None, 3)] == [1, 3]


def test_order_of_pictures_and_classes_decides_nothing(key, rng):
    noise = SEM(**SURE).fit(DATA, key)
    order = rng.permutation(20)
    shuffled = DATA.select(order)
    swapped = replace(shuffled, labels=1 - shuffled.labels, class_names=("b", "a"))
    again = SEM(**SURE).fit(swapped, key)
    assert again.ids == noise.ids == tuple(sorted(DATA.ids))
    assert np.array_equal(again.patterns, noise.patterns)
    assert not np.array_equal(SEM(**SURE, seed=1).fit(DATA, key).patterns, noise.patterns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0}, "a radius from 1 to 127 grey levels .* found 0"),
        ({"radius": 256}, "a radius from 1 to 127 grey levels .* found 256"),
        ({"inner_radius": 256}, "a radius of the inner perturbation from 0 to 255 grey levels .* found 256"),
        ({"inner_radius": -1}, "found -1"),
        ({"against": "all"}, "noise against crops or countermeasures.*'all'"),
        ({"preset": "fsat"}, "one of the presets fast, paper, strong, found 'fsat'"),
        ({"steps": 0}, "steps of 1 or more, found 0"),
        ({"batch_size": 2}, "batch_size of 3 or more, found 2"),
        ({"per": "folder"}, "noise per picture or per class, found 'folder'"),
        ({"size": 4}, "a canvas of 8 to 512 pixels, found 4"),
        ({"size": 513}, "a canvas of 8 to 512 pixels, found 513"),
        ({"masking": -0.5}, "masking from 0 to 2, found -0.5"),
        ({"masking": 2.5}, "masking from 0 to 2, found 2.5"),
        ({"masking": 1, "per": "class"}, "noise per picture, with masking, found noise per class"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        protections.create("sem", **options)


def test_presets_are_the_papers():
    paper = PRESETS["paper"]
    assert (paper.model, paper.steps, paper.batch_size) == ("resnet18", 5000, 128)
    member = SEM(preset="paper").member(32)
    assert member.transform == CropFlip(padding=4)
    assert member.perturb == UniformNoise(budget=Linf.of_255(4))
    step_size = 2 * Linf.of_255(4).radius / 10
    assert step_size == pytest.approx(0.8 / 255)
    assert member.objective == Adversarial(attack=PGD(budget=Linf.of_255(4), steps=10, step_size=step_size))
    assert EM().member(32).objective == CrossEntropy()


@pytest.mark.parametrize("kind", [REM, SEM, Decoy])
def test_masked_noise_is_made_against_what_is_masked_likewise(kind):
    made = kind(preset="paper", masking=1, inner_radius=6)
    masked_attack = MaskedPGD(budget=Linf.of_255(6), steps=10, masking=1)
    member = made.member(32)
    assert member.perturb == (masked_attack if kind is REM else UniformNoise(budget=Linf.of_255(6), masking=1))
    assert (made.training()[0].objective if kind is Decoy else member.objective).attack == masked_attack
    assert kind(masking=1, inner_radius=0).member(32).perturb == Unperturbed()


def test_chance_goes_with_contrast_if_it_is_masked():
    images = torch.rand(4, 3, 32, 32)
    images[..., :16] = 0.5
    chance = UniformNoise(budget=Linf.of_255(4), masking=1)
    change = chance(nn.Identity(), images, None, torch.Generator().manual_seed(0)) - images
    assert change[..., :12].abs().max() == pytest.approx(2 / 255, rel=0.01)
    assert 8 / 255 < change[..., 20:].abs().max() <= 16 / 255 + 1e-7


def test_a_radius_is_described():
    assert SEM(radius=8).parameters()["radius"] == 8


def test_class_names_alone_are_not_enough(key):
    class Names:
        class_names = ("a", "b")

    with pytest.raises(InputError, match="expected pictures to make noise for, found class names alone"):
        SEM().fit(Names(), key)
    with pytest.raises(InputError, match="expected square pictures, found 6 x 8"):
        SEM().fit(replace(DATA, images=DATA.images[:, :, :6]), key)


def test_noise_of_what_comes_later_is_its_class(key):
    noise = SEM(**SURE).fit(DATA, key)
    assert isinstance(noise, Noise)
    out = noise.apply(DATA.images[:1], DATA.labels[:1], ["new"])
    assert np.array_equal(out[0], (DATA.images[0] + noise.by_class[0].astype(int)).clip(0, 255))


@pytest.mark.parametrize("kind", [SEM, REM])
def test_noise_against_countermeasures_is_made_through_them(kind):
    member = kind(against="countermeasures").member(32)
    assert member.countered == Countered()
    assert kind().member(32).countered is None
    crops, countered, again = (
        fitted(kind, inner={"against": against}) for against in ("crops", "countermeasures", "countermeasures")
    )
    assert not np.array_equal(crops.patterns, countered.patterns)
    assert not torch.equal(weights(crops.model), weights(countered.model))
    assert np.array_equal(countered.patterns, again.patterns)
    assert countered.gradients == crops.gradients


def test_runs_and_descriptions_of_before_there_was_a_choice_hold(tmp_path, key):
    assert not {"against", "masking"} & set(SEM(**SURE).parameters())
    assert "masking" not in Decoy().parameters()
    assert all(kind(masking=0.5).parameters()["masking"] == 0.5 for kind in (EM, SEM, TAP, Decoy))
    assert SEM(**SURE, against="countermeasures").parameters()["against"] == "countermeasures"
    state = tmp_path / "run"
    made = SEM(**SURE).fit(DATA, key, state=state)
    options = json.loads((state / "options.json").read_text())
    del options["against"], options["masking"]
    (state / "options.json").write_text(json.dumps(options))
    assert np.array_equal(SEM(**SURE).fit(DATA, key, state=state).patterns, made.patterns)
    with pytest.raises(InputError, match=r"against crops.*found against countermeasures"):
        SEM(**SURE, against="countermeasures").fit(DATA, key, state=state)
    assert made.masking == 0
    assert SEM(**SURE, masking=1).fit(DATA, key, state=tmp_path / "masked").masking == 1
    with pytest.raises(InputError, match=r"masking 0.*found masking 1"):
        SEM(**SURE, masking=1).fit(DATA, key, state=state)
