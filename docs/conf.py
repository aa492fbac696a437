"""Settings of the documentation's pages, which ``make docs`` builds into build/docs without a network."""

from docutils import nodes
from docutils.parsers.rst import Directive

from lens_d2 import __version__

project = "LENS-D2"
version = release = __version__
copyright = "the authors of LENS-D2; research use only, not a medical device"  # noqa: A001

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"LENS-D2 {version}"
html_copy_source = False
exclude_patterns = ["conf.py"]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.header"]  # pages may begin below a heading of the first level

napoleon_numpy_docstring = False
napoleon_use_ivar = True
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88


class Mermaid(Directive):
    """Shows a diagram's text, which GitHub draws: drawing it here would take a script from the network."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """A block of the text as it is."""
        text = "\n".join(self.content)
        return [nodes.literal_block(text, text, language="none")]


def setup(app) -> None:
    """Adds the directive."""
    app.add_directive("mermaid", Mermaid)
