"""The hospitals of a simulation, as real site folders: drawn, read, or split from public sets."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from configs.loader import ConfigurationError
from mumc_model.data.importers import IMPORTERS
from mumc_model.data.phantom import write_hospitals
from mumc_model.data.records import CaptionRecord, SiteData, VqaRecord, read_site
from mumc_model.data.site_writer import SiteWriter
from simulations.config import SimulationConfig, SourceConfig
from simulations.partition import PartitionConfig, partition

Note = Callable[[str], None]

_SPLITS = "partition=alike, dirichlet, modality, organ or size"


def prepare(config: SimulationConfig, seed: int, folder: Path, note: Note = lambda text: None) -> list[Path]:
    """The site folders of one seed's hospitals under `folder`, written from the configured source.

    Raises:
        ConfigurationError: the source and the partition do not go together.
        DataError: the source cannot be read.
    """
    count, source, split = config.run.federation.sites, config.source, config.partition
    if source.kind == "public":
        hospitals = _deal_out(_public(source, folder, note), count, split, seed, folder, note)
    else:
        hospitals = _given(source, count, seed, folder, note)
        if split.scheme != "given":
            hospitals = _deal_out([read_site(path) for path in hospitals], count, split, seed, folder, note)
    if len(hospitals) != count:
        raise ConfigurationError(
            f"the source has {len(hospitals)} hospitals and federation.sites is {count}; set federation.sites="
            f"{len(hospitals)}, or have the patients dealt out with {_SPLITS}"
        )
    for path in hospitals:
        configure(path, config)
    return hospitals


def pool(hospitals: Sequence[Path], destination: Path, config: SimulationConfig) -> Path:
    """One folder with every hospital's captions: the archive that hospitals may not build, for the upper bound."""
    sites = [read_site(path) for path in hospitals]
    records = [(site, record) for site in sites for record in site.captions]
    _write(destination, "pool", records, [], _common_unit(sites))
    configure(destination, config)
    return destination


def _given(source: SourceConfig, count: int, seed: int, folder: Path, note: Note) -> list[Path]:
    if source.kind == "phantom":
        note(f"drawing {count} synthetic hospitals")
        return write_hospitals(replace(source.phantom, hospitals=count), folder / "sites", seed)
    root = Path(source.path)
    if (root / "site.yaml").is_file():
        return [root]
    sites = sorted(path.parent for path in root.glob("*/site.yaml"))
    if not sites:
        raise ConfigurationError(f"{root} is neither a site folder nor a folder of them; see mumc-site import")
    return sites


def _public(source: SourceConfig, folder: Path, note: Note) -> list[SiteData]:
    """The captions of one public set and the questions of another; what else the two hold is left out."""
    root = Path(source.path)
    captions = read_site(_import(source.captions, root, folder, note, {}))
    questions = read_site(_import(source.questions, root, folder, note, source.question_options))
    return [replace(captions, vqa=()), replace(questions, captions=())]


def _import(name: str, root: Path, folder: Path, note: Note, options: Mapping[str, str]) -> Path:
    """The public set as a site folder, imported once for all runs that read the same place."""
    if name not in IMPORTERS:
        raise ConfigurationError(f"no importer is called '{name}'; there are {', '.join(sorted(IMPORTERS))}")
    source = root / name
    digest = hashlib.sha256(repr((str(source.resolve()), sorted(options.items()))).encode()).hexdigest()[:8]
    destination = folder.parents[1] / "imported" / f"{name}-{digest}"
    if not (destination / "site.yaml").is_file():
        note(f"importing {name}")
        IMPORTERS[name](source, destination, on_progress=lambda done, total: None, **options)
    return destination


def _deal_out(
    sites: Sequence[SiteData], count: int, config: PartitionConfig, seed: int, folder: Path, note: Note
) -> list[Path]:
    if config.scheme == "given":
        raise ConfigurationError(f"public sets come without hospitals; say how to split their patients: {_SPLITS}")
    note(f"splitting patients over {count} hospitals: {config.scheme}")
    rng = np.random.default_rng([seed, 0x5917])
    captions = [(site, record) for site in sites for record in site.captions]
    questions = [(site, record) for site in sites for record in site.vqa]
    archived = {_patient(site, record) for site, record in captions}
    asked_only = {_patient(site, record) for site, record in questions} - archived
    labels = _labels([*captions, *questions], config.label)
    if config.questions == "alike":
        home = _deal(sorted(archived), labels, count, config, rng)
        home |= _deal(sorted(asked_only), labels, count, replace(config, scheme="alike"), rng)
    else:
        home = _deal(sorted(archived | asked_only), labels, count, config, rng)
    paths = []
    for index in range(count):
        path = folder / "sites" / f"hospital-{index + 1}"
        own_captions = [pair for pair in captions if home[_patient(*pair)] == index]
        own_questions = [pair for pair in questions if home[_patient(*pair)] == index]
        _write(path, path.name, own_captions, own_questions, _common_unit(sites))
        paths.append(path)
    return paths


def _deal(
    patients: Sequence[str], labels: dict[str, str], count: int, config: PartitionConfig, rng: np.random.Generator
) -> dict[str, int]:
    if not patients:
        return {}
    shares = partition([labels[patient] for patient in patients], count, config, rng)
    return {patients[i]: index for index, share in enumerate(shares) for i in share}


def _labels(records: Iterable[tuple[SiteData, CaptionRecord | VqaRecord]], label: str) -> dict[str, str]:
    """The most frequent value of the label among each patient's records."""
    counts: dict[str, Counter[str]] = {}
    for site, record in records:
        counts.setdefault(_patient(site, record), Counter())[record.labels.get(label, "unknown")] += 1
    return {patient: counter.most_common(1)[0][0] for patient, counter in counts.items()}


def _patient(site: SiteData, record: CaptionRecord | VqaRecord) -> str:
    return f"{site.name}/{record.patient_id}"


def _common_unit(sites: Sequence[SiteData]) -> str:
    return "patient" if all(site.unit == "patient" for site in sites) else "image"


def _write(
    root: Path,
    name: str,
    captions: Sequence[tuple[SiteData, CaptionRecord]],
    questions: Sequence[tuple[SiteData, VqaRecord]],
    unit: str,
) -> None:
    with SiteWriter(root, name, "patient" if unit == "patient" else "image") as writer:
        stored: dict[Path, str] = {}

        def image(site: SiteData, record: CaptionRecord | VqaRecord) -> str:
            if record.image not in stored:
                stored[record.image] = writer.add_image(record.image, f"{site.name}-{record.image.stem}")
            return stored[record.image]

        for site, caption in captions:
            patient = _patient(site, caption)
            writer.add_caption(image(site, caption), caption.caption, patient_id=patient, labels=caption.labels)
        for site, row in questions:
            writer.add_question(
                image(site, row),
                row.question,
                row.answer,
                answer_type=row.answer_type,
                question_type=row.question_type,
                split=row.split,
                patient_id=_patient(site, row),
                labels=row.labels,
            )


def configure(root: Path, config: SimulationConfig) -> None:
    """The engine's facts in the site's own file, where a real site has them."""
    path = root / "site.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings |= {"device": config.device, "precision": config.precision, "kernels": config.kernels}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
