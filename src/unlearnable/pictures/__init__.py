"""How pictures come in and go out. No learning here."""
