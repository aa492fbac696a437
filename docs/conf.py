"""Settings of the documentation's pages, which ``make docs`` builds into build/docs without a network."""

import inspect
import re
from importlib import import_module

from docutils import nodes
from docutils.parsers.rst import Directive

from lens_d2 import __version__

project = "LENS-D2"
version = release = __version__
html_title = f"LENS-D2 {version}"
html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["pages.css"]
html_copy_source = html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

# Module and name of each registry on the page api/registries.
REGISTRIES = [
    ("lens_d2.data.sources.source", "SOURCE_REGISTRY"),
    ("lens_d2.data.augmentation", "AUGMENTATION_REGISTRY"),
    ("lens_d2.modeling.classifiers", "CLASSIFIER_REGISTRY"),
    ("lens_d2.modeling.classifiers", "CLASSIFIER_LOSS_REGISTRY"),
    ("lens_d2.modeling.missing_labels", "MISSING_LABELS"),
    ("lens_d2.inference.linking", "LINKER_REGISTRY"),
    ("lens_d2.mining.lens.strategies", "STRATEGIES"),
    ("lens_d2.evaluation.protocols", "PROTOCOLS"),
    ("lens_d2.evaluation.readers", "BOX_READERS"),
    ("lens_d2.export", "EXPORT_REGISTRY"),
    ("lens_d2.engine.stages", "STAGES"),
]


def list_registries(app, docname: str, source: list[str]) -> None:
    """Appends the entries of all registries to their page."""
    if docname == "api/registries":
        source[0] += "\n".join(_section(import_module(module), name) for module, name in REGISTRIES)


def _section(module, name: str) -> str:
    registry = getattr(module, name)
    rows = [f"| `{key}` | {_first_sentence(entry)} |" for key, entry in sorted(registry)]
    lines = ["", f"## {name}", "", f"`{module.__name__}.{name}`. {_first_sentence(registry)}", ""]
    return "\n".join([*lines, "| name | entry |", "| --- | --- |", *rows, ""])


def _first_sentence(entry) -> str:
    """First sentence of a docstring, as one line of Markdown."""
    text = " ".join((inspect.getdoc(entry) or "").split("\n\n")[0].split())
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", re.split(r"(?<=[.:]) (?=[A-Z`])", text)[0])
    return text.rstrip(":").replace("``", "`").replace("|", r"\|")


class Mermaid(Directive):
    """Shows the text of a diagram, which GitHub draws: drawing it here would take a script from the network."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """A block of the text."""
        text = "\n".join(self.content)
        block = nodes.literal_block(text, text, language="none")
        return [nodes.container("", block, classes=["diagram"])]


def setup(app) -> None:
    """Adds the directive and the entries of the registries."""
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", list_registries)
