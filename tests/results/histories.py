"""Histories made up for tests."""

import numpy as np

from adamqlr.training.history import History


def history(seed: int, steps: list[int], times: list[float], losses: list[float], diverged: bool = False) -> History:
    """Make a history whose losses are given and whose accuracies are undefined."""
    made = History(seed, diverged=diverged)
    for step, time, loss in zip(steps, times, losses, strict=True):
        made.append(step, time, {"train_loss": loss, "test_loss": loss + 1, "validation_loss": loss, "lr": 0.1})
    return made


def random_history(seed: int, records: int, accuracy: bool = True) -> History:
    """Make a noisy, decreasing history."""
    generator = np.random.default_rng(seed)
    made = History(seed)
    for record in range(records):
        loss = float(np.exp(-record / records * 3 + 0.2 * generator.normal()))
        names = ("train_loss", "validation_loss", "test_loss", "lr", "damping", "rho", "sharpness")
        metrics = dict.fromkeys(names, loss)
        if accuracy:
            metrics |= dict.fromkeys(("train_accuracy", "validation_accuracy", "test_accuracy"), 1 / (1 + loss))
        # Step 0 is before any minibatch: only whole sets have been looked at.
        known = metrics if record else {name: value for name, value in metrics.items() if "test" in name}
        made.append(record, 0.01 * record * float(generator.uniform(0.9, 1.1)), known)
    made.times.sort()
    return made
