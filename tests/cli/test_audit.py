"""``unlearnable audit`` as its user meets it."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.audit.small import dataset, folders, write
from tests.conftest import in_process
from unlearnable.audit import run as audit_run
from unlearnable.audit.store import read_rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def command(tmp_path):
    places = folders(tmp_path)
    sets = ["--clean", places["clean"], "--protected", f"cuda={places['protected']}", "--test", places["test"]]
    return ["audit", *map(str, sets), "--out", str(tmp_path / "run")]


SHORT = (
    "--recipe",
    "erm",
    "--countermeasure",
    "none",
    "--countermeasure",
    "grayscale",
    "--epochs",
    4,
    "--batch-size",
    8,
)


def test_json_is_one_object_with_what_is_promised(command, tmp_path):
    code, out, err = in_process(*command, *SHORT, "--json")
    assert code == 0
    found = json.loads(out)
    assert {"verdict", "learnability", "interval", "broken_by", "clean_accuracy", "chance", "rows"} <= found.keys()
    assert found["verdict"] == "protected"
    assert [(row["protection"], row["countermeasure"]) for row in found["rows"]] == [
        ("clean", "none"),
        ("cuda", "none"),
        ("cuda", "grayscale"),
    ]
    assert {"fraction", "recipe", "model", "seed", "accuracy"} <= found["rows"][0].keys()
    assert len(re.findall(r"% +(?:clean|cuda): .*, erm, resnet9-w16, seed 0 \(\d+ s\)", err)) == 3
    spec = json.loads((tmp_path / "run" / "spec.json").read_text())
    assert spec["command"].startswith(f"unlearnable audit --clean {tmp_path}/clean --protected cuda=")


def test_words_tell_the_verdict_first(command):
    code, out, _ = in_process(*command, *SHORT, "--fraction", "0.5")
    assert code == 0
    lines = out.splitlines()
    assert re.fullmatch(
        r"cuda: PROTECTED\. Of what the clean pictures teach, a scraper learns -?\d+\.\d % \(95 .*one seed\)\.",
        lines[0],
    )
    assert lines[1].startswith("  strongest: ")
    assert "; clean pictures 100.0 %, guessing 50.0 %" in lines[1]
    assert lines[2].startswith("cuda, 50 % of it protected: ")
    assert lines[-1].startswith("7 runs in ")


def test_where_nothing_is_learned_nothing_is_decided(command, tmp_path):
    # Labels without any relation to the pictures.
    for name, seed in (("clean", 3), ("test", 4)):
        write(tmp_path / name, dataset(24 if name == "clean" else 20, seed=seed, shade=0))
    code, out, _ = in_process(*command, *SHORT)
    assert code == 0
    assert out.startswith("cuda: UNDECIDED. Not even the clean pictures teach anything (")


def test_a_plan_lists_the_runs_and_their_time(command, tmp_path):
    code, out, _ = in_process(*command, *SHORT, "--seeds", 2, "--plan")
    assert code == 0
    assert out.splitlines()[0].endswith("clean, none, erm, resnet9-w16, seed 0")
    assert re.search(r"^6 runs of 6 to do: about .*, one after another\.$", out, re.MULTILINE)
    assert not (tmp_path / "run").exists()
    assert "search" not in out
    code, out, _ = in_process(*command, *SHORT, "--plan", "--search", 9)
    assert out.splitlines()[-1] == "The search, 9 runs on each set, comes on top."
    code, out, _ = in_process(*command, *SHORT, "--plan", "--json")
    found = json.loads(out)
    assert len(found["cells"]) == 3
    assert found["seconds"] > 0


def test_a_search_tells_the_worst_composition(command, monkeypatch):
    monkeypatch.setattr("unlearnable.audit.api._parts", lambda bench: ["grayscale", "jpeg"])
    code, out, _ = in_process(*command, "--recipe", "erm", "--epochs", 1, "--search", 4)
    assert code == 0
    assert re.search(r"^cuda: worst composition found: .*, erm: \d+\.\d % \(\d+\.\d to \d+\.\d %\)$", out, re.MULTILINE)
    assert "cuda: worst single countermeasure found: " in out


BAD = {
    "recipe": (["--recipe", "emr"], "did you mean 'erm'"),
    "countermeasure": (["--countermeasure", "coim"], "did you mean 'coin'"),
    "model": (["--model", "resnet19"], "did you mean 'resnet18'"),
    "preset": (["--preset", "qick"], "did you mean 'quick'"),
    "grid": (["--grid", "none.yaml"], "cannot be read"),
    "two grids": (["--preset", "quick", "--recipe", "erm"], "one of --preset, --grid"),
    "fraction": (["--fraction", "2"], "fractions above 0 and at most 1"),
    "seeds": (["--seeds", "0"], "seeds of 1 or more"),
    "device": (["--device", "nonsense"], "a device that PyTorch has here"),
    "search": (["--search", "1"], "at least 2 runs to search with"),
    "another test": (["--test", "{tmp}/none"], "nothing at"),
    "name": (["--protected", "clean={tmp}/protected"], "another name for the protected set"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_line_and_two(name, command, tmp_path):
    options, message = BAD[name]
    code, out, err = in_process(*command, *(option.format(tmp=tmp_path) for option in options))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("unlearnable: ")
    assert message in err
    assert not (tmp_path / "run").exists()


SLOW = """
import signal, sys, torch
from unlearnable.audit import run
from unlearnable.cli import main

whole = run.train

def train(*sets, progress, **options):
    def tell(done, total, epoch):
        progress(done, total, epoch)
        if done == 3:
            print("third step", file=sys.stderr, flush=True)
    return whole(*sets, progress=tell, **options)

run.train = train
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
torch.set_num_threads(1)
sys.argv[0] = "unlearnable"
main()
"""


def test_ctrl_c_keeps_what_is_done(command, tmp_path, monkeypatch):
    long = [*command, "--recipe", "erm", "--epochs", "30", "--batch-size", "8", "--json"]
    with subprocess.Popen([sys.executable, "-c", SLOW, *long], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "third step\n"
        os.kill(process.pid, signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "unlearnable: stopped; what is done is kept: the same command goes on from here"
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.suffix == ".safetensors"

    whole, steps = audit_run.train, []

    def train(*sets, progress, **options):
        return whole(*sets, progress=lambda done, *more: (steps.append(done), progress(done, *more)), **options)

    monkeypatch.setattr(audit_run, "train", train)
    code, resumed, _ = in_process(*long)
    assert code == 0
    assert 3 < steps[0] < 90  # of 90: it went on from where it had stopped
    again = [str(tmp_path / "again") if word == str(tmp_path / "run") else word for word in long]
    _, uninterrupted, _ = in_process(*again)
    found, wanted = (json.loads(out)["rows"] for out in (resumed, uninterrupted))
    assert [(row["key"], row["right"]) for row in found] == [(row["key"], row["right"]) for row in wanted]


def test_rows_are_left_for_others(command, tmp_path):
    assert in_process(*command, *SHORT, "--json")[0] == 0
    assert len(read_rows(tmp_path / "run" / "rows.jsonl")) == 3
