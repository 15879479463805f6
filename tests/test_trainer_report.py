"""The page of a training run: what is on it, and that it needs nothing else."""

import re

import pytest

from tests.audit.test_report import Page
from unlearnable.trainer import TrainReport
from unlearnable.trainer_report import About, page
from unlearnable.training.checkpoint import Epoch
from unlearnable.training.recipes import named

EVIL = "unlearnable train '<script>alert(1)</script>' --out $x"
ABOUT = {
    "pictures": 1600,
    "test_pictures": 500,
    "classes": 10,
    "size": (32, 24, 3),
    "seed": 3,
    "precision": "float32",
    "parameters": 12345,
    "settings": named("trades", epochs=4).spec(),
    "attacked": False,
    "machine": {
        "unlearnable": "0.1",
        "torch": "2.9",
        "python": "3.11",
        "system": "Linux",
        "processor": "",
        "threads": "2",
    },
    "command": EVIL,
}


def report(count: int = 4, **more: object) -> TrainReport:
    history = [Epoch(n, 2.0 / n, 0.2 + 0.1 * n, 1.5) for n in range(1, count + 1)]
    given = {
        "checkpoint": "network.safetensors",
        "recipe": "trades",
        "accelerate": None,
        "model": "resnet9-w16",
        "epochs": count,
        "clean_accuracy": 0.512,
        "interval": (0.46, 0.55),
        "seconds": 9.0,
        "gradients": 1600 * count * 12,
        "history": history,
    }
    return TrainReport(**given | more)


def judged(count: int = 4, best: int = 2) -> TrainReport:
    shares = [{"outlier": 0.5 - 0.1 * n, "boundary": 0.3, "robust": 0.2 + 0.1 * n} for n in range(count)]
    history = [
        epoch._replace(held_out=0.4 if epoch.number == best else 0.3, **share)
        for epoch, share in zip(report(count).history, shares, strict=True)
    ]
    chosen = {"best_epoch": best, "held_out": 0.4, "judged_by": "pgd10, Linf 8/255", "held_out_pictures": 400}
    return report(count, accelerate="bullettrain", history=history, **chosen)


CASES = {"plain": report(), "judged": judged(), "one epoch": report(1), "many epochs": judged(4)}


@pytest.mark.parametrize("run", CASES.values(), ids=CASES)
def test_the_page_nests_and_needs_nothing_else(run: TrainReport) -> None:
    text = page(run, About(**ABOUT))
    found = Page(text)
    assert "script" not in found.tags
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in found.attributes)
    assert not re.search(r"://|@import|url\(", text)
    assert EVIL in found.text


def test_a_plain_run_in_words_and_numbers() -> None:
    found = Page(page(report(), About(**ABOUT)))
    assert "51.2 % of the test pictures named rightly" in found.text
    assert "A resnet9-w16, trained with trades on 1,600 pictures of 10 classes, had to name 500" in found.text
    assert "95 % interval 46.0 to 55.0 %, one seed" in found.text
    assert "The last of 4 epochs was kept. Test pictures chose nothing." in found.text
    assert "76,800 pictures passed forward and backward: 12.00 times each picture an epoch" in found.text
    assert "1,600 of 24 x 32 pixels, in colour" in found.text
    assert "6 seconds of training" in found.text
    assert "objective beta6" in found.text
    assert found.rows()[0] == ["Epoch", "Loss", "Accuracy", "Seconds"]
    assert found.rows()[2] == ["2", "1.0000", "40.0 %", "1.5"]
    assert "held out" not in found.text.lower()


def test_what_was_held_out_and_how_pictures_were_sorted() -> None:
    text = page(judged(), About(**ABOUT))
    found = Page(text)
    assert "trained with trades and bullettrain" in found.text
    assert "Of 4 epochs the 2nd was kept: the best by 400 pictures held out of the training set, of which it names" in (
        found.text
    )
    assert "40.0 % rightly, under pgd10, Linf 8/255. Test pictures chose nothing." in found.text
    assert found.rows()[0] == ["Epoch", "Loss", "Accuracy", "Held out", "Outliers", "Boundary", "Robust", "Seconds"]
    assert found.rows()[2] == ["2", "1.0000", "40.0 %", "40.0 %", "40.0 %", "30.0 %", "30.0 %", "1.5"]
    for kind in ("training", "held", "robust", "boundary", "outlier"):
        assert f'<polyline class="curve {kind}"' in text
    assert '<tr class="kept"><td>2</td>' in text
    assert 'x1="33.33%"' in text  # of four epochs, the second


def test_what_a_transformation_cost_is_told_apart() -> None:
    told = "attacks included; 64,000 through the external network"
    assert told in Page(page(report(external_gradients=64000), About(**ABOUT))).text
    assert "external" not in Page(page(report(), About(**ABOUT))).text


def test_without_a_command_none_is_told() -> None:
    assert "To have it all again" not in page(report(), About(**ABOUT | {"command": None}))


@pytest.mark.parametrize("attacked", [True, False])
def test_it_says_whether_the_training_accuracy_is_under_attack(attacked: bool) -> None:
    text = page(report(), About(**ABOUT | {"attacked": attacked}))
    assert ("training pictures under attack, augmented" in text) == attacked
