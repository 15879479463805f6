"""The report: its page, its tables, its figures."""

import csv
import functools
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from matplotlib import rc_context
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from tests.audit.examples import CIFAR, WAYS, audit, results, row, sample
from unlearnable.audit import figures, report, tables
from unlearnable.audit.method import facts, limits, settings
from unlearnable.audit.results import Found, Sample, Searched, read
from unlearnable.audit.scores import summarise
from unlearnable.audit.store import Store, write_rows
from unlearnable.audit.verdict import judge
from unlearnable.cli.report import report as command
from unlearnable.errors import InputError
from unlearnable.plots import STYLE, save
from unlearnable.shares import between, percent

EVIL = '<script>alert("1")</script> & | $x_1$ *'
FEW = {way: WAYS[way] for way in [("none", "erm"), ("coin", "erm"), ("none", "adversarial")]}
UNTRIED = {"countermeasures": ["coin", "jpeg"], "recipes": []}
MANY = {
    (countermeasure, recipe): (0.7 - 0.005 * i, 0.5 - 0.01 * i, 0.3 - 0.006 * i)
    for i, (countermeasure, recipe) in enumerate(
        (c, r)
        for c in ("none", "coin", "jpeg", "blur", "rsk+dct", "coin+jpeg", "a", "b", "c", "d")
        for r in ("erm", "cutmix", "mixup", "adversarial")
    )
}


def summary_of(rows, names=("cuda",)):
    return summarise(rows, [judge(rows, name) for name in names])


def page_of(rows, names=("cuda",), **more):
    return report.page(results(rows, names, **more), untried=UNTRIED)


class Page(HTMLParser):
    """A page taken apart. Raises AssertionError where its elements do not nest."""

    EMPTY = frozenset(("meta", "br", "img"))
    CLOSED = frozenset(("line", "path", "rect", "polyline", "circle"))  # SVG, written with a slash

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.cells, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag not in self.CLOSED, f"{tag} is not closed"
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in self.CLOSED
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    @property
    def text(self):
        return " ".join("".join(self.words).replace("\xa0", " ").replace("−", "-").split())

    def rows(self):
        """The rows of the table of results, spaces and minus signs made plain."""
        return [[" ".join(cell.replace("\xa0", " ").replace("−", "-").split()) for cell in line] for line in self.cells]


CASES = {  # rows, names of the protected sets, whether pictures are at hand
    "three seeds, part protected": (audit(ways=FEW, fractions=(0.2, 0.8)), ("cuda",), True),
    "two sets": (audit(sets=("cuda", EVIL), ways=FEW), ("cuda", EVIL), True),
    "one way, one seed": (audit(ways={("none", "erm"): (0.9, 0.2)}, seeds=(0,)), ("cuda",), False),
    "seeds that agree": ([row("clean", 0, "none", "erm", 0.9), row("cuda", 1, "none", "erm", 0.2)] * 2, ("cuda",), 0),
    "nothing learned": (audit(ways={("none", "erm"): (0.05, 0.1)}, seeds=(0,)), ("cuda",), False),
    "many": (audit(sets=("a", "b"), ways=MANY, seeds=(0,), classes=100), ("a", "b"), False),
    "no histories": (audit(ways=FEW, epochs=0), ("cuda",), False),
    "several networks": (audit(ways=FEW) + audit(ways=FEW, model="vgg16"), ("cuda",), False),
}  # fmt: skip


class Case:
    """What is read of an audit, its summary, and its page."""

    def __init__(self, name):
        rows, names, pictures = CASES[name]
        self.results = results(rows, names, pictures=pictures)
        self.summary = summarise(rows, self.results.verdicts)
        self.page = report.page(self.results, untried=UNTRIED)


cases = functools.cache(Case)


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request):
    return cases(request.param)


def test_the_page_nests_and_needs_nothing_else(case):
    page = Page(case.page)
    assert "script" not in page.tags
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
            assert value.startswith("data:image/png;base64,")
    assert not re.search(r"://|@import|url\(", case.page)
    assert "{{" not in case.page
    assert "{%" not in case.page


