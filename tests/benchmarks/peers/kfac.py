"""kfac-jax, configured as :class:`adamqlr.KFAC` is."""

from typing import Any

import jax
import kfac_jax
from jax import Array

from .problem import Batch, Layers, Problem, loss_of, network
from .steps import Info, Start, Step

SAMPLED, EXACT = "fisher_gradients", "fisher_exact"


def kfac(problem: Problem, fisher: str = SAMPLED) -> Start:
    """Return what starts a training, with learning rate, momentum and damping adapted and inverses at every step."""

    def objective(layers: Layers, batch: Batch) -> Array:
        inputs, targets = batch
        outputs = network(layers, inputs)
        if problem.loss == "half_mse":
            weight = 1.0 / outputs.shape[1]
            kfac_jax.register_normal_predictive_distribution(outputs, targets, variance=1.0, weight=weight)
        else:
            kfac_jax.register_categorical_predictive_distribution(outputs, targets)
        return loss_of(problem.loss, outputs, targets)

    optimizer = kfac_jax.Optimizer(
        jax.value_and_grad(objective),
        l2_reg=0.0,
        use_adaptive_learning_rate=True,
        use_adaptive_momentum=True,
        use_adaptive_damping=True,
        initial_damping=1.0,
        damping_adaptation_interval=1,
        num_burnin_steps=0,
        estimation_mode=fisher,
        curvature_ema=0.95,
        inverse_update_period=1,
    )

    def start() -> Step:
        rng, key = jax.random.split(jax.random.PRNGKey(0))
        # The optimizer gives away the memory of parameters and state at every step.
        layers: Any = jax.tree.map(lambda part: part.copy(), problem.layers)
        state, steps = optimizer.init(layers, key, problem.batch), 0

        def take() -> tuple[Layers, Info]:
            nonlocal rng, layers, state, steps
            # As in the loop of its documentation: with one key, the Fisher's targets would be the same at every step.
            rng, key = jax.random.split(rng)
            layers, state, info = optimizer.step(layers, state, key, batch=problem.batch, global_step_int=steps)
            steps += 1
            return layers, info | {"lr": info["learning_rate"]}

        return take

    return start
