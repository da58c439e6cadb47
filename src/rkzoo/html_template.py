"""HTML rendering with the bundled jinja2 templates (PC only)."""

from __future__ import annotations

from typing import Any

from rkzoo.errors import RkzooError


def render(template: str, **values: Any) -> str:
    """Render a template of rkzoo/templates.

    Args:
        template: file name, such as "zoo.html".
        values: template variables. Text is escaped; an undefined variable is an error.

    Raises:
        RkzooError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise RkzooError(
            "The HTML page cannot be written here.",
            f"The package jinja2 is not installed ({error}).",
            'Install it with: pip install "rkzoo[pc]"',
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rkzoo"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # For `tojson`: keep the key order, and do not escape non-ASCII characters.
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False,
        "separators": (",", ":"),
    }
    return environment.get_template(template).render(**values)