def test_the_table_holds_every_score(case):
    summary, found = case.summary, Page(case.page).rows()
    for one in summary.scores:
        way = " ".join(one.way if summary.several_models else one.way[:2])
        learned = "" if one.learned is None else percent(one.learned)
        wanted = [way, percent(one.accuracy), between(one.interval), learned, one.strength or ""]
        tests = [str(len(one.rows)), f"{one.first.total:,}"]
        assert any(line[:5] == wanted and line[-2:] == tests for line in found), wanted


def test_the_chart_shows_every_whole_score_where_it_is(case):
    ways, text = case.summary.ways(), case.page
    highest = max(one.interval[1] for found in ways.values() for _, one in found)
    top = next(tick for tick in (0.2, 0.4, 0.6, 0.8, 1.0) if tick >= highest - 1e-9)
    chart = text[text.index("How far each way got") : text.index("The same in numbers")]
    whiskers = re.findall(r'<line class="whisker [^"]+" x1="([\d.]+)%" x2="([\d.]+)%"', chart)
    drawn = zip(re.findall(r'<svg x="([\d.]+)%"', chart), whiskers, strict=True)
    wanted = [one for found in ways.values() for _, one in found]
    for (middle, ends), one in zip(drawn, wanted, strict=True):
        assert float(middle) == pytest.approx(100 * one.accuracy / top, abs=0.006)
        assert [float(end) for end in ends] == pytest.approx([100 * end / top for end in one.interval], abs=0.006)


def test_the_verdict_comes_first_and_in_numbers(case):
    summary, text = case.summary, Page(case.page).text
    start = text[: text.index("How far each way got")]
    for verdict in summary.verdicts:
        if verdict.learnability is None:
            assert "Nothing can be said of" in start
        else:
            assert " ".join(f"{verdict.protection} is {verdict.verdict}".split()) in start or len(summary.sets) > 1
            for words in (percent(verdict.learnability), between(verdict.interval), f"n = {verdict.seeds} seed"):
                assert words in start
        worst = summary.worst(verdict)
        assert worst.way.countermeasure in start
        for words in (percent(worst.accuracy), between(worst.interval), percent(verdict.clean_accuracy)):
            assert words in start


def test_names_are_only_ever_text():
    classes = [f'{name}"><img src=x onerror=y>' for name in CIFAR]
    rows = audit(sets=(EVIL,), ways={("none", "erm"): (0.9, 0.2), (EVIL, EVIL): (0.9, 0.8)}, model=EVIL)
    found = Found(EVIL, EVIL, 0.8, (0.7, 0.9))
    page = Page(
        page_of(
            rows,
            (EVIL,),
            class_names=classes,
            sample=Sample(**sample((EVIL,), classes)),
            commands=(f"unlearnable audit --protected {EVIL}",),
            searches={EVIL: Searched(found, found, ((EVIL, EVIL, 0.8),), 1)},
        )
    )
    assert "script" not in page.tags
    assert page.tags.count("img") == 1  # the contact sheet
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert f"{EVIL} is not protected" in page.text


def test_a_picture_that_did_not_change_has_no_psnr():
    made = sample()
    made["protected"][0, 3] = made["clean"][3]
    made["psnr"][0, 3], made["ssim"][0, 3] = np.inf, 1
    text = Page(page_of(audit(ways=FEW), sample=Sample(**made))).text
    lowest = made["psnr"].min()
    assert f"from {lowest:.1f} dB to ∞ (unchanged), from {made['ssim'].min():.3f} to 1.000" in text
    assert f"PSNR {made['median_psnr'][0]:.1f} dB, SSIM {made['median_ssim'][0]:.3f}" in text


def test_an_unfinished_audit_says_so():
    rows = audit(ways=FEW)
    assert (
        "not finished. 3 of the 21 runs it was last asked for are not done"
        in Page(page_of(rows, asked=21, missing=3)).text
    )
    assert "not finished" not in Page(page_of(rows)).text


def test_what_is_left_out_is_counted():
    rows = audit(ways=FEW)
    assert "2 more runs in the same folder are left out" in Page(page_of(rows, left_out=2)).text
    assert "left out" not in Page(page_of(rows)).text


