"""Writes tests/tasks/pose_answers.npz: what OpenMMLab's mmpose makes of random key point outputs.

python scripts/pose_answers.py      (in an environment as scripts/upstream/pose.py says)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from upstream.pose import StandIns

OUT = Path(__file__).parents[1] / "tests/tasks/pose_answers.npz"


def main() -> None:
    sys.meta_path.insert(0, StandIns())  # type: ignore[arg-type]
    from mmpose.codecs import MSRAHeatmap, SimCCLabel, UDPHeatmap
    from mmpose.datasets.transforms import TopdownAffine
    from mmpose.structures.bbox import bbox_xyxy2cs

    random = np.random.default_rng(0)
    size = (192, 256)  # width, height
    simcc = [random.random((1, 8, side * 2)).astype(np.float16).astype(np.float32) for side in size]
    codec = SimCCLabel(size, sigma=(4.9, 5.66), simcc_split_ratio=2.0, normalize=False)
    points, scores = codec.decode(*simcc)
    maps = np.zeros((8, 64, 48), np.float32)
    y, x = np.mgrid[0:64, 0:48]
    for index, one in enumerate(maps):
        a, b = random.uniform([-1, -1], [48, 64])
        one[:] = random.uniform(0.2, 1) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8)
        one += random.normal(0, 0.01 * (index % 2), one.shape)
    maps = maps.astype(np.float16).astype(np.float32)  # as it is kept
    plain, plain_values = MSRAHeatmap(size, (48, 64), sigma=2).decode(maps.copy())
    udp, udp_values = UDPHeatmap(size, (48, 64), sigma=2).decode(maps.copy())
    down, right = np.mgrid[0:90, 0:120]
    picture = np.stack([down * 2, right * 2, down + right], 2).astype(np.uint8)
    picture[30:50, 40:60] = 255
    box = np.array([[31.5, 12.0, 70.0, 80.25]], np.float32)
    center, scale = bbox_xyxy2cs(box, padding=1.25)
    crops, extents = [], []
    for use_udp in (False, True):
        results = {
            "img": picture,
            "bbox_center": center.copy(),
            "bbox_scale": scale.copy(),
            "bbox_rotation": np.zeros(1, np.float32),
        }
        made = TopdownAffine(size, use_udp=use_udp).transform(results)
        crops.append(made["img"])
        extents.append(made["bbox_scale"][0])
    np.savez_compressed(
        OUT,
        simcc_x=simcc[0].astype(np.float16),
        simcc_y=simcc[1].astype(np.float16),
        maps=maps.astype(np.float16),
        simcc=np.concatenate([points[0], scores[0][:, None]], 1),
        plain=np.concatenate([plain[0], plain_values[0][:, None]], 1),
        udp=np.concatenate([udp[0], udp_values[0][:, None]], 1),
        picture=picture,
        box=box[0],
        center=center[0],
        extents=np.array(extents),
        crops=np.array(crops),
    )


if __name__ == "__main__":
    main()
