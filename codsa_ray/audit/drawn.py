"""Everything measured of drawn rows, ready for the report; knows stored tables, not how they came about."""

from typing import Any

import pyarrow as pa

from codsa_ray.audit import images, texts
from codsa_ray.audit.coupling import coupling
from codsa_ray.audit.fidelity import fidelity
from codsa_ray.audit.images import shrunk
from codsa_ray.audit.nearest import sample
from codsa_ray.audit.picture_quality import picture_quality
from codsa_ray.audit.pictures import pictures
from codsa_ray.audit.privacy import privacy
from codsa_ray.audit.text_quality import text_quality
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema


def audit(
    real: pa.Table, held_out: pa.Table, drawn: pa.Table, schema: Schema, regions: Regions, seed: int, rows: bool = True
) -> dict[str, Any]:
    """The report's parts: fidelity, privacy, sample, pictures (of columns that are pixels), images and texts with their quality, coupling.

    Args:
        real: canonical training rows with `_region`.
        held_out: canonical rows nothing was fitted on, with `_region` where it is known.
        drawn: canonical drawn rows with `_region`.
        schema, regions: of the final generator.
        seed: of which rows are looked at.
        rows: False leaves real rows out.
    """
    real, held_out, drawn = (shrunk(table, schema) for table in (real, held_out, drawn))
    return {
        "fidelity": fidelity(real, drawn, schema, regions, seed),
        "privacy": privacy(real, held_out, drawn, schema, seed),
        "sample": sample(real, drawn, schema, regions, seed, rows),
        "pictures": pictures(real, drawn, schema, regions, seed, rows),
        "images": images.beside(real, drawn, schema, regions, seed, rows),
        "picture_quality": picture_quality(real, held_out, drawn, schema, seed),
        "texts": texts.beside(real, drawn, schema, regions, seed, rows),
        "text_quality": text_quality(real, held_out, drawn, schema, seed),
        "coupling": coupling(real, drawn, schema, seed),
    }
