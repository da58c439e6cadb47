"""A figure's interval: what is computed of a resample is what its pictures alone would give, and
the interval covers as often as it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rkzoo.accuracy.average_precision import Curves  # noqa: F401
