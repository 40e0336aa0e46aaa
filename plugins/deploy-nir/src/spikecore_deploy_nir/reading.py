"""HDF5 → NIR graphs. A file is a stranger's: its sizes are looked at before anything is allocated.

Refused are files that are damaged or say more bytes than allowed, links and datasets that lead out of the file, nodes
within nodes without end, and values that are neither numbers nor text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from spikecore.errors import ConversionError
from spikecore.hdf5 import check_hdf5
from spikecore_deploy_nir.graph import FIELDS, GRAPH, Array, NirGraph, NirNode, Value

MAX_NODES, MAX_DEPTH, MAX_TEXT = 100_000, 8, 1_000_000


def read_graph(path: Path, max_bytes: int) -> NirGraph:
    """The graph in a file; one that is a single node becomes a graph of it.

    Args:
        path: a `.nir` file.
        max_bytes: of all arrays together, after decompression.

    Raises:
        ConversionError: the file is missing, damaged, too large, or not NIR.
    """
    if not path.is_file():
        raise ConversionError(f"{path}: expected a .nir file, found {'a directory' if path.is_dir() else 'nothing'}")
    try:
        check_hdf5(path, ConversionError)
        with h5py.File(path, "r") as file:
            node = _Reader(path, max_bytes).node(_group(file, "node", path), "node", 0)
    except ConversionError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, UnicodeError) as error:
        raise ConversionError(
            f"{path}: not a NIR file, or a damaged one ({type(error).__name__}: {error}): write it again"
        ) from error
    if isinstance(node, NirNode):
        raise ConversionError(
            f"{path}: it holds a single {node.type}, whose input has no declared shape: put it into a NIRGraph with "
            "an Input and an Output"
        )
    return node


def _group(parent: h5py.Group, name: str, path: Path) -> h5py.Group:
    member = parent.get(name) if name in parent else None
    if not isinstance(member, h5py.Group):
        raise ConversionError(f"{path}: expected a group {name!r} in {parent.name}, as NIR files have")
    return member


@dataclass
class _Reader:
    """Counts what it reads."""

    path: Path
    bytes_left: int
    nodes_left: int = MAX_NODES

    def node(self, group: h5py.Group, where: str, depth: int) -> NirNode | NirGraph:
        if depth > MAX_DEPTH:
            raise ConversionError(f"{self.path}: graphs within graphs, more than {MAX_DEPTH} deep, at {where!r}")
        self.nodes_left -= 1
        if self.nodes_left < 0:
            raise ConversionError(f"{self.path}: more than {MAX_NODES} nodes")
        members = dict(self._members(group))
        kind = self._text(members.pop("type", None), f"{where}/type")
        if kind == GRAPH:
            return self._graph(members, where, depth)
        if kind not in FIELDS:
            raise ConversionError(
                f"{self.path}: node {where!r} is a {kind!r}, which is not supported; supported are {', '.join(FIELDS)}"
            )
        values: dict[str, Value] = {}
        for name, member in members.items():
            if name != "metadata":
                values[name] = self._value(member, f"{where}/{name}")
        missing = [name for name in FIELDS[kind] if name not in values]
        if missing:
            raise ConversionError(f"{self.path}: node {where!r}, a {kind}, lacks {', '.join(missing)}")
        return NirNode(kind, values)

    def _graph(self, members: dict[str, h5py.HLObject], where: str, depth: int) -> NirGraph:
        nodes = members.get("nodes")
        if not isinstance(nodes, h5py.Group) or "edges" not in members:
            raise ConversionError(f"{self.path}: graph {where!r} lacks its nodes or its edges")
        edges = self._value(members["edges"], f"{where}/edges")
        if isinstance(edges, str) or (edges.size and (edges.ndim != 2 or edges.shape[1] != 2)):
            raise ConversionError(f"{self.path}: {where}/edges: expected pairs of names [E, 2]")
        pairs = tuple((_decoded(start), _decoded(end)) for start, end in edges.reshape(-1, 2).tolist())
        parts = {name: self.node(_as_group(part, name), name, depth + 1) for name, part in self._members(nodes)}
        return NirGraph(parts, pairs, self._metadata(members.get("metadata"), where))

    def _metadata(self, group: h5py.HLObject | None, where: str) -> dict[str, str]:
        """Its texts; whatever else a tool may have left there is none of our business."""
        texts: dict[str, str] = {}
        if isinstance(group, h5py.Group):
            for name, member in self._members(group):
                if isinstance(member, h5py.Dataset) and h5py.check_string_dtype(member.dtype) and not member.shape:
                    texts[name] = self._text(member, f"{where}/metadata/{name}")
        return texts

    def _members(self, group: h5py.Group) -> Iterator[tuple[str, h5py.HLObject]]:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ConversionError(
                    f"{self.path}: {group.name}/{name} is a link to another place, which may lie in another file"
                )
            yield name, group[name]

    def _value(self, member: h5py.HLObject | None, where: str) -> Value:
        if not isinstance(member, h5py.Dataset):
            raise ConversionError(f"{self.path}: {where}: expected a number, an array or a text")
        if member.external or member.is_virtual:
            raise ConversionError(f"{self.path}: {where}: its values lie in another file")
        text = h5py.check_string_dtype(member.dtype)
        if text is None and member.dtype.kind not in "fiub":
            raise ConversionError(f"{self.path}: {where}: expected numbers or text, got {member.dtype}")
        if member.shape is None:
            raise ConversionError(f"{self.path}: {where}: it is empty")
        # A chunk may be larger than its dataset, and is decompressed whole.
        sizes = [int(np.prod(shape, dtype=object)) for shape in (member.shape, member.chunks or ())]
        self.bytes_left -= max(member.dtype.itemsize, 1) * max(sizes)
        if self.bytes_left < 0:
            raise ConversionError(
                f"{self.path}: {where} of shape {member.shape} exceeds the memory that is allowed for a file; "
                "set max_bytes if the file is yours"
            )
        value = member[()]
        if text is not None and not member.shape:
            return _decoded(value)
        return _numbers(value)

    def _text(self, member: h5py.HLObject | None, where: str) -> str:
        value = self._value(member, where)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise ConversionError(f"{self.path}: {where}: expected a text of at most {MAX_TEXT} letters")
        return value


def _as_group(member: h5py.HLObject, name: str) -> h5py.Group:
    if not isinstance(member, h5py.Group):
        raise TypeError(f"node {name!r} is no group")
    return member


def _decoded(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _numbers(value: object) -> Array:
    array: Array = np.asarray(value)
    return array
