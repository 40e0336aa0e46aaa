"""NIR graphs → HDF5, as `nir.write` lays them out: what every version of `nir` reads."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np

from spikecore.errors import ConversionError
from spikecore.files import write_file
from spikecore_deploy_nir.graph import NirGraph, NirNode

VERSION = "1.0.4"
"""Of the layout: the oldest version of `nir` that reads it."""


def write_graph(graph: NirGraph, path: Path) -> None:
    """Write a file, whole or not at all. Equal graphs give equal bytes.

    Raises:
        ConversionError: the disk refused, or the path is a directory or in none.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("version", data=VERSION, dtype=h5py.string_dtype())
        _write(file.create_group("node"), graph)
    try:
        write_file(Path(path), buffer.getvalue())
    except OSError as error:
        raise ConversionError(f"{path} cannot be written ({error}): give a path in a directory that exists") from error


def _write(group: h5py.Group, node: NirNode | NirGraph) -> None:
    kind = node.type if isinstance(node, NirNode) else "NIRGraph"
    group.create_dataset("type", data=kind, dtype=h5py.string_dtype())
    if isinstance(node, NirNode):
        for name, value in node.values.items():
            text = {"dtype": h5py.string_dtype()} if isinstance(value, str) else {}
            group.create_dataset(name, data=value, **text)
        return
    edges = np.array([[start.encode(), end.encode()] for start, end in node.edges], dtype=object)
    group.create_dataset("edges", data=edges.reshape(-1, 2), dtype=h5py.string_dtype())
    nodes = group.create_group("nodes")
    for name, part in node.nodes.items():
        _write(nodes.create_group(name), part)
    if node.metadata:
        metadata = group.create_group("metadata")
        for name, text_value in node.metadata.items():
            metadata.create_dataset(name, data=text_value, dtype=h5py.string_dtype())
