"""What a run shows while it lasts: its tables, the progress bar's text, and TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cardiogen.engine.fit.config import FitConfig, kl_weight, learning_rate
from cardiogen.engine.fit.logs import Row, Table
from cardiogen.engine.fit.state import Training


class Report:
    """The tables of a run, and TensorBoard beside them."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self.log_table = Table(folder and folder / "log.csv", step)
        self.validation_table = Table(folder and folder / "validation.csv", step)
        self.board = Board(folder and folder / "tensorboard", step)

    def log(self, run: Training, config: FitConfig, examples: int) -> None:
        """Write the row of the steps since the last one, of which an epoch has ``examples``."""
        done = run.step - 1
        row = {
            "step": run.step,
            "epoch": run.step * config.batch_size // examples,
            "learning_rate": learning_rate(config, done),
            "kl_weight": kl_weight(config, done),
            "skipped": run.window.skipped,
            "seconds": round(run.seconds, 3),
            **run.window.means(),
        }
        run.window.restart()
        self.log_table.append(row)
        self.board.add("train", row)

    def validate(self, row: Row) -> None:
        """Write the row of a validation."""
        self.validation_table.append(row)
        self.board.add("validation", row)

    def show(self, description: str) -> str:
        """Return the text of the progress bar."""
        loss = self.latest("loss")
        return description if loss is None else f"{description}, loss {loss:.4g}"

    def latest(self, name: str) -> float | None:
        """Return a number of the last row, None if there is none."""
        rows = self.log_table.rows
        return rows[-1].get(name) if rows else None

    def close(self) -> None:
        """End what TensorBoard is told."""
        self.board.close()

    def flush(self) -> None:
        """Bring all rows to the disk."""
        self.log_table.flush()
        self.validation_table.flush()


class Board:
    """TensorBoard, where it is installed and wanted; else nothing is imported or written."""

    def __init__(self, folder: Path | None, last_step: int) -> None:
        self.writer: Any = None
        if folder is not None and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=last_step + 1)

    def add(self, prefix: str, row: Mapping[str, float]) -> None:
        """Show the numbers of a row as ``prefix/name``."""
        if self.writer is not None:
            for name, value in row.items():
                if name != "step":
                    self.writer.add_scalar(f"{prefix}/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Bring what is shown to the disk."""
        if self.writer is not None:
            self.writer.close()
