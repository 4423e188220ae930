"""What all pages share: nothing that is shown can become markup, and what is empty is left out."""

import re

from mumc_model.page import DARK, LIGHT, bullets, figure, section, style, table, whole

EVIL = '<script>alert("1")</script>'


def test_no_text_becomes_markup():
    page = whole(
        EVIL,
        "",
        section(EVIL, figure("<svg></svg>", EVIL), table([EVIL], [[EVIL, EVIL]], caption=EVIL), bullets([EVIL])),
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 8


def test_what_is_empty_is_left_out():
    assert (section("Privacy", "", ""), table(["site"], [])) == ("", "")


def test_a_table_names_its_heads_and_rows_for_who_cannot_see_it():
    found = table(["site", "n"], [["north", "1"]], caption="How many")
    assert "<caption>How many</caption>" in found
    assert '<th scope="col">site</th><th scope="col">n</th>' in found
    assert '<th scope="row">north</th><td>1</td>' in found
    assert "<thead>" not in table(None, [["north", "1"]])


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return sum(
        weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
        for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


def test_letters_stand_out_from_paper_and_card_in_light_and_dark_as_wcag_asks():
    for colours in (LIGHT, DARK):
        for letters in ("ink", "faint"):
            for ground in ("paper", "card"):
                low, high = sorted((luminance(colours[letters]), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5


def test_a_pages_own_colours_stand_in_both_and_its_rules_after_the_houses():
    css = style(54, "p { margin: 0; }", light={"local": "#c77700"}, dark={"local": "#f0a132"})
    assert css.index("--local: #c77700") < css.index("prefers-color-scheme: dark") < css.index("--local: #f0a132")
    assert css.endswith("p { margin: 0; }")
    assert re.search(r"max-width: 54rem", css)
    assert "%" + "%" not in css
