"""What a listener may write, as a grammar: edits of the leaves of a schema, one a line (`memory.profile_edits`)."""

from __future__ import annotations

from memorist.memory.profile_schema import Schema, persona_schema


def profile_grammar(file: str = "") -> str:
    """In llguidance's Lark dialect, of a schema's file ("": the released trunk). Of what `read_edits` takes it has the
    form that is written, so that every legal text is made of edits that the gate can only refuse for what a leaf
    holds."""
    leaves = (Schema.read(file) if file else persona_schema()).leaves
    return "\n".join([
        r'start: line ("\n" line)*',
        r'line: ("ADD(" | "UPDATE(") path ", " text ")" | "DELETE(" path ", None)" | "NO_OP()"',
        "path: " + " | ".join(f'"{leaf}"' for leaf in leaves),
        r'text: /"([^"\\\x00-\x1f\x85\u2028\u2029]|\\["\\])+"/',
    ])  # fmt: skip
