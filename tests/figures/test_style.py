"""How figures look."""

from itertools import pairwise

import matplotlib.pyplot as plt
import seaborn as sns
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adamqlr.figures.lines import line_style
from adamqlr.figures.style import paper_style, space_log_ticks
from adamqlr.study.optimizer_settings import OptimizerConfig
from adamqlr.study.optimizers import own_spec


@settings(deadline=None, max_examples=60)
@given(st.floats(-4, 3), st.floats(0.2, 4))
@example(-3.8125, 0.203125)
@example(-1.9999999999999996, 0.5)
def test_labels_of_logarithmic_axes_are_two_at_least_and_do_not_collide(start: float, decades: float) -> None:
    with paper_style():
        # Inches: a panel of three in a paper's text width.
        figure, axes = plt.subplots(figsize=(2.2, 1.8))
        axes.set(xscale="log", xlim=(10**start, 10 ** (start + decades)))
        space_log_ticks(axes.xaxis)
        figure.draw_without_rendering()
        low, high = axes.get_xlim()
        labels = [
            label
            for label in axes.get_xticklabels(which="both")
            # Matplotlib labels ticks at an axis' ends, but for rounding.
            if label.get_text() and low * (1 - 1e-9) <= label.get_position()[0] <= high * (1 + 1e-9)
        ]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    plt.close(figure)
    assert len(boxes) >= (1 if decades > 2 else 2)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_spare_colors_are_seaborns_hues_of_equal_lightness() -> None:
    settings = OptimizerConfig(optimizer="torch.optim:NAdam")
    specs = [own_spec(f"optimizer_{number}", settings, number) for number in range(100)]
    spare = {line_style(spec)["color"] for spec in specs}
    assert spare == set(sns.color_palette("husl", 8).as_hex())
