"""What both converters share: nets from ONNX files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from spikecore.errors import ConversionError


class OnnxSource:
    """Reads `.onnx` files; needs the package `onnx` (`pip install spikecore-ann2snn[onnx]`)."""

    def content(self, path: Path) -> bytes:
        """The file with its external data inside; see `spikecore.interfaces.ReadingConverter`.

        Raises:
            ConversionError: it is missing, truncated, not valid ONNX, or its external data are missing.
        """
        _require_onnx()
        from spikecore_ann2snn.onnx_file import packed

        return packed(path)

    def from_content(self, content: bytes) -> nn.Module:
        """The net; see `spikecore.interfaces.ReadingConverter`.

        Raises:
            ConversionError: an operator has no counterpart, or is used in a way that has none.
        """
        _require_onnx()
        from spikecore_ann2snn.onnx_net import OnnxNet

        return OnnxNet(content).eval()


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConversionError(
            f"reading ONNX needs the package onnx ({error}): pip install 'spikecore-ann2snn[onnx]'"
        ) from error
