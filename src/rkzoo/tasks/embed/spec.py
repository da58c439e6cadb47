"""Embedding task specifications."""

from __future__ import annotations

from rkzoo.tasks.spec import Opened, Task, TaskOptions, TaskSpec


def _open_clip(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.embed.open import clip

    return clip(opened, options)


def _open_sentence(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.embed.open import sentence

    return sentence(opened, options)


CLIP = TaskSpec(
    name="embed",
    open=_open_clip,
    options=frozenset({"prompts"}),
    scored="classify",
    usage=('PICTURE --prompt "a dog" --prompt "a cat"', 'FOLDER --search "a dog"'),
)
SENTENCE = TaskSpec(
    name="embed",
    open=_open_sentence,
    takes="text",
    gives="output",
    options=frozenset({"prompts"}),
    usage=('"A TEXT" --prompt "ANOTHER"', 'NOTES.txt --search "SOME WORDS"'),
)
