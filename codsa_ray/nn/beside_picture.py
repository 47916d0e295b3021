"""Beside pictures: the table columns of real rows, which drawn pictures are told and set beside; knows no picture and no network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import ShortOfRows
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.nn.table_codec import TableCodec

ROWS = "rows.parquet"


@dataclass(frozen=True, eq=False)
class BesidePictures:
    """Training rows without their pictures.

    Args:
        picture: name of the column of pictures.
        rows: sorted by region: the drawn columns but the pictures, and under the pictures' name whether there is one (bool).
        starts: (K + 1,) region k is starts[k]:starts[k + 1].
        codec: of the columns beside the pictures.
        undrawn: training rows that are left out, since the schema forbids drawing them (rarer categories), while their region has others.
    """

    picture: str
    rows: pa.Table
    starts: tuple[int, ...]
    codec: TableCodec
    undrawn: int

    @staticmethod
    def of(data: FitData, picture: str, table: pa.Table) -> "BesidePictures":
        """From the table's rows, the codec from all of them."""
        columns = tuple(c for c in data.schema.columns if c.name not in data.regions.constant_columns and c.name != picture)
        region, broken = table[REGION].to_numpy(), data.schema.violations(table)[0]
        least = np.bincount(region[~broken], minlength=len(data.regions)) > 0
        kept = np.flatnonzero(~broken | ~least[region])
        kept = kept[np.argsort(region[kept], kind="stable")]
        rows = table.select([c.name for c in columns]).append_column(picture, table[picture].is_valid()).take(pa.array(kept))
        starts = np.concatenate([[0], np.cumsum(np.bincount(region[kept], minlength=len(data.regions)))])
        return BesidePictures(picture, rows.combine_chunks(), tuple(starts.tolist()), TableCodec.of(columns, table), len(table) - len(kept))

    @property
    def width(self) -> int:
        """Dimensions that the columns are told in."""
        return self.codec.layout.width

    def told(self, table: pa.Table) -> np.ndarray:
        """(n, width) float32 of rows with these columns."""
        return self.codec.encode(table)

    def drawn(self, region: int, many: int, rng: np.random.Generator) -> pa.Table:
        """Rows of the region with replacement.

        Raises:
            ShortOfRows: the region has none.
        """
        start, stop = self.starts[region : region + 2]
        if start == stop:
            raise ShortOfRows(f"wanted a row of region {region} to set pictures beside; got none; leave the region out or merge it")
        return self.rows.take(pa.array(rng.integers(start, stop, many)))

    def filled(self, rows: pa.Table, files: list[bytes]) -> pa.Table:
        """Drawn rows with their pictures, in order, where they have one."""
        there = rows[self.picture].combine_chunks()
        places = pc.if_else(there, pa.array(np.cumsum(np.asarray(there)) - 1), pa.scalar(None, pa.int64()))
        pictures = pa.array(files, pa.binary()).take(places)
        return rows.set_column(rows.column_names.index(self.picture), self.picture, pictures)

    def write(self, folder: Folder) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Writes the rows; returns the rest as plain data and arrays."""
        folder.write_table(ROWS, self.rows)
        plain, arrays = self.codec.to_json()
        return {"picture": self.picture, "starts": list(self.starts), "columns": plain, "undrawn": self.undrawn}, arrays

    @staticmethod
    def read(folder: Folder, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> "BesidePictures":
        """The inverse of `write`."""
        codec = TableCodec.from_json(meta["columns"], arrays)
        return BesidePictures(meta["picture"], folder.read_table(ROWS), tuple(meta["starts"]), codec, meta["undrawn"])
