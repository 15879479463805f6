"""An audit's scores as tables: CSV for programs, Markdown for people, plain values for JSON."""

import csv
import io
from typing import Any

from unlearnable.audit.scores import Score, Summary
from unlearnable.audit.verdict import Verdict
from unlearnable.shares import between, percent


def records(summary: Summary) -> list[dict[str, Any]]:
    """List the scores as plain values, in their order; shares from 0 to 1, None for what there is not."""
    return [
        {
            "protection": one.protection,
            "fraction": one.fraction,
            **one.way._asdict(),
            "accuracy": one.accuracy,
            "low": one.interval[0],
            "high": one.interval[1],
            "interval": one.method,
            "n": len(one.rows),
            "seeds": " ".join(str(row.seed) for row in one.rows),
            "accuracies": " ".join(str(row.accuracy) for row in one.rows),
            "test_pictures": one.first.total,
            "chance": one.first.chance,
            "learnability": one.learned,
            "strength": one.strength,
        }
        for one in summary.scores
    ]


def csv_table(summary: Summary) -> str:
    """Write the scores as CSV, with a line of names; every number in full."""
    found, out = records(summary), io.StringIO()
    writer = csv.DictWriter(out, found[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()


def markdown(summary: Summary) -> str:
    """Write the verdicts and the scores as Markdown."""
    names = ["set", "protected", "countermeasure", "recipe", "network"]
    names += ["accuracy", "95 % interval", "seeds (n)", "test pictures", "learned", ""]
    aligned = ["---"] + ["--:"] + ["---"] * 3 + ["--:"] * 5 + ["---"]
    lines = [_line(names), _line(aligned), *(_line(_cells(one)) for one in summary.scores)]
    return "\n\n".join([*map(_told, summary.verdicts), "\n".join(lines)]) + "\n"


def _told(verdict: Verdict) -> str:
    name = _escaped(verdict.protection)
    base = f"clean {percent(verdict.clean_accuracy)}, guessing {percent(verdict.chance)}"
    if verdict.learnability is None or verdict.interval is None:
        return f"**Nothing can be said of {name}.** The clean pictures teach no more than guessing ({base})."
    learned = f"{percent(verdict.learnability)} of what the clean pictures teach was learned"
    spread = f"95 % interval {between(verdict.interval)}, n = {verdict.seeds}"
    strongest = _escaped(str(verdict.strongest))
    doubt = f" Not certain: from {verdict.doubt[0]} to {verdict.doubt[1]}." if verdict.doubt else ""
    return f"**{name} is {verdict.verdict}.** {learned} ({spread}; {base}), in the worst case: {strongest}.{doubt}"


def _cells(one: Score) -> list[str]:
    return [
        _escaped(one.protection),
        f"{100 * one.fraction:g} %",
        *map(_escaped, one.way),
        percent(one.accuracy),
        between(one.interval),
        str(len(one.rows)),
        f"{one.first.total:,}",
        "" if one.learned is None else percent(one.learned),
        one.strength or "",
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(name: str) -> str:
    """Keep a name, which may hold anything, from being taken for Markdown or HTML."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#+-.!|&~" else letter for letter in " ".join(name.split()))
