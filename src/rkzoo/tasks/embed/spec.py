"""Embedding task specifications."""

from __future__ import annotations

from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open_clip(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.embed.open import clip

    return clip(parts, options)


def _open_sentence(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.embed.open import sentence

    return sentence(parts, options)


CLIP = TaskSpec(
    name="embed",
    open=_open_clip,
    options=frozenset({"prompts"}),
    dataset_task="classify",
    usage=('PICTURE --prompt "a dog" --prompt "a cat"', 'FOLDER --search "a dog"'),
)
SENTENCE = TaskSpec(
    name="embed",
    open=_open_sentence,
    input_kind="text",
    output_kind="output",
    options=frozenset({"prompts"}),
    usage=('"A TEXT" --prompt "ANOTHER"', 'NOTES.txt --search "SOME WORDS"'),
)
