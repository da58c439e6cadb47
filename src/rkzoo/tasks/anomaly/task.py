"""Anomaly detection."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from rkzoo.contract.anomaly import AnomalyHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.anomaly.result import AnomalyMap
from rkzoo.tasks.depth.task import single_map
from rkzoo.tasks.image_task import ImageTask, refuse_crop
from rkzoo.vision.letterbox import Letterbox
from rkzoo.vision.maps import to_source


class AnomalyDetector(ImageTask[AnomalyMap]):
    """Anomaly detector. Construct once, call once per image."""

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, AnomalyHead):
            raise RkzooError(f"{contract.family} finds no anomalies.", code=1)
        refuse_crop(contract, "An anomaly may be anywhere.")
        super().__init__(contract, session)
        self.head = contract.head
        names = [spec.name for spec in session.outputs]
        missing = [name for name in self.head.outputs if name not in names]
        if missing:
            raise RkzooError(
                f"The model has no output {missing[0]}.",
                f"It gives {', '.join(names)}.",
                "Name its outputs in the card's head: {kind: anomaly, map: ..., score: ...}.",
            )
        self._map = names.index(self.head.map)
        self._score = names.index(self.head.score) if self.head.score else None

    def postprocess(self, outputs: list[NDArray[Any]], letterbox: Letterbox) -> AnomalyMap:
        """Resize the map bilinearly to the source image.

        Raises:
            RkzooError: The map is not a single one of finite values.
        """
        specs = self.session.outputs
        values = single_map(outputs[self._map], specs[self._map])
        if self._score is None:
            score = float(values.max())
        else:
            score = float(dequantise(outputs[self._score], specs[self._score]).max())
        return AnomalyMap(to_source(values, letterbox), score, self.head.threshold)
