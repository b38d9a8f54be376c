"""The HTML of the report: escaping, tiles, tables and the frame of the page. No script, nothing from outside."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any

import numpy as np

from .pictures import Picture, encode_picture
from .style import STYLE

DASH = "–"
WORDS = ' class="words"'


def text(value: Any) -> str:
    """Any value as escaped text; safe between tags and in a double-quoted attribute."""
    return escape(str(value), quote=True)


def label(name: Any) -> str:
    """An identifier as a reader's words, escaped: relation_fidelity → relation fidelity."""
    return text(str(name).replace("_", " "))


def number(value: Any, beside: float = 0.0) -> str:
    """A figure as escaped text: about four digits, thousands apart, and a dash for None, NaN and infinities.

    beside: the largest magnitude in its column; it sets how many decimals are shown, so that they line up.
    """
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")  # a narrow space that does not break
    if isinstance(value, float):
        if not isfinite(value):
            return DASH
        if value != 0 and not 1e-3 <= abs(value) < 1e6:
            digits, power = f"{value:.2e}".split("e")
            return f"{digits.replace('-', '−')}·10<sup>{str(int(power)).replace('-', '−')}</sup>"
        size = max(abs(value), beside)
        decimals = 1 if size >= 100 else 2 if size >= 10 else 3
        return f"{value:,.{decimals}f}".replace(",", "\u202f").replace("-", "−")
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        return ", ".join(number(item) for item in value) or DASH
    return text(value)


def tile(name: Any, value: Any) -> str:
    """A figure to be read from afar. A mapping {"before": a, "after": b} shows b large and a beneath."""
    beneath = ""
    if isinstance(value, Mapping):
        size = _largest(value.values())
        beneath = f'<span class="was">before {number(value["before"], size)}</span>'
        shown, value = number(value["after"], size), value["after"]
    else:
        shown = number(value)
    small = (
        " words"
        if isinstance(value, str) and len(value) > 8
        else " long"
        if len(shown) > 8 and "<" not in shown
        else ""
    )
    what = f'<span class="what">{label(name)}</span>'
    return f'<div class="tile">{what}<span class="value{small}">{shown}</span>{beneath}</div>'


def is_tile(value: Any) -> bool:
    """Whether a figure is one number (or text), or one before and after."""
    if isinstance(value, Mapping):
        return set(value) == {"before", "after"} and not any(
            isinstance(v, Mapping | list | tuple) for v in value.values()
        )
    return not (isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value))


def table(caption: Any, content: Any) -> str:
    """A nested mapping, or a list of mappings, as a table.

    Where every entry is a mapping, these are rows that share columns (deeper levels joined by " · "), and what one of
    them lacks is a dash. Otherwise each value has a row of its own.
    """
    named = isinstance(content, Mapping)
    rows = list(content.items()) if named else [("", row) for row in content]
    head = ""
    if rows and all(isinstance(value, Mapping) for _, value in rows):
        flat = [(name, dict(_leaves(value))) for name, value in rows]
        columns = list(dict.fromkeys(column for _, cells in flat for column in cells))
        heads = "".join(f'<th scope="col">{label(column)}</th>' for column in columns)
        head = f"<thead><tr>{'<th></th>' if named else ''}{heads}</tr></thead>"
        sizes = {column: _largest(cells.get(column) for _, cells in flat) for column in columns}
        body = "".join(
            _row(name if named else None, [(cells.get(column), sizes[column]) for column in columns])
            for name, cells in flat
        )
    else:
        single = _leaves(content) if named else rows
        body = "".join(_row(name if named else None, [(value, 0.0)]) for name, value in single)
    title = f"<caption>{label(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{title}{head}<tbody>{body}</tbody></table></div>'


def _largest(values: Iterable[Any]) -> float:
    """The largest magnitude of the finite floats among the values; 0 without any."""
    floats = [abs(float(v)) for v in values if isinstance(v, float | np.floating) and isfinite(v)]
    return max(floats, default=0.0)


def _row(name: Any, cells: Iterable[tuple[Any, float]]) -> str:
    first = "" if name is None else f'<th scope="row">{label(name)}</th>'
    return f"<tr>{first}{''.join(_cell(value, beside) for value, beside in cells)}</tr>"


def _cell(value: Any, beside: float) -> str:
    return f"<td{WORDS if isinstance(value, str) else ''}>{number(value, beside)}</td>"


def _leaves(mapping: Mapping[Any, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in mapping.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name} · ")
        else:
            yield name, value


def settings(config: Any) -> str:
    """A configuration as YAML in a <pre>, to be copied into a recipe."""
    import yaml

    plain = json.loads(json.dumps(config, default=_plain))
    return f"<pre>{text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip())}</pre>"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def picture(data: Picture, alt: str, suffix: str = ".jpg") -> str:
    """An <img> that carries its own bytes."""
    kind = "png" if suffix == ".png" else "jpeg"
    coded = base64.b64encode(encode_picture(data, suffix)).decode("ascii")
    height, width = data.shape[:2]
    return f'<img alt="{text(alt)}" width="{width}" height="{height}" src="data:image/{kind};base64,{coded}">'


def document(title: str, body: str) -> str:
    """The whole file. The policy in its head forbids the browser to load anything that is not inside it."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