def test_a_search_is_told_on_the_half_it_did_not_choose_by():
    best, single = Found("coin+jpeg", "erm", 0.71, (0.69, 0.73)), Found("coin", "erm", 0.68, (0.66, 0.7))
    tried = (("coin+jpeg", "erm", 0.702), ("blur", "mixup", 0.2))
    page = Page(page_of(audit(ways=FEW), searches={"cuda": Searched(best, single, tried, 3)}))
    assert ["cuda", "worst composition", "coin+jpeg erm", "71.0 %", "69.0 to 73.0 %", "3", "2"] in page.rows()
    assert ["cuda", "worst by itself", "coin erm", "68.0 %", "66.0 to 70.0 %", "3", "2"] in page.rows()
    assert "Tried against cuda, with one seed each: coin+jpeg 70.2 %, blur with mixup 20.0 %." in page.text


def test_a_verdict_over_a_border_is_said_to_be_uncertain():
    rows = audit(ways={("none", "erm"): (0.9, 0.3)}, tests=100, seeds=(0,))
    assert judge(rows, "cuda").doubt == ("protected", "weakened")
    assert "n = 1 seed: from protected to weakened. It is not certain yet" in Page(page_of(rows)).text
    assert "Not certain: from protected to weakened." in tables.markdown(summarise(rows, [judge(rows, "cuda")]))
    assert "certain" not in Page(page_of(audit(ways={("none", "erm"): (0.9, 0.85)}))).text


def test_a_set_that_is_not_broken_is_said_to_hold():
    text = Page(page_of(audit(ways={("none", "erm"): (0.9, 0.15)}))).text
    assert text.startswith("Audit: cuda cuda is protected")
    assert "What came nearest: none erm" in text


def test_parts_have_their_baseline_and_what_it_would_take():
    text = Page(page_of(audit(ways=FEW, fractions=(0.2, 0.8)))).text
    assert "When only a part is protected" in text
    assert re.search(r"cuda: [\d,]+ clean pictures alone, of 10,000, teach as much", text)
    assert "clean rest alone" in text
    assert "When only a part is protected" not in Page(page_of(audit(ways=FEW))).text


def test_a_strength_is_told_in_words_beside_its_colour(case):
    found = Page(case.page).rows()
    for one in case.summary.scores:
        if one.strength:
            assert any(one.strength in line for line in found)


def independent_interval(rows):
    """The 95 % interval by Wilson's formula and, over seeds, SciPy's one-sample t-test, whichever reaches further."""
    n, z = rows[0].total, stats.norm.ppf(0.975)
    p = round(np.mean([one.right for one in rows])) / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    if len(rows) > 1:
        found = stats.ttest_1samp([one.accuracy for one in rows], 0).confidence_interval()
        low, high = min(low, found.low), max(high, found.high)
    return max(0, low), min(1, high)


@pytest.mark.parametrize("seeds", [(0,), (4, 7), (0, 1, 2, 3, 4)])
def test_csv_gives_back_every_number(seeds):
    rows = audit(ways=FEW, seeds=seeds, fractions=(0.5,))
    found = list(csv.DictReader(io.StringIO(tables.csv_table(summary_of(rows)))))
    clean = np.mean(
        [r.accuracy for r in rows if (r.protection, r.countermeasure, r.recipe) == ("clean", "none", "erm")]
    )
    seen = 0
    for line in found:
        same = [
            r
            for r in rows
            if (r.protection, str(r.fraction), r.countermeasure, r.recipe, r.model)
            == tuple(line[name] for name in ("protection", "fraction", "countermeasure", "recipe", "model"))
        ]
        seen += len(same)
        assert float(line["accuracy"]) == pytest.approx(np.mean([r.accuracy for r in same]), abs=1e-12)
        assert (float(line["low"]), float(line["high"])) == pytest.approx(independent_interval(same), abs=1e-9)
        assert line["seeds"].split() == [str(seed) for seed in seeds]
        assert [float(value) for value in line["accuracies"].split()] == [r.accuracy for r in same]
        assert (int(line["n"]), int(line["test_pictures"])) == (len(seeds), 2000)
        assert line["interval"] == ("Wilson" if len(seeds) == 1 else "Wilson and Student's t")
        if line["protection"] == "cuda" and line["fraction"] == "1.0":
            learned = (float(line["accuracy"]) - 0.1) / (clean - 0.1)
            assert float(line["learnability"]) == pytest.approx(learned, abs=1e-9)
            assert line["strength"] == (
                "protected" if learned <= 0.25 else "weakened" if learned <= 0.6 else "not protected"
            )
        else:
            assert line["learnability"] == line["strength"] == ""
    assert seen == len(rows)


