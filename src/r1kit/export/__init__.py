"""Trained models as files for other programs, each run and compared with the model before it counts as written."""

from r1kit.export.proof import ExportError
from r1kit.export.push import push
from r1kit.export.writing import Exported, export

__all__ = ["ExportError", "Exported", "export", "push"]
