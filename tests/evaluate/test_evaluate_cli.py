"""``endolux evaluate`` as a program."""

import json
import subprocess
import sys

import pytest

PROGRAM = "import sys; from endolux.cli import root; sys.exit(root.run(sys.argv[1:]))"


def run(*arguments):
    return run_program("evaluate", *arguments)


def run_program(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_table_and_report(pairs_folder, tmp_path):
    code, out, err = run("baseline:brightness", "--data", pairs_folder, "--depth-scale", "100", "-o", tmp_path / "r")
    assert (code, err) == (0, "")
    assert "abs_rel" in out
    assert (tmp_path / "r/result.json").exists()
    assert (tmp_path / "r/frames.csv").exists()


def test_json_and_partial_failure(pairs_folder):
    (pairs_folder / "images/2.png").write_bytes(b"text")
    code, out, err = run("baseline:constant", "--data", pairs_folder, "--depth-scale", 100, "--json")
    content = json.loads(out)
    assert code == 5
    assert content["ok"] is False
    assert content["metrics"]["abs_rel"]["frames"] == 3
    assert content["failures"][0]["name"] == "2"
    assert len(err.splitlines()) == 3
    assert err.startswith("error[run.partial]: 1 of 4")


@pytest.mark.parametrize(
    ("arguments", "code", "error_id"),
    [
        (["baseline:constant"], 2, "evaluate.depth-scale"),
        (["baseline:none", "--depth-scale", "100"], 2, "evaluate.baseline"),
        (["baseline:constant", "--depth-scale", "0"], 2, "evaluate.depth-scale"),
        (["baseline:constant", "--depth-scale", "100", "--alignment", "none"], 2, "align.kind"),
        (["baseline:constant", "--depth-scale", "100", "--alignment", "best"], 2, "usage.arguments"),
        (["no-such-model", "--depth-scale", "100"], 4, "model."),
    ],
)
def test_wrong_usage(pairs_folder, arguments, code, error_id):
    found, out, err = run(*arguments, "--data", pairs_folder)
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 3
    assert error_id in err.splitlines()[0]


def test_missing_data_and_existing_output(pairs_folder, tmp_path):
    code, _, err = run("baseline:constant", "--data", tmp_path / "no")
    assert (code, "input.missing" in err) == (3, True)
    (tmp_path / "r").mkdir()
    (tmp_path / "r/result.json").write_text("precious")
    code, _, err = run("baseline:constant", "--data", pairs_folder, "--depth-scale", 100, "-o", tmp_path / "r")
    assert (code, "output.exists" in err) == (2, True)
    assert (tmp_path / "r/result.json").read_text() == "precious"