def test_records_and_csv_agree(case):
    summary = case.summary
    records = tables.records(summary)
    found = list(csv.DictReader(io.StringIO(tables.csv_table(summary))))
    assert [{k: "" if v is None else str(v) for k, v in one.items()} for one in records] == found


def test_markdown_has_a_line_a_score_and_survives_odd_names(case):
    summary, text = case.summary, tables.markdown(case.summary)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == len(summary.scores) + 2
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert widths == {12}
    for line, one in zip(table[2:], summary.scores, strict=True):
        assert f"| {percent(one.accuracy)} | {between(one.interval)} | {len(one.rows)} | {one.first.total:,} |" in line
    assert not re.search(r"(?<!\\)<", text)
    for verdict in summary.verdicts:
        if verdict.learnability is not None:
            assert f"{percent(verdict.learnability)} of what" in text
            assert f"n = {verdict.seeds}" in text


@pytest.mark.parametrize("name", ["three seeds, part protected", "two sets", "one way, one seed", "no histories"])
def test_figures_are_vectors_with_their_fonts(tmp_path, name):
    case, summary = cases(name), cases(name).summary
    drawn = figures.draw(summary, case.results.class_names, tmp_path / "new" / "figures")
    wanted = {"accuracies", "classes", "confusion"}
    wanted |= {"partial"} if any(0 < one.fraction < 1 for one in summary.scores) else set()
    wanted |= {"training"} if summary.rows[0].history else set()
    assert {path.name for path in drawn} == wanted
    for path in drawn:
        pdf = path.with_suffix(".pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"/FontFile2" in pdf
        assert b"/Type3" not in pdf
        assert b"/Subtype /Image" not in pdf
        with Image.open(path.with_suffix(".png")) as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_the_same_rows_draw_the_same_figures(tmp_path):
    rows = audit(ways=FEW)
    for folder, given in (("a", rows), ("b", rows[::-1])):
        (tmp_path / folder).mkdir()
        save(figures.accuracies(summary_of(given)), tmp_path / folder / "accuracies")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_order_of_rows_does_not_matter():
    rows = audit(ways=FEW, fractions=(0.5,))
    assert page_of(rows) == page_of(rows[::-1])


def test_a_hundred_classes_and_forty_ways_fit_into_figures(tmp_path):
    summary = cases("many").summary
    names = [f"n{number:08}" for number in range(100)]
    with rc_context(STYLE):
        for figure in (figures.accuracies(summary), figures.classes(summary, names), figures.confusion(summary, names)):
            figure.draw_without_rendering()
            axes = figure.axes[0].get_window_extent()
            assert axes.width > 0.2 * figure.bbox.width
            assert axes.height > 0.2 * figure.bbox.height


def test_the_figure_of_accuracies_shows_them():
    summary = summary_of(audit(ways=FEW))
    axes = figures.accuracies(summary).axes[0]
    drawn = {round(float(x), 9) for line in axes.lines for x in line.get_xdata()}
    for found in summary.ways().values():
        for _, one in found:
            assert {round(100 * share, 9) for share in (one.accuracy, *one.interval)} <= drawn
    assert [label.get_text() for label in axes.get_yticklabels()] == [" · ".join(way[:2]) for way in summary.ways()]


def test_the_confusion_is_over_all_seeds():
    summary = summary_of(audit(ways=FEW))
    counts = sum(np.array(one.confusion) for one in summary.clean.rows)
    assert summary.clean.confusion() == pytest.approx(counts / counts.sum(1)[:, None])
    assert report._shades(np.array([[0.0, 0.05], [0.5, 1.0]])) == [
        "",
        "",
        "",
        "M0 1h1v1h-1z",
        "",
        "",
        "",
        "M1 1h1v1h-1z",
    ]


def test_ways_are_ordered_by_the_worst_for_the_owner():
    summary = summary_of(audit(sets=("cuda", "tap")), ("cuda", "tap"))
    reached = [max(one.accuracy for number, one in found if number is not None) for found in summary.ways().values()]
    assert reached == sorted(reached, reverse=True)
    assert len(reached) == len(WAYS)


def test_it_tells_how_it_was_measured_and_what_not():
    summary = summary_of(audit(ways=FEW, seeds=(0, 5)))
    told = dict(facts(summary))
    assert told["Seeds"] == "0, 5"
    assert told["Training pictures"] == "10,000"
    assert told["Their size"] == "32 x 32 pixels, 3 channels"
    assert told["Runs"].startswith("12, 6.3 minutes")
    assert told["Software"] == "unlearnable 0.1.0, torch 2.9.0, python 3.11.2"
    assert dict(dict(settings(summary))["Recipes"])["erm"] == "epochs 12, batch size 512, learning rate 0.4"
    assert told["Machine"] == "cpu, x86_64, 2 threads"
    words = " ".join(limits(summary, UNTRIED))
    assert "3 ways were tried" in words
    assert "release knows was tried. Countermeasures: coin, jpeg." in words
    assert "Recipes" not in words
    assert "one run each" not in words
    assert "started from nothing" in words
    single = summary_of(audit(ways=FEW | {("none", "finetune"): (0.9, 0.4)}, seeds=(0,)))
    words = " ".join(limits(single, {}))
    assert "one run each" in words
    assert "started from nothing" not in words


def test_a_sample_comes_back_as_it_was_written(tmp_path):
    made = sample(("cuda", "tap"))
    np.savez_compressed(tmp_path / "pictures.npz", **made)
    read = Sample.load(tmp_path / "pictures.npz")
    for name, value in made.items():
        assert np.array_equal(getattr(read, name), value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"\x80\x04}."])
