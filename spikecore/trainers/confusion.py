"""What a classifier takes for what, as values that a run can show."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spikecore.errors import ShapeError
from spikecore.interfaces.show import Histogram, Shown, Table

MAX_CLASSES = 40
"""More do not fit into a picture."""
NUM_ROWS = 20


def confusion(counts: Tensor, classes: Sequence[str] = (), split: str = "test") -> dict[str, Shown]:
    """The confusion matrix, and the share of each class that is recognised; of many classes the worst confusions.

    Args:
        counts: `[N, N]`, integers; rows are the true classes, columns the predicted ones.
        classes: their names; numbers where there are none.
        split: what was evaluated.

    Returns:
        Name → value, for `context.show`.

    Raises:
        ShapeError: `counts` is not square.

    Example:
        >>> import torch
        >>> confusion(torch.tensor([[3, 1], [0, 4]]), ("cat", "dog"))["recall"].values
        (0.75, 1.0)
    """
    if counts.dim() != 2 or counts.shape[0] != counts.shape[1]:
        raise ShapeError(f"confusion takes counts [N, N], got {list(counts.shape)}")
    rows: list[list[int]] = counts.tolist()
    names = [str(name) for name in classes[: len(rows)]]
    names += [str(index) for index in range(len(names), len(rows))]
    num_samples = sum(map(sum, rows))
    if len(rows) > MAX_CLASSES:
        return {"confusion": _worst(rows, names, f"The most frequent, of {len(rows)} classes; {split} split.")}
    shown: dict[str, Shown] = {
        "confusion": Table(
            head=("true / predicted", *names),
            rows=[(name, *line) for name, line in zip(names, rows, strict=True)],
            is_matrix=True,
            caption=f"{split.capitalize()} split, {num_samples} samples.",
        )
    }
    recall: list[float | None] = []
    for index, line in enumerate(rows):
        num_own = sum(line)  # 0 for a class that the split has no sample of
        recall.append(line[index] / num_own if num_own else None)
    caption = f"Share of the samples of each class that is recognised; {split} split."
    shown["recall"] = Histogram(recall, names=names, is_share=True, caption=caption)
    return shown


def _worst(rows: Sequence[Sequence[int]], names: Sequence[str], caption: str) -> Table:
    wrong = []
    for true, line in enumerate(rows):
        for predicted, count in enumerate(line):
            if count and true != predicted:
                wrong.append((count, true, predicted))
    wrong.sort(key=lambda cell: (-cell[0], cell[1], cell[2]))
    cells = [(names[true], names[predicted], count) for count, true, predicted in wrong[:NUM_ROWS]]
    return Table(("true", "predicted", "samples"), cells, caption=caption)
