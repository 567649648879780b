"""Optimiser, schedule, precision and progress around a task, as one state that can be resumed."""

import time
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from attention_ablation.training.precision import autocast
from attention_ablation.training.schedule import learning_rate
from attention_ablation.training.sgd import SGD, parameter_groups
from attention_ablation.training.task import Task, means


class Stopped(Exception):  # noqa: N818  (a request that was met, not an error)
    """The loop was asked to stop and did so between two batches, with its state saved."""


class Loop:
    """Trains a task epoch by epoch; `history` has a row for each that is done.

    Everything that the next step depends on is in `state_dict`, the epoch under way included, so a
    loop that loads it goes on as if it had never stopped. The data order is not in there: it
    follows from seed and epoch. Nor is the number of processes, which may be another one then.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.recipe = recipe = task.recipe
        self.device = device = task.device
        self.processes = task.processes
        self.step = 0
        self.history: list[dict[str, float]] = []
        # This process's, of the epoch under way.
        self.sums = torch.zeros(len(task.columns) + 1, device=device)
        self.seconds = self.waited = 0.0  # likewise: its training, and its waiting for batches
        scaled = recipe.precision == "fp16"
        self.optimizer = SGD(
            parameter_groups(task.model, recipe),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=bool(recipe.nesterov),
            # A first step that the scaler leaves out would leave the fused momentum unset
            # (torch 2.15), and later steps would read whatever the memory held.
            fused=not scaled,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def epoch(
        self,
        asked_to_stop: Callable[[], bool] = lambda: False,
        save: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Train the rest of an epoch, evaluate, and return the history's new row.

        `save` is called when the steps are done: an evaluation that is interrupted is made again.
        Raises Stopped, after `save`, before the first batch at which `asked_to_stop` is true.
        """
        number, steps = len(self.history) + 1, self.task.steps_per_epoch
        done = self.step - (number - 1) * steps
        if done < steps:
            self._train(number, done, asked_to_stop, save)
            save()
        *values, images = self.processes.sum(self.sums).tolist()
        train = means(self.task.columns, values, images)
        start = time.perf_counter()
        found = self._evaluate(asked_to_stop) if self.recipe.evaluates(number) else {}
        seconds = self.seconds + time.perf_counter() - start
        row: dict[str, float] = {
            "epoch": number,
            "lr": float(f"{self._learning_rate((number - 1) * steps):.6g}"),
            **{f"train_{name}": value for name, value in train.items()},
            **{f"validation_{name}": value for name, value in found.items()},
            "seconds": round(seconds, 4),
            "compute_seconds": round(seconds - self.waited, 4),
            # Four digits, because a large detector on a CPU may take seconds for an image.
            "images_per_second": float(f"{images / self.seconds:.4g}"),
            "compute_images_per_second": float(f"{images / (self.seconds - self.waited):.4g}"),
        }
        self.history.append(row)
        self.sums.zero_()
        self.seconds = self.waited = 0.0
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest depends on; all processes call it, the main one's counts."""
        # Of this device alone: how many others there are may change before it goes on.
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **({"method": self.task.method.state_dict()} if self.task.method else {}),
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "progress": {
                "step": self.step,
                "history": self.history,
                "sums": self.processes.sum(self.sums),
                "seconds": self.seconds,
                "waited": self.waited,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was called, in any number of processes."""
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.task.method:
            self.task.method.load_state_dict(state["method"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        for name, value in state["progress"].items():
            setattr(self, name, value.to(self.device) if name == "sums" else value)
        if not self.processes.is_main:
            self.sums.zero_()  # they are in the main one's already

    def _train(
        self, epoch: int, done: int, asked_to_stop: Callable[[], bool], save: Callable[[], None]
    ) -> None:
        self.task.model.train()
        batches = self.task.batches(epoch, done)
        steps = range(done, self.task.steps_per_epoch)
        start = time.perf_counter() - self.seconds
        silent = None if self.processes.is_main else True  # None: where no terminal shows it
        for _ in tqdm(steps, f"epoch {epoch}", leave=False, disable=silent):
            if asked_to_stop():
                save()
                raise Stopped
            asked = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - asked
            self._step(batch)
            self.seconds = time.perf_counter() - start
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - start

    def _evaluate(self, asked_to_stop: Callable[[], bool]) -> dict[str, float]:
        def stop() -> None:
            if asked_to_stop():
                raise Stopped

        self.processes.share_buffers(self.task.model)
        with autocast(self.device, self.recipe):
            return self.task.validate(stop)

    def _step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.step)
        with autocast(self.device, self.recipe):
            loss, batch_sums = self.task.loss(batch)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        # All processes have the same gradients now, so where they overflowed all leave the step
        # out and all scales stay equal.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.sums += batch_sums
        self.step += 1

    def _learning_rate(self, step: int) -> float:
        recipe = self.recipe
        return learning_rate(
            recipe.schedule, recipe.learning_rate, step, self.task.steps_per_epoch, recipe.epochs
        )
