"""MATLAB files (version 5), read by scipy: `pip install spikecore-datasets-dvs[mat]`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError, PluginUnavailable


def read_mat(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Named arrays of a file.

    Raises:
        PluginUnavailable: scipy is not installed.
        DatasetError: the file is damaged, or lacks one of them.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise PluginUnavailable(
            "MATLAB files need scipy, which is not installed", "pip install 'spikecore-datasets-dvs[mat]'"
        ) from error
    try:
        arrays = loadmat(path, variable_names=names)
    except OSError:
        raise
    except Exception as error:  # scipy's parser raises what it likes
        raise DatasetError(f"{path}: is not a sound MATLAB file: {error}") from error
    if missing := [name for name in names if name not in arrays]:
        raise DatasetError(f"{path}: lacks the array {missing[0]!r}")
    return [np.asarray(arrays[name]).reshape(-1) for name in names]
