"""Tiny Llamas and hybrids of them, for tests."""

from __future__ import annotations

import logging
from pathlib import Path

from memorist.fit.hybrid.convert import convert
from memorist.models.causal import CausalPolicy
from memorist.models.registry import open_policy

logging.getLogger("transformers").setLevel(logging.ERROR)


def converted(base: CausalPolicy, folder: Path, attention: tuple[int, ...] = (1,), **how: object) -> CausalPolicy:
    """The hybrid of a policy, by way of folders."""
    if not (folder / "base").exists():
        base.save(folder / "base")
    out = folder / f"hybrid-{'-'.join(map(str, attention))}-{'-'.join(map(str, how.values()))}"
    convert(folder / "base", out, attention, **how)  # type: ignore[arg-type]
    return open_policy(str(out))
