"""Tables: what labels may hold is printed, and not taken for markup."""

import pandas as pd

from adamqlr.tables.final_results import with_uncertainty
from adamqlr.tables.formats import marked_html, to_html, to_latex, to_markdown
from adamqlr.tables.table import Table


def test_whatever_a_label_holds_is_escaped_in_latex() -> None:
    shown = pd.DataFrame({"Name": [r"a\b #1 ^2 $x {y} ~ 5 % a_b & λ", "2.1 [0.5, ∞]"]})
    text = to_latex(Table(shown, shown, pd.DataFrame({"Name": [False, True]})))
    assert r"a\textbackslash{}b \#1 \textasciicircum{}2 \$x \{y\} \textasciitilde{} 5 \% a\_b \& $\lambda$" in text
    assert r"\textbf{2.1 [0.5, $\infty$]}" in text
    assert text.isascii()


def test_whatever_a_label_holds_is_a_cells_text_in_markdown_and_html() -> None:
    shown = pd.DataFrame({"Name": ["a|b <c>"], "Loss": ["1"]})
    table = Table(shown, shown, pd.DataFrame({"Name": [False], "Loss": [True]}))
    assert r"| a\|b &lt;c> | **1**" in to_markdown(table)
    page = to_html(marked_html(table))
    assert "a|b &lt;c&gt;" in page
    assert "<b>1</b>" in page


def test_steps_are_written_out_and_not_rounded() -> None:
    assert with_uncertainty(25344.0, 0.0) == "25344"
    assert with_uncertainty(0.0123456, 0.0) == "0.01235"
