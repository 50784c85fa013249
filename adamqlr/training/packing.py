"""Which runs are trained side by side in one process.

Importing this module does not import PyTorch: the workflow asks it what a job needs.
"""

from adamqlr.config import StudyConfig
from adamqlr.study.optimizers import OPTIMIZERS


def is_packed(config: StudyConfig, suite: str, dataset: str, optimizer: str, device: str) -> bool:
    """Tell whether runs are to be trained side by side, which can be done to perceptrons for a number of steps.

    Args:
        config: The study.
        suite: Decides what bounds a run.
        dataset: What is optimized.
        optimizer: A registered name.
        device: ``cpu`` or ``cuda``.
    """
    wanted, settings = config.training.pack, config.dataset(dataset)
    return (
        (wanted == "always" or (wanted == "auto" and device == "cuda"))
        and config.suite(suite).budget == "epochs"
        and settings.model == "mlp"
        and settings.augmentation == "none"
        and OPTIMIZERS[optimizer].packable
    )
