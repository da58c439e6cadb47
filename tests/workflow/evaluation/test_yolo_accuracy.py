"""Float accuracy on real pictures, through everything a user's picture goes through.

The reference scores come from another program. Measured which protocol they belong to: one
box a cell (its best class), confidence 0.001, IoU 0.65, 300 boxes, letterboxed to 640. With
`multi_label` YOLOv8n gets 0.419/0.594 and YOLO11n 0.452/0.611, with IoU 0.7 0.415/0.580 and
0.444/0.596.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rkzoo

# mAP50-95 and mAP50 on coco128_val.
REFERENCE = {"yolov8n": (0.413, 0.584), "yolo11n": (0.443, 0.597)}


def scores(model: rkzoo.Model, folder: Path) -> tuple[float, float]:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = json.loads((folder / "instances_bbox.json").read_text())
    categories = sorted(c["id"] for c in truth["categories"])
    files = sorted((folder / "images").glob("*.jpg"))
    assert len(files) == 128
    records = []
    for file in files:
        found = model(file).prediction
        assert isinstance(found, rkzoo.Detections)
        assert len(found) <= 300
        corners = found.xyxy.astype(float)
        corners[:, 2:] -= corners[:, :2]
        for box, score, class_id in zip(corners, found.score, found.class_id, strict=True):
            records.append(
                {
                    "image_id": int(file.stem),
                    "category_id": categories[int(class_id)],
                    "bbox": box.tolist(),
                    "score": float(score),
                }
            )
    ground = COCO(truth)
    evaluation = COCOeval_faster(
        ground, ground.loadRes(records), "bbox", print_function=lambda *_: None
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_the_reference_scores_in_float(name: str, assets: Path) -> None:
    path = assets / f"models/{name}.onnx"
    with rkzoo.load(path, confidence=0.001, iou=0.65, limit=300) as model:
        got = scores(model, assets / "data/coco128_val")
    print(f"{name}: mAP50-95 {got[0]:.4f}, mAP50 {got[1]:.4f} (onnx, 128 pictures)")
    assert got == pytest.approx(REFERENCE[name], abs=0.003)


def test_limit_and_multi_label_reach_the_decoder(assets: Path) -> None:
    picture = assets / "data/images/bus_640.jpg"
    path = assets / "models/yolov8n.onnx"
    with (
        rkzoo.load(path, confidence=0.001) as one,
        rkzoo.load(path, confidence=0.001, multi_label=True, limit=100000) as every,
        rkzoo.load(path, confidence=0.001, limit=3) as few,
    ):
        assert len(few(picture)) == 3
        assert len(every(picture)) > len(one(picture)) > 20
