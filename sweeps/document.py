"""The grid file as plain data that remembers its lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from sweeps.problems import Finding, KeyPath, Problem, SpecError, brief

MAX_BYTES = 10_000_000


class Document:
    """A YAML file as plain Python data, the line of every key and list item, and the keys written twice.

    It is built from the node graph rather than loaded, because only there is every line known and no repeated key lost.
    Every key is the text that was written: this schema has no others.

    Raises:
        SpecError: the file cannot be read, or is no YAML.
    """

    def __init__(self, path: str | Path) -> None:
        self.file = str(path)
        self.lines: dict[KeyPath, int] = {}
        self.twice: list[Finding] = []
        # An alias is the node of its anchor: each node is built once, so aliases of aliases cannot multiply.
        self._built: dict[int, Any] = {}
        self._yaml = YAML(typ="safe", pure=True)
        text = self._read()
        try:
            root = self._yaml.compose(text)
            self.data = None if root is None else self._build(root, ())
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise self._unusable("found a character that YAML does not allow", line) from None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            tab = "; allowed: spaces, not tabs" if "'\\t'" in str(error.problem) else ""
            raise self._unusable(f"broken YAML: {error.problem}{tab}", mark and mark.line + 1) from None
        except RecursionError:
            raise self._unusable("broken YAML: nested too deeply") from None

    def error(self, findings: Sequence[Finding]) -> SpecError:
        """The findings with their lines, in line order."""
        problems = [Problem(self.file, self._line(path), _dotted(path), message) for path, message, _ in findings]
        return SpecError(sorted(problems, key=lambda problem: problem.line or 0))

    def _line(self, path: KeyPath) -> int:
        """The line of `path`, or of what it would stand in."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def _unusable(self, message: str, line: int | None = None) -> SpecError:
        return SpecError([Problem(self.file, line, "", message)])

    def _read(self) -> str:
        try:
            with Path(self.file).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise self._unusable("no such file; allowed: a grid file in YAML") from None
        except IsADirectoryError:
            raise self._unusable("found a folder; allowed: a grid file in YAML") from None
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        if len(raw) > MAX_BYTES:
            raise self._unusable(f"found more than {MAX_BYTES} bytes; allowed: a smaller file")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"found the byte {raw[error.start]:#04x}, not UTF-8; allowed: a text file in UTF-8"
            raise self._unusable(message, raw.count(b"\n", 0, error.start) + 1) from None

    def _build(self, node: Node, path: KeyPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._built:
            return self._built[id(node)]
        match node:
            case MappingNode():
                built = self._built[id(node)] = {}
                self._fill(built, node, path)
            case SequenceNode():
                built = self._built[id(node)] = []
                built += [self._build(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                built = self._scalar(node)
        return built

    def _fill(self, built: dict[str, Any], node: MappingNode, path: KeyPath) -> None:
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
            self.lines[*path, key] = key_node.start_mark.line + 1
            if key in built:
                self.twice.append(Finding((*path, key), "found twice; allowed: once"))
            else:
                built[key] = self._build(value_node, (*path, key))

    def _scalar(self, node: Node) -> Any:
        try:
            return self._yaml.constructor.construct_document(node)
        except ValueError:  # a date such as 2024-99-99, a number of too many digits
            message = f"broken YAML: {brief(str(node.value))} cannot be read"
            raise self._unusable(message, node.start_mark.line + 1) from None


def _dotted(path: KeyPath) -> str:
    keys = (f"[{part}]" if isinstance(part, int) else f".{brief(part)}" for part in path)
    return "".join(keys).lstrip(".")