def test_a_sample_that_is_none_is_an_error(tmp_path, content):
    path = tmp_path / "pictures.npz"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=re.escape(f"expected an audit's sample of pictures, found something else at {path}")
    ):
        Sample.load(path)


@pytest.fixture
def run(tmp_path):
    """An audit's folder, with one of its runs missing."""
    folder, rows = tmp_path / "run", audit(ways=FEW)
    folder.mkdir()
    with Store(folder / "store.sqlite") as store:
        store.merge(replace(one, protection="old name") if one.protection == "cuda" else one for one in rows)
    names = ("protection", "fraction", "countermeasure", "recipe", "model", "seed", "key")
    about = {
        "command": "unlearnable audit --out 'my run'",
        "class_names": CIFAR,
        "sets": {"protected": {"cuda": {}}},
        "grid": {"seeds": [0, 1, 2], "models": ["resnet9-w16"]},
        "cells": [{name: getattr(one, name) for name in names} for one in rows] + [dict.fromkeys(names, "never run")],
        "search": {
            "cuda": {
                "best": [["coin+jpeg", "erm"], 0.71, [0.69, 0.73]],
                "single": [["coin", "erm"], 0.68, [0.66, 0.7]],
                "tried": {"tried": [[["coin", "erm"], [0.7, 0.68]]] * 7},
            }
        },
    }
    (folder / "spec.json").write_text(json.dumps(about))
    np.savez_compressed(folder / "pictures.npz", **sample())
    return folder


def test_a_folder_is_read_as_the_audit_asked_for_it(run):
    found, rows = read(run), audit(ways=FEW)
    assert sorted(found.rows, key=lambda one: one.key) == sorted(rows, key=lambda one: one.key)
    assert (found.asked, found.missing, found.left_out) == (len(rows) + 1, 1, 0)
    assert found.verdicts == (judge(rows, "cuda"),)
    assert (found.class_names, found.commands) == (CIFAR, ("unlearnable audit --out 'my run'",))
    best, single = Found("coin+jpeg", "erm", 0.71, (0.69, 0.73)), Found("coin", "erm", 0.68, (0.66, 0.7))
    assert found.searches == {"cuda": Searched(best, single, (("coin", "erm", 0.68),) * 7, 3)}
    assert found.sample.names.tolist() == ["cuda"]


