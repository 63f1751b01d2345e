"""A callback that writes a CSV table of losses, gradient norm and learning rate."""

from tldet.engine.callbacks import Callback
from tldet.registry import HOOKS


@HOOKS.register_module()
class LossTable(Callback):
    """Append a line to ``losses.csv`` in the output directory of the run.

    Args:
        every: steps between two lines.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        step = batch_idx + 1
        if step % self.every or not runner.world.main:
            return
        losses = {name: float(value) for name, value in outputs["losses"].items()}
        row = {"step": step, **losses, "grad_norm": outputs["grad_norm"], "lr": max(outputs["lr"].values())}
        path = runner.work_dir / "losses.csv"
        with path.open("a") as file:
            if file.tell() == 0:
                file.write(",".join(row) + "\n")
            file.write(",".join(f"{value:g}" for value in row.values()) + "\n")
