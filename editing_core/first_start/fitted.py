"""`fitted`, measured: the editor that a backbone has from its first day."""

from __future__ import annotations

from editing_core.editors.fitted import Fitted
from editing_core.first_start.material import Material


def measure_fitted(material: Material) -> Fitted:
    """The editor, with the statistics of rows that answers are made from; nothing is trained."""
    return Fitted.measure(material.backbone, material.edit_layer, material.asked)
