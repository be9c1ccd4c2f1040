"""Heads of the parts of PersonaTree's compact prompts."""

KNOWN, NEW, EDITS = "Known:\n", "New:\n", "Edits:\n"
