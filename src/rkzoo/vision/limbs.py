"""Which key points are joined when a person is drawn, by the number of points."""

from __future__ import annotations

Limbs = tuple[tuple[int, int], ...]

# Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, the left one first:
# https://cocodataset.org/#keypoints-2020
COCO: Limbs = (
    (0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (7, 9), (6, 8),
    (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
# Right ankle to left ankle, pelvis, thorax, neck, head, right wrist to left wrist:
# http://human-pose.mpi-inf.mpg.de
MPII: Limbs = (
    (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (10, 11), (11, 12),
    (12, 7), (7, 13), (13, 14), (14, 15),
)  # fmt: skip
# COCO's, then head, neck, hip, and toes and heel of each foot:
# https://github.com/Fang-Haoshu/Halpe-FullBody
HALPE: Limbs = (
    (0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (17, 18), (18, 19), (18, 5), (18, 6), (5, 7), (7, 9),
    (6, 8), (8, 10), (19, 11), (19, 12), (11, 13), (13, 15), (12, 14), (14, 16),
    *((15, toe) for toe in (20, 22, 24)), *((16, toe) for toe in (21, 23, 25)),
)  # fmt: skip


def _hand(wrist: int, first: int) -> Limbs:
    """Five fingers of four joints, from the root at `first`."""
    fingers = range(first + 1, first + 21, 4)
    along = ((joint, joint + 1) for base in fingers for joint in range(base, base + 3))
    return ((wrist, first), *((first, base) for base in fingers), *along)


# COCO's, then feet, 68 points of the face, and hands:
# https://github.com/jin-s13/COCO-WholeBody
WHOLE_BODY: Limbs = (
    *COCO,
    *((15, toe) for toe in (17, 18, 19)),
    *((16, toe) for toe in (20, 21, 22)),
    *_hand(9, 91),
    *_hand(10, 112),
)

LIMBS: dict[int, Limbs] = {16: MPII, 17: COCO, 26: HALPE, 133: WHOLE_BODY}
