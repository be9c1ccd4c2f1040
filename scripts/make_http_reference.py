"""Make docs/reference/http.md from the server's own description. With --check, fail if it is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from memorist.serve.app import BODY, Serving, make_app
from memorist.serve.chat import Upstream
from memorist.serve.keys import Keys

HEAD = f"""# The server's calls

Made by `make docs` from what `/openapi.json` says; [a memory over HTTP](../serve.md) tells how it is meant. Bodies are JSON
(`Content-Type: application/json`), {BODY:,} bytes at most where `memorist serve --body` says nothing else. `user` may be left out where
the key is bound to one; `agent` and `session` narrow what is meant. Times without a zone are in UTC. Errors are
`application/problem+json`: 400 and 422 what was asked wrongly, 401 and 403 the key, 404 nothing there, 408 and 413 the body, 409 a
name that is taken, 429 too many, 502 the model, 503 not now.
"""


def main() -> None:
    target = Path("docs/reference/http.md")
    if "--check" in sys.argv:
        if target.read_text() != page():
            sys.exit("docs/reference/http.md is out of date: run `make docs`")
        return
    target.write_text(page())


def page() -> str:
    described = make_app(Serving(lambda: None, Keys({}), upstream=Upstream("http://x"))).openapi()  # type: ignore[arg-type, return-value]
    kinds = described["components"]["schemas"]
    parts = [HEAD]
    for path, calls in described["paths"].items():
        for method, call in calls.items():
            parts.append(f"\n## {method.upper()} {path}\n\n{call['summary']}. Right: `{right(call)}`.\n")
            asked = [(one["name"], one["schema"], one["in"], one["required"]) for one in call.get("parameters", [])]
            body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            asked += fields(body, kinds)
            if asked:
                parts.append("\n| field | in | what | default |\n|---|---|---|---|\n")
                parts += [line(*one) for one in asked]
            else:
                parts.append("\nThe body is as OpenAI has it.\n")
            answer = call["responses"]["200"]["content"].get("application/json", {}).get("schema", {}).get("$ref")
            if answer:
                parts.append(f"\nAnswer: {shape(answer, kinds)}\n")
    return "".join(parts)


def right(call: dict[str, Any]) -> str:
    return {"erase": "erase", "write": "write"}.get(call["tags"][0], "read")


def fields(schema: dict[str, Any], kinds: dict[str, Any], before: str = "") -> list[tuple[str, Any, str, bool]]:
    """Of a body, those of its lists' items too."""
    found = []
    kind = named(schema, kinds)
    for name, one in kind.get("properties", {}).items():
        found.append((before + name, one, "body", name in kind.get("required", ())))
        if "$ref" in one.get("items", {}):
            found += fields(one["items"], kinds, f"{before}{name}[].")
    return found


def named(schema: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = kinds[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def line(name: str, schema: dict[str, Any], where: str, required: bool) -> str:
    said = [told(schema)]
    said += [schema["description"]] if "description" in schema else []
    said += [f"e.g. `{json.dumps(one)}`" for one in schema.get("examples", [])[:1]]
    default = "required" if required else f"`{json.dumps(schema.get('default'))}`"
    return f"| `{name}` | {where} | {'; '.join(said)} | {default} |\n"


def told(schema: dict[str, Any]) -> str:
    """A type with its limits."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(told(one) for one in schema["anyOf"] if one.get("type") != "null"))
    kind = schema.get("format") or schema.get("type", "list" if "items" in schema else "object")
    kind = {"string": "text", "array": "list", "date-time": "time"}.get(kind, kind)
    if "pattern" in schema:
        return " or ".join(f"`{one}`" for one in schema["pattern"].strip("^$()").split("|"))
    limits = {"minLength": "{} characters or more", "maxLength": "up to {} characters", "minItems": "{} or more",
              "maxItems": "up to {}", "minimum": "{} or more", "maximum": "up to {}", "exclusiveMinimum": "above {}"}  # fmt: skip
    said = [text.format(f"{schema[limit]:,.0f}") for limit, text in limits.items() if limit in schema]
    return f"{kind}, {', '.join(said)}" if said else kind


def shape(reference: str, kinds: dict[str, Any]) -> str:
    """An answer's fields, those of what is inside in brackets."""
    kind = named({"$ref": reference}, kinds)
    parts = []
    for name, one in kind["properties"].items():
        inner = [found["$ref"] for found in (one, one.get("items", {}), *one.get("anyOf", ())) if "$ref" in found]
        parts.append(f"`{name}` ({shape(inner[0], kinds)})" if inner else f"`{name}`")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
