"""Protect pictures from being learned from.

The names below are loaded on first use, so that ``import unlearnable`` stays instant and pulls in nothing heavy.
"""

from importlib import import_module

__version__ = "0.1.0"
