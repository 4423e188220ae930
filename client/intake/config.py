"""What an import of a hospital's archive does with what it finds: `intake` in site.yaml, or `-o NAME=VALUE`."""

import re
from dataclasses import dataclass
from typing import Literal

from configs.loader import ConfigurationError

WINDOWS = {
    "abdomen": (40.0, 400.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (60.0, 160.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "soft": (50.0, 400.0),
    "stroke": (40.0, 40.0),
}
"""Centre and width in Hounsfield units, as radiology workstations name them."""
_WINDOW = re.compile(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")
_POSITIVE = ("max_side", "max_file_mib", "max_megapixels", "max_files", "max_archive_gib")


@dataclass(frozen=True, kw_only=True)
class DeviceRule:
    """What is known of the pictures of one kind of device. What is left empty fits every device."""

    manufacturer: str = ""
    """Part of the header's Manufacturer; capitals do not matter."""
    model: str = ""
    """Part of its ManufacturerModelName."""
    modality: str = ""
    """Part of its Modality."""
    blank: tuple[tuple[float, float, float, float], ...] = ()
    """Parts of its pictures that are painted over: left, top, right, bottom as shares of width and height."""
    quarantine: bool = False
    """Every picture of it waits for a person."""
    trusted: bool = False
    """None of its pictures waits for what the header says; text is looked for all the same."""

    def __post_init__(self) -> None:
        """Refuse a rule that fits everything, or parts that are none.

        Raises:
            ConfigurationError: so it is.
        """
        if not (self.manufacturer or self.model or self.modality):
            raise ConfigurationError("a rule of intake.devices names no manufacturer, model or modality; name one")
        for left, top, right, bottom in self.blank:
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ConfigurationError(
                    f"intake.devices blanks {[left, top, right, bottom]}; write left, top, right, bottom as shares, "
                    "as in [0, 0, 1, 0.1]"
                )


@dataclass(frozen=True, kw_only=True)
class IntakeConfig:
    """How images are chosen, rendered and cleaned, and how much a source may be."""

    window: str = ""
    """Of CT images: a name such as `lung`, or `centre/width`; empty takes what the image itself asks for."""
    frames: Literal["first", "middle", "all", "none"] = "middle"
    """Which frames of a multi-frame image become images; `none` leaves such images out."""
    images_a_series: int = 3
    """Images of one series that become records, spread evenly over it; 0 takes all."""
    describe: bool = False
    """Give images without a report a caption of what their header says: "CT, chest"."""
    max_side: int = 512
    """Pixels of the longer side that are kept."""
    burned_in: Literal["redact", "quarantine"] = "redact"
    """What becomes of an image in which text was found: the text is painted over, or a person looks at it first."""
    quarantine: tuple[str, ...] = ("US", "SC", "OT", "XC", "ES", "GM", "SM", "DOC")
    """Modalities of which every image waits for a person: text is burned into them as a rule."""
    devices: tuple[DeviceRule, ...] = ()
    """Rules for the site's own devices."""
    dates: Literal["shift", "remove"] = "shift"
    """`shift` moves all dates of a patient by the same number of days; `remove` leaves none."""
    characteristics: Literal["bands", "remove"] = "bands"
    """Whether sex and age stay, the age in bands of ten years with 90 and more together."""
    reports: str = ""
    """A CSV file of reports, one a row; beside it, Structured Reports and text files of the archive are read anyway."""
    report_columns: str = ""
    """How its columns are called, as in `accession=AccNo,text=Befund`."""
    known_names: str = ""
    """A text file of the site's own names, one a line (patients, staff, wards), that no report may keep."""
    quarantine_reports: bool = True
    """Whether a report with doubtful words waits for a person; otherwise these words are replaced too."""
    workers: int = 0
    """Processes; 0 takes all cores."""
    max_file_mib: int = 1024
    """A larger file is left out."""
    max_megapixels: int = 64
    """A frame of more pixels is left out before it is decoded."""
    max_files: int = 10_000_000
    """Files that a source may hold."""
    max_archive_gib: int = 1024
    """What one zip may hold, unpacked."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ConfigurationError: a window or a limit means nothing.
        """
        self.window_of_ct()
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigurationError(f"intake.{name} is {getattr(self, name)}; choose 1 or more")
        if self.images_a_series < 0:
            raise ConfigurationError(f"intake.images_a_series is {self.images_a_series}; choose 0 for all, or more")
        if self.workers < 0:
            raise ConfigurationError(f"intake.workers is {self.workers}; choose 0 for all cores, or 1 or more")

    def window_of_ct(self) -> tuple[float, float] | None:
        """Centre and width in Hounsfield units; None where the image itself says.

        Raises:
            ConfigurationError: the window is neither a name nor two numbers.
        """
        if not self.window:
            return None
        if self.window in WINDOWS:
            return WINDOWS[self.window]
        found = _WINDOW.fullmatch(self.window)
        if found is None or float(found[2]) < 1:
            raise ConfigurationError(
                f"intake.window is {self.window!r}; write one of {', '.join(WINDOWS)}, or CENTRE/WIDTH as in 40/400"
            )
        return float(found[1]), float(found[2])
