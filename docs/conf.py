"""How Sphinx builds the documentation: `make docs`.

The source is the repository itself: pages that lie beside what they describe are read where they are. Every `.md` page
is plain Markdown, whose relative links lead to the same places here and where repositories are browsed.
"""

from importlib import metadata

project = "AdamQLR"
author = "The adamqlr developers"
release = version = metadata.version("adamqlr")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "adamqlr/optim/README.md",
    "profiles/README.md",
    "results/README.md",
    "workflow/plugins/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
# What would only be searched.
exclude_patterns = [".*", "data", "envs", "slurm", "tests", "results/[!R]*", "site"]

# A link that leads nowhere, within a page too, is a warning, and warnings are errors.
nitpicky = True
myst_heading_anchors = 4
# Other packages' pages are not there without a network.
nitpick_ignore_regex = [(r"py:.*", r"(torch|collections|typing|numpy|xarray|contextlib|pathlib|abc)\..*")]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"AdamQLR {release}"
html_extra_path = ["root"]
html_show_copyright = False
copybutton_prompt_text = "$ "
