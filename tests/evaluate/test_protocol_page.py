"""docs/protocols.md is what the program prints."""

import json
from pathlib import Path

from endolux.datasets import protocols
from endolux.evaluate.protocol_page import protocol_page
from endolux.evaluate.quirks import QUIRKS

from .test_evaluate_cli import run_program

PAGE = Path(__file__).resolve().parents[2] / "docs/protocols.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == protocol_page(protocols()), (
        "run: endolux data protocols --markdown > docs/protocols.md"
    )


def test_every_protocol_and_quirk_has_its_line():
    page = protocol_page(protocols())
    for one in protocols().values():
        assert page.count(f"| `{one.identity}` |") == 1
        assert page.count(f"* `{one.identity}`: ") == 1
    for name in QUIRKS:
        assert f"* `{name}`: " in page
    widths = {line.replace("\\\\|", "").count("|") for line in page.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_program_prints_it():
    code, out, err = run_program("data", "protocols", "--markdown")
    assert (code, out, err) == (0, PAGE.read_text(encoding="utf-8"), "")
    code, out, _ = run_program("data", "protocols", "--json")
    assert code == 0
    assert {one["name"] for one in json.loads(out)["protocols"]} == set(protocols())
    code, out, err = run_program("data", "protocols", "--markdown", "--json")
    assert (code, "usage.arguments" in err) == (2, True)
