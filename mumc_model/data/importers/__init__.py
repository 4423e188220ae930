"""Importers of public sets and of a hospital's own tables: each writes a site's folder."""

from mumc_model.data.importers.csv_table import csv_table
from mumc_model.data.importers.gathering import Importer, ImportSummary
from mumc_model.data.importers.jsonl_table import jsonl_table
from mumc_model.data.importers.mimic_cxr_jpg import mimic_cxr_jpg
from mumc_model.data.importers.parquet import parquet
from mumc_model.data.importers.pathvqa import pathvqa
from mumc_model.data.importers.roco import roco
from mumc_model.data.importers.slake import slake
from mumc_model.data.importers.vqa_med_2019 import vqa_med_2019
from mumc_model.data.importers.vqa_rad import vqa_rad

__all__ = ["IMPORTERS", "ImportSummary", "Importer"]

IMPORTERS: dict[str, Importer] = {
    "csv_table": csv_table,
    "jsonl_table": jsonl_table,
    "mimic_cxr_jpg": mimic_cxr_jpg,
    "parquet": parquet,
    "pathvqa": pathvqa,
    "roco": roco,
    "slake": slake,
    "vqa_med_2019": vqa_med_2019,
    "vqa_rad": vqa_rad,
}
