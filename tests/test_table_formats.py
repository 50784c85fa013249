"""Tables as LaTeX: what labels may hold is printed, and not taken for markup."""

import pandas as pd

from adamqlr.tables.formats import to_latex
from adamqlr.tables.table import Table


def test_whatever_a_label_holds_is_escaped_in_latex() -> None:
    shown = pd.DataFrame({"Name": [r"a\b #1 ^2 $x {y} ~ 5 % a_b & λ", "2.1 [0.5, ∞]"]})
    text = to_latex(Table(shown, shown, pd.DataFrame({"Name": [False, True]})))
    assert r"a\textbackslash{}b \#1 \textasciicircum{}2 \$x \{y\} \textasciitilde{} 5 \% a\_b \& $\lambda$" in text
    assert r"\textbf{2.1 [0.5, $\infty$]}" in text
    assert text.isascii()
