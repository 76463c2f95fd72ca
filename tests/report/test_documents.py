"""Tables of documents: made from JSON files, and as these say."""

import json
import pathlib
import re

import pytest

from hamjepa_jax.errors import UserError
from hamjepa_jax.report import documents
from hamjepa_jax.report.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
AROUND = "Before.\n\n<!-- table: pairs numbers.json -->\n{}<!-- /table -->\nAfter.\n"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_those_of_their_files(document):
    text = document.read_text(encoding="utf-8")
    assert documents.made_again(document) == text, f"run: python -m hamjepa_jax.report {document.relative_to(ROOT)}"


RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda path: path.name)
def test_results_are_shown_and_name_no_machine_s_folders(file):
    assert any(file.name in path.read_text("utf-8") for path in [*DOCUMENTS, ROOT / "CHANGELOG.md"])
    paths = re.findall(r"(?<![\w./)])/\w[\w./-]*", file.read_text("utf-8"))
    assert not [path for path in paths if not path.startswith("/tmp/")]


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_measured_numbers_stand_in_tables(document):
    """Outside tables and code no number has a decimal point and a unit that only a measurement gives it."""
    text = re.sub(
        r"^<!-- table: .*?^<!-- /table -->$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    text = re.sub(r"^```.*?^```$|`[^`]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    unit = r"%|per cent|points|times|ms|s|seconds|minutes|[GMT]B|images/s|steps/s|TFLOP"
    assert not re.findall(rf"\b\d+\.\d+\s(?:{unit})(?!\w)|\d\s±\s\d|\b\d+\.\d+%", text)


TABLES = sorted(
    {
        (form, (document.parent / file).resolve().relative_to(ROOT).as_posix())
        for document in DOCUMENTS
        for form, file in re.findall(r"^<!-- table: (\S+) (\S+) -->$", document.read_text("utf-8"), re.MULTILINE)
    }
)


@pytest.mark.parametrize("form, file", TABLES)
def test_a_table_changes_with_its_numbers(form, file):
    """A form that showed nothing of its file, or cells of its own, would make every table look up to date."""
    content = json.loads((ROOT / file).read_text("utf-8"))
    shown = documents.FORMS[form](content)

    def doubled(value):
        if isinstance(value, dict):
            return {name: doubled(below) for name, below in value.items()}
        if isinstance(value, list):
            return [doubled(below) for below in value]
        return 2 * value if isinstance(value, float) else value

    rows, others = (
        [line.split(" | ")[1:] for line in table.splitlines() if line.startswith("|")][2:]
        for table in (shown, documents.FORMS[form](doubled(content)))
    )
    measured = re.compile(r"\d+\.\d*[1-9]")
    assert rows and len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row != other or not measured.search(" ".join(row))


@pytest.fixture
def document(tmp_path, monkeypatch):
    """A document with a table of the form "pairs", not made yet."""
    monkeypatch.setitem(
        documents.FORMS, "pairs", lambda content: "\n".join(f"| {k} | {content[k]} |" for k in "ab")
    )
    (tmp_path / "numbers.json").write_text(json.dumps({"a": 1, "b": 2}))
    path = tmp_path / "page.md"
    path.write_text(AROUND.format(""))
    return path


def test_a_table_follows_its_file_and_the_rest_stays(document, capsys):
    assert main([str(document)]) == 0
    assert document.read_text() == AROUND.format("| a | 1 |\n| b | 2 |\n")
    (document.parent / "numbers.json").write_text('{"a": 3, "b": 2}')
    assert documents.made_again(document) == AROUND.format("| a | 3 |\n| b | 2 |\n") != document.read_text()
    assert main([str(document)]) == 0 and main([str(document)]) == 0
    assert document.read_text() == documents.made_again(document)
    assert capsys.readouterr().out.splitlines()[-1].endswith("up to date")


def test_what_has_no_table_is_no_document(tmp_path, capsys):
    (tmp_path / "text.md").write_text("No table at all.\n")
    assert main([str(tmp_path / "text.md")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/text.md: has no table to make again")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    assert main([str(tmp_path / "picture.png")]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}/picture.png: is no text in UTF-8; name a Markdown document.\n"
    )


def test_a_table_says_where_its_numbers_are_from(document):
    made = {
        "command": "python -m any --flag=1",
        "versions": {"jax": "0.10.2", "numpy": "2"},
        "git": {"commit": "0123456789abcdef", "modified": False},
        "time": "2026-11-26T04:14:00+00:00",
    }
    (document.parent / "numbers.json").write_text(json.dumps({"a": 1, "b": 2} | made))
    line = "`python -m any --flag=1` (jax 0.10.2, commit 0123456789, 2026-11-26)"
    assert documents.made_again(document) == AROUND.format(f"| a | 1 |\n| b | 2 |\n\n{line}\n")
    changed = {
        "git": {"commit": "0123456789abcdef", "modified": True},
        "command": ["/x/any/__main__.py", "go", "a b"],
    }
    (document.parent / "numbers.json").write_text(json.dumps({"a": 1, "b": 2} | made | changed))
    told = "`python -m hamjepa_jax.any go 'a b'` (jax 0.10.2, commit 0123456789 with changes, 2026-11-26)"
    assert told in documents.made_again(document)
    (document.parent / "numbers.json").write_text(json.dumps({"a": 1, "b": 2} | made | {"git": None}))
    assert "(jax 0.10.2, 2026-11-26)" in documents.made_again(document)


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!-- table: pairs numbers.json -->\n| a | 1 |\n", "not between"),
        ("<!-- table: numbers.json -->\n<!-- /table -->\n", "not between"),
        (
            "<!-- table: circles numbers.json -->\n<!-- /table -->\n",
            "no such form; choose one of against_torch, differences, evaluation, factors",
        ),
        ("<!-- table: pairs none.json -->\n<!-- /table -->\n", "cannot be read"),
        ("<!-- table: pairs cut.json -->\n<!-- /table -->\n", "not what the form shows"),
        ("<!-- table: pairs other.json -->\n<!-- /table -->\n", "not what the form shows"),
    ],
)
def test_a_table_that_cannot_be_made_is_refused_and_nothing_is_changed(text, message, document, capsys):
    (document.parent / "cut.json").write_text('{"a": ')
    (document.parent / "other.json").write_text('{"a": 1}')
    document.write_text(text)
    with pytest.raises(UserError, match=message):
        documents.made_again(document)
    assert main([str(document)]) == 2 and document.read_text() == text
    assert capsys.readouterr().err.count("\n") == 1
