"""Which card reads text in a language."""

from __future__ import annotations

from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.tasks.text.languages import missing, readable
from rkzoo.zoo.catalogue import cards


def reader_for(language: str, usual: str, report: ProgressReporter = SILENT) -> str:
    """The name of a card that reads lines and knows the letters of a language (a code such as
    de): the usual one where it does, else the newest of the zoo's text pipelines. Raises
    RkzooError where there is none."""
    from rkzoo.workflow.request.resolve import resolve

    missing(language, "")  # an unknown language should not cost a download
    others = {card.pipeline["rec"] for card in cards(report) if card.task == "text"} - {usual}
    lost, known = "", set()
    for name in (usual, *sorted(others, reverse=True)):
        labels = frozenset(resolve(name, report=report).contract.labels)
        lost = missing(language, labels)
        if not lost:
            if name != usual:
                report.note(
                    f"{name} reads the lines: {usual} does not know all letters of {language}."
                )
            return name
        known |= set(readable(labels))
    raise RkzooError(
        f"No model of the zoo reads {language!r}.",
        f"None knows all its letters; {lost[:10]} are among those that are missing.",
        f"The zoo's models read {', '.join(sorted(known))}.",
    )
