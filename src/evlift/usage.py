"""What the argument parser says of a wrong flag or value, told in one line that names the right one."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def plain(message: str, name: str, argv: list[str], parser: ArgumentParser) -> str:
    """The parser's words about a wrong flag or key, in one line that names the nearest right one."""
    message = " ".join(message.split()).rstrip(".")
    if "parsing config" in message:
        files = [word.split("=")[-1] for word in argv if word.endswith((".yaml", ".yml", ".json"))]
        where = re.sub(r'in "<unicode string>", ', "", message.split("config: ", 1)[-1])
        return f"config {' '.join(files)} is not YAML ({where}); mend that line"
    if "File does not exist" in message:
        return message.split('config": ', 1)[-1].replace("File does", "config does") + "; check the path"
    a_value = r'Parser key "([\w.]+)": (?:Expected an? (.*?)\. Got|.* Subtypes: \[([^,]*),.* Given) value: (.*)'
    if wrong := re.search(a_value, message):
        return f"{_flag(wrong[1], parser)} is {wrong[4]}; give {_wanted(wrong[2] or wrong[3])}"
    known = [action.dest for action in parser._actions if action.dest and action.dest != "help"]
    wrong = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
    if wrong:
        message = f"unknown setting {wrong[1]}.{wrong[2]}"
        near = difflib.get_close_matches(f"{wrong[1]}.{wrong[2]}", known, n=1)
    else:
        wrong = re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message)
        near = difflib.get_close_matches((wrong[1] or wrong[2]) if wrong else "", known, n=1)
    return f"{message}; " + (f"did you mean {near[0]}?" if near else f"see evlift {name} --help")


def _flag(dest: str, parser: ArgumentParser) -> str:
    """What is typed for a setting: `--as` for `kind`."""
    names = {action.dest: action.option_strings[0] for action in parser._actions if action.option_strings}
    return names.get(dest, dest)


def _wanted(kind: str) -> str:
    """The parser's name of a type in words."""
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "tuple": "numbers in brackets, such as [1,2]",
        "list": "numbers in brackets, such as [1,2]",
        "dict": "JSON, such as '{\"motion_px\": [2, 40]}'",
    }
    if literal := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return f"one of {literal[1]}".replace("'", "")
    name = re.sub(r"<class '(\w+)'>", r"\1", kind)
    elements = re.fullmatch(r"tuple with (\d+) elements", name)
    return f"{elements[1]} numbers in brackets" if elements else words.get(name, name)
