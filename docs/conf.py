"""Sphinx: MyST pages, the notebooks of colab/ as pages, and references made from the package itself."""

import importlib.metadata
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
# Sphinx finds sources in its own folder only; the copies are not committed.
for notebook in (HERE.parent / "colab").glob("*.ipynb"):
    shutil.copy(notebook, HERE / "notebooks")

project, author = "hamjepa_jax", "the hamjepa_jax authors"
version = release = importlib.metadata.version("hamjepa-jax")
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton", "references",
]  # fmt: skip
exclude_patterns = ["_ext"]

html_show_copyright = False
html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["narrow.css"]
html_title = f"hamjepa_jax {version}"
html_theme_options = {
    "source_repository": "https://github.com/hamjepa/hamjepa_jax/",
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
copybutton_prompt_text = ">>> "

nitpicky = True
# Types of other packages, whose pages the build does not look up, and those of this one that annotations name.
_OTHERS = "jax|jnp|numpy|np|flax|nn|optax|ml_collections|os|collections|pathlib|typing|types|matplotlib|PIL"
nitpick_ignore_regex = [
    (r"py:.*", rf"({_OTHERS})\..*"),
    (r"py:class", r"hamjepa_jax\..*"),
]
autodoc_member_order = "bysource"
napoleon_use_ivar = True
autodoc_typehints_format = "short"
default_role = "code"
