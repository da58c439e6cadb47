"""From which cosine on a line of text has to do with the words that it is searched for.

.venv/bin/python benchmarks/search_threshold.py

Sentences and queries of fourteen topics: how many pairs of one topic, and of two, reach a cosine.
`SentenceEmbedder.near` comes from here (onnx, minilm).
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from rkzoo.tasks.embed.sentence import SentenceEmbedder
from rkzoo.workflow.inference.load import open_task
from rkzoo.workflow.inference.plan import plan

SENTENCES = {
    "pets": [
        "My dog sleeps beside the stove every night.",
        "The cat brought a mouse into the kitchen.",
    ],
    "cooking": [
        "Boil the noodles for eight minutes and drain them.",
        "She baked bread with rye flour.",
    ],
    "finance": [
        "The bank raised its interest rate by half a point.",
        "Shares fell sharply after the earnings report.",
    ],
    "weather": [
        "Heavy rain is expected in the valley tomorrow.",
        "A cold wind blew snow across the road.",
    ],
    "sport": [
        "The striker scored twice in the second half.",
        "She won the marathon in under three hours.",
    ],
    "music": [
        "The orchestra rehearsed the symphony until midnight.",
        "He plays jazz piano in a bar on Fridays.",
    ],
    "medicine": [
        "The doctor prescribed antibiotics for the infection.",
        "Her blood pressure was too high at the clinic.",
    ],
    "computers": [
        "The compiler reports an error in line forty.",
        "Restart the server after you install the update.",
    ],
    "travel": [
        "Our train to Vienna left the station an hour late.",
        "We booked a small hotel near the beach.",
    ],
    "law": [
        "The court dismissed the appeal without a hearing.",
        "Both parties signed the contract on Monday.",
    ],
    "garden": ["Tomatoes need sun and plenty of water.", "He pruned the apple trees in February."],
    "space": [
        "The probe entered orbit around Mars.",
        "Astronomers found a planet near a faint star.",
    ],
    "school": [
        "The pupils handed in their homework late.",
        "The teacher explained fractions with slices of cake.",
    ],
    "cars": [
        "The brakes of the truck need new pads.",
        "An electric car charges overnight in the garage.",
    ],
}
QUERIES = {
    "pets": ["a pet", "animals at home"],
    "cooking": ["a recipe", "how to make food"],
    "finance": ["money and markets", "the stock market"],
    "weather": ["the forecast", "bad weather"],
    "sport": ["a football match", "athletes winning"],
    "music": ["a concert", "musicians"],
    "medicine": ["being ill", "a patient in hospital"],
    "computers": ["software problems", "programming"],
    "travel": ["a holiday trip", "going abroad"],
    "law": ["a legal dispute", "lawyers"],
    "garden": ["growing vegetables", "plants"],
    "space": ["astronomy", "rockets and planets"],
    "school": ["learning in class", "education"],
    "cars": ["vehicles", "repairing a car"],
}


def main() -> None:
    topics = [topic for topic, texts in SENTENCES.items() for _ in texts]
    with ExitStack() as stack:
        task = open_task(plan("minilm"), stack)
        if not isinstance(task, SentenceEmbedder):
            raise TypeError(task)
        rows = task.embed_text([text for texts in SENTENCES.values() for text in texts])
        asked = [(topic, query) for topic, texts in QUERIES.items() for query in texts]
        meant = task.embed_text([query for _, query in asked])
    cosine = rows @ meant.T
    same = np.array([[topic == one for one, _ in asked] for topic in topics])
    print(f"{same.sum()} pairs of one topic, {(~same).sum()} of two")
    for bound in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
        reach = cosine >= bound
        print(f"{bound:.2f}: {reach[same].mean():6.1%} of one, {reach[~same].mean():6.1%} of two")


if __name__ == "__main__":
    main()
