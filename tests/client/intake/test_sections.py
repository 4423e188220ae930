import pytest

from client.intake.sections import described


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("FINDINGS: a mass.\nIMPRESSION: tumour.", "a mass. tumour."),
        ("INDICATION: cough, Mr Doe\nFINDINGS:\n clear\n lungs\nSIGNED BY: Dr House", "clear lungs"),
        ("IMPRESSION: tumour.\nFINDINGS: a mass.", "a mass. tumour."),
        ("Befund: Lunge frei.\nBeurteilung: kein Tumor.", "Lunge frei. kein Tumor."),
        ("Technique: CT\nConclusion: normal", "normal"),
        ("final impression: fine", "fine"),
        ("no heading   at\n all", "no heading at all"),
        ("The findings: are in the middle of a line", "The findings: are in the middle of a line"),
        ("Lungs clear.\nSigned by: Dr House", "Lungs clear."),
        ("", ""),
    ],
)
def test_findings_and_impression_stay_and_what_names_people_goes(text, kept):
    assert described(text) == kept