def test_rows_alone_are_enough(tmp_path):
    rows = audit(sets=("cuda", "tap"), ways=FEW)
    write_rows(rows, tmp_path / "rows.jsonl")
    found = read(tmp_path)
    assert (len(found.rows), found.missing, found.commands, found.sample) == (len(rows), 0, (), None)
    assert [verdict.protection for verdict in found.verdicts] == ["cuda", "tap"]
    assert found.class_names[9] == "class 9"


def test_what_is_no_audit_is_an_error(tmp_path, run):
    with pytest.raises(InputError, match="expected the folder of an audit, found no such folder: name the one"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match=r"found neither store\.sqlite nor rows\.jsonl in"):
        read(tmp_path)
    for text in ("{", "[]", '"spec"'):
        (run / "spec.json").write_text(text)
        with pytest.raises(InputError, match="expected an audit's description, found something else at"):
            read(run)


@pytest.mark.parametrize("kept", ["clean", "cuda"])
def test_too_little_for_a_verdict_is_an_error(tmp_path, kept):
    write_rows([one for one in audit(ways=FEW) if one.protection == kept], tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match="let the audit finish"):
        read(tmp_path)


def call(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_a_page_and_says_where(run):
    result = call(run)
    assert result.exit_code == 0, result.output
    unfinished = "Runs of the audit that are not finished, so not in it: 1."
    assert result.stdout == f"Wrote {run / 'report.html'}.\n{unfinished}\n"
    text = Page((run / "report.html").read_text(encoding="utf-8")).text
    assert "cuda is not protected" in text
    assert "unlearnable audit --out 'my run'" in text
    assert re.search(r"Recipes: [^.]*\bcutmix\b", text)


def test_the_command_writes_what_is_asked_for_and_nothing_else(run, tmp_path):
    out = tmp_path / "new"
    asked = ["--csv", out / "a.csv", "--markdown", out / "a.md", "--figures", out / "figures", "--json"]
    result = call(run, *asked)
    assert result.exit_code == 0, result.output
    printed, summary = json.loads(result.stdout), summarise(read(run).rows, read(run).verdicts)
    assert printed["html"] is None
    assert not (run / "report.html").exists()
    assert printed["scores"] == tables.records(summary)
    assert printed["verdicts"][0]["learnability"] == summary.verdicts[0].learnability
    assert printed["verdicts"][0]["strongest"] == summary.verdicts[0].strongest._asdict()
    assert Path(printed["csv"]).read_text() == tables.csv_table(summary)
    assert Path(printed["markdown"]).read_text() == tables.markdown(summary)
    for name in printed["figures"]:
        assert Path(f"{name}.pdf").exists()
    assert sorted(path.name for path in out.iterdir()) == ["a.csv", "a.md", "figures"]


def test_a_place_that_cannot_be_written_is_an_error(run):
    (run / "file").touch()
    found = call(run, "--html", run / "file" / "report.html").exception
    assert isinstance(found, InputError)
    assert "expected a destination that can be written" in str(found)
    assert isinstance(call(run, "--figures", run / "file").exception, InputError)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_what_is_missing_is_named_with_how_to_install_it(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("audit.report", "audit.figures", "pages"):
        monkeypatch.delitem(sys.modules, f"unlearnable.{name}", raising=False)
        monkeypatch.delattr(f"unlearnable.{name}", raising=False)
    found = call(run, "--figures", run / "figures").exception
    assert isinstance(found, InputError)
    assert f"found no {package}: pip install 'unlearnable[report]'" in str(found)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("name", ["three seeds, part protected", "two sets", "many"])
def test_nothing_is_wider_than_a_phone(tmp_path, name):
    page = cases(name).page
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    measure = "d = f.contentDocument.documentElement; document.title = `width ${d.scrollWidth} of ${d.clientWidth}`"
    frame = page.replace("&", "&amp;").replace('"', "&quot;")
    wrapper = (
        f'<title></title><iframe id="f" style="width: 360px; border: 0" onload="{measure}" srcdoc="{frame}"></iframe>'
    )
    (tmp_path / "wrapper.html").write_text(wrapper, encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = ["chromium", *arguments, (tmp_path / "wrapper.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    needed, given = re.search(r"<title>width (\d+) of (\d+)</title>", shown).groups()
    assert needed == given
    assert 320 < int(given) <= 360
