"""An executed notebook as a Markdown page."""

from html import escape
from pathlib import Path
from typing import Any

import nbformat


def page(path: Path) -> str:
    """Return the cells and outputs of a notebook as Markdown, with a link to the notebook itself."""
    notebook = nbformat.read(path, as_version=4)
    parts = ["".join(_cell(cell)) for cell in notebook.cells]
    parts.insert(1, f"The notebook itself: [{path.name}]({path.name}).\n")
    return "\n".join(parts)


def _cell(cell: Any) -> list[str]:
    if cell.cell_type == "markdown":
        return [cell.source, "\n"]
    return [f"```python\n{cell.source}\n```\n", *(f"\n{_output(one)}\n" for one in cell.outputs)]


def _output(output: Any) -> str:
    """Return one output: a picture or an HTML table as such, anything else as text."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```\n"
    data = output.data
    if "image/png" in data:
        picture = "".join(data["image/png"].split())
        return (
            f'<img alt="{escape(data.get("text/plain", "picture"))}" src="data:image/png;base64,{picture}">\n'
        )
    if "text/html" in data:
        rows = (line for line in data["text/html"].splitlines() if line.strip())
        return "\n".join(row.strip() for row in rows) + "\n"  # a blank line would end the HTML block
    return f"```text\n{data['text/plain']}\n```\n"
