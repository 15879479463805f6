"""Protect pictures from being learned from.

The names below are loaded on first use, so that ``import unlearnable`` stays instant and pulls in nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unlearnable.audit.api import Audit as Audit
    from unlearnable.audit.api import plan_audit as plan_audit
    from unlearnable.audit.api import run_audit as run_audit
    from unlearnable.audit.report import report as report
    from unlearnable.compression import export as export
    from unlearnable.compression import prune as prune
    from unlearnable.errors import InputError as InputError
    from unlearnable.evaluator import evaluate as evaluate
    from unlearnable.keys import Key as Key
    from unlearnable.pipeline import preview as preview
    from unlearnable.pipeline import protect as protect
    from unlearnable.pipeline import unlock as unlock
    from unlearnable.pipeline import verify as verify
    from unlearnable.protections.convolution import ReferenceSeed as ReferenceSeed
    from unlearnable.trainer import train as train

__version__ = "0.1.0"

_HOMES = {
    "Audit": "unlearnable.audit.api",
    "InputError": "unlearnable.errors",
    "Key": "unlearnable.keys",
    "ReferenceSeed": "unlearnable.protections.convolution",
    "evaluate": "unlearnable.evaluator",
    "export": "unlearnable.compression",
    "plan_audit": "unlearnable.audit.api",
    "preview": "unlearnable.pipeline",
    "protect": "unlearnable.pipeline",
    "prune": "unlearnable.compression",
    "report": "unlearnable.audit.report",
    "run_audit": "unlearnable.audit.api",
    "train": "unlearnable.trainer",
    "unlock": "unlearnable.pipeline",
    "verify": "unlearnable.pipeline",
}

__all__ = [
    "Audit",
    "InputError",
    "Key",
    "ReferenceSeed",
    "evaluate",
    "export",
    "plan_audit",
    "preview",
    "protect",
    "prune",
    "report",
    "run_audit",
    "train",
    "unlock",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'unlearnable' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
