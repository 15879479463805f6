"""The command line as its user meets it."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from tests.conftest import contents, in_process
from unlearnable import Key
from unlearnable.cli.common import telling


def run(*arguments, **environment):
    code = "import sys; from unlearnable.cli import main; sys.argv[0] = 'unlearnable'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"} | environment,
    )


@pytest.fixture
def keyfile(tmp_path, key):
    key.save(tmp_path / "key")
    return tmp_path / "key"


HELP = """\
Usage: unlearnable [OPTIONS] COMMAND [ARGS]...

  Publish pictures that people can look at and models cannot learn from.

Options:
  --version   Print it.
  -h, --help  Show this message and exit.

Commands:
  keygen    Make a secret key.
  protect   Protect pictures.
  verify    Compare published pictures with the manifest.
  unlock    Take the protection off again, with the key and the manifest.
  preview   Draw a contact sheet.
  inspect   Tell whether pictures look protected, and how.
  train     Train a network.
  evaluate  Test a trained network: clean, attacked, on corruptions.
  prune     Cut off the smallest weights of a trained network.
  export    Write a trained network in a small form, or for other programs.
  audit     Find out how well protected pictures hold.
  report    Report what an audit found.
  theory    Draw what is known in theory.
  list      List the names that other commands take.
  demo      Show it all on a small real data set.
"""


def test_help_is_what_we_mean_it_to_be():
    assert run("--help").stdout == HELP
    assert run().stdout == HELP


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout == f"unlearnable {version('unlearnable')}\n"


@pytest.mark.parametrize(
    "verb",
    [
        "keygen",
        "protect",
        "verify",
        "unlock",
        "preview",
        "train",
        "evaluate",
        "prune",
        "export",
        "inspect",
        "audit",
        "report",
        "theory",
        "list",
        "demo",
    ],
)
def test_every_help_fits_80_columns(verb):
    shown = run(verb, "--help")
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "Usage: unlearnable" in shown.stdout


def test_nothing_heavy_is_loaded_before_it_is_needed():
    for code in (
        "import unlearnable",
        "import unlearnable; unlearnable.Key",
        "import sys; sys.argv = ['unlearnable', '--help']; import atexit; atexit.register(lambda: show())\n"
        "from unlearnable.cli import main; main()",
    ):
        show = "def show():\n import sys\n print([m for m in ('torch', 'numba', 'numpy', 'PIL') if m in sys.modules])\n"
        out = subprocess.run(
            [sys.executable, "-c", f"{show}{code}\nshow()"], capture_output=True, text=True, check=True
        )
        loaded = out.stdout.splitlines()[-1]
        assert "torch" not in loaded
        assert "numba" not in loaded
        assert ("numpy" in loaded) == ("Key" in code)


def test_protecting_loads_no_torch(pictures, tmp_path, key):
    code = (
        "import sys, unlearnable; unlearnable.protect(*sys.argv[1:], key=unlearnable.Key(bytes(32)), workers=0);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, pictures, tmp_path / "out"], check=True)


def test_the_whole_way(pictures, tmp_path):
    key, out, back = tmp_path / "key", tmp_path / "out", tmp_path / "back"
    assert run("keygen", key).returncode == 0
    protected = run("protect", pictures, out, "--key", key, "--json")
    assert protected.returncode == 0, protected.stderr
    report = json.loads(protected.stdout)
    assert {"pictures", "protected", "failed", "skipped", "psnr", "ssim", "seconds", "manifest"} <= report.keys()
    assert (report["pictures"], report["protected"], report["manifest"]) == (10, 10, f"{out}.manifest")
    verified = run("verify", out, "--manifest", report["manifest"], "--key", key, "--json")
    assert verified.returncode == 0
    assert {name: json.loads(verified.stdout)[name] for name in ("ok", "changed", "missing", "extra")} == {
        "ok": True,
        "changed": [],
        "missing": [],
        "extra": [],
    }
    unlocked = run("unlock", out, back, "--key", key, "--manifest", report["manifest"], "--json")
    assert json.loads(unlocked.stdout)["unlocked"] == 10
    assert contents(back).keys() == contents(out).keys()
    again = run("unlock", out, back, "--key", key)
    assert again.returncode == 0
    assert "has pictures of all these names already" in again.stderr
    assert run("preview", pictures, "--key", key, "--out", tmp_path / "sheet.png").returncode == 0
    (out / "cat" / "0.jpg").unlink()
    said = run("verify", out)
    assert said.returncode == 1
    assert "missing: 'cat/0.jpg'" in said.stdout


def test_failures_are_told_and_do_not_spoil_the_json(pictures, tmp_path, keyfile):
    (pictures / "cat" / "bad\nname.jpg").write_bytes(b"")
    said = run("protect", pictures, tmp_path / "out", "--key", keyfile, "--json", "--workers", 0)
    assert said.returncode == 0
    assert json.loads(said.stdout)["failed"] == 1
    assert said.stderr.splitlines() == ["failed: 'cat/bad\\nname.jpg': empty file"]
    assert run("protect", pictures, tmp_path / "x", "--key", keyfile, "--strict", "--workers", 0).returncode == 2


def test_a_protection_that_changes_next_to_nothing_warns(pictures, tmp_path, keyfile):
    asked = ("protect", pictures, tmp_path / "out", "--key", keyfile, "--method", "stack", "--format", "png")
    said = in_process(*asked, "--layers", "autoregressive:radius=6:size=512", "--workers", 0)
    assert said.returncode == 0
    assert "warning: pictures change by less than a grey level (median PSNR " in said.stderr
    assert "which protects nothing" in said.stderr


BAD = {
    "no key": (["protect", "{pictures}", "{out}"], "either --key or --reference-seed"),
    "two keys": (["protect", "{pictures}", "{out}", "--key", "k", "--reference-seed", "0"], "found both"),
    "missing key": (["protect", "{pictures}", "{out}", "--key", "{tmp}/none"], "nothing at"),
    "missing source": (["protect", "{tmp}/none", "{out}", "--key", "{key}"], "nothing at"),
    "unknown option": (["protect", "--nonsense"], "--nonsense"),
    "unknown verb": (["proctect"], "proctect"),
    "no number": (["protect", "{pictures}", "{out}", "--key", "{key}", "--fraction", "half"], "valid number"),
    "unknown kind": (["list", "things"], "things"),
    "no manifest": (["verify", "{tmp}"], "nothing at"),
    "key there already": (["keygen", "{key}"], "there already"),
    "missing argument": (["protect"], "SRC"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_line_and_two(name, pictures, tmp_path, keyfile):
    arguments, message = BAD[name]
    places = {"pictures": pictures, "out": tmp_path / "out", "tmp": tmp_path, "key": keyfile}
    said = in_process(*(argument.format(**places) for argument in arguments))
    assert said.returncode == 2
    assert said.stdout == ""
    assert len(said.stderr.splitlines()) == 1, said.stderr
    assert said.stderr.startswith("unlearnable: ")
    assert message in said.stderr
    assert not (tmp_path / "out").exists()


def test_a_traceback_only_if_asked_for(tmp_path):
    assert "Traceback" not in run("verify", tmp_path).stderr
    assert "Traceback" in run("verify", tmp_path, "--debug").stderr


def test_the_reference_mode_warns(pictures, tmp_path):
    said = run("protect", pictures, tmp_path / "out", "--reference-seed", 0, "--workers", 0)
    assert said.returncode == 0
    assert "can be found by trying" in said.stderr


def test_keygen_never_shows_the_key(tmp_path):
    said = in_process("keygen", tmp_path / "key")
    assert Key.load(tmp_path / "key").secret.hex() not in said.stdout + said.stderr


@pytest.mark.parametrize(("kind", "name"), [("protections", "cuda"), ("attacks", "pgd"), ("models", "resnet9-w16")])
def test_lists(kind, name):
    assert name in json.loads(in_process("list", kind, "--json").stdout)["names"]
    assert name in in_process("list", kind).stdout.split()


def test_the_rate_is_of_what_was_done_meanwhile(monkeypatch, capsys):
    seconds = iter([60.0, 61.0, 75.0])  # after a minute of setting out
    monkeypatch.setattr("unlearnable.cli.common.time.monotonic", lambda: next(seconds))
    with telling("working") as tell:
        for done in (500, 502, 530):  # the first 500 by another run
            tell(done, 1000)
    assert capsys.readouterr().err == "working: 530 of 1,000 (2 a second)\n"
