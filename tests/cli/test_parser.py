"""The one command-line dialect: what is accepted, what is refused in one line, and how a command ends."""

import errno
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from hamjepa_jax.cli.parser import Parser, list_of, number, read_config, run_command, truth, whole_number
from hamjepa_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("aot", "benchmark", "interop.export", "interop.torch", "physics", "theory")
COMMANDS = ("data.prepare", *(f"{page}.__main__" for page in PAGES))


@pytest.fixture
def parser():
    made = Parser(prog="command", description="A command.")
    made.add_config()
    made.add_path("--out", required=True, metavar="DIR", help="folder")
    made.add_argument("--batch_size", type=whole_number(1), default=7, metavar="N", help="size")
    made.add_argument("--debug", action="store_true")
    return made


def refusal(parser, capsys, *words):
    """The line that ends the command, of status 2."""
    return refused(lambda: run_command(lambda arguments: None, parser, words), capsys)


def refused(command, capsys):
    try:
        status = command()
    except SystemExit as stopped:
        status = stopped.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_overrides_come_in_order_wherever_they_stand(parser):
    arguments = parser.parse_args(
        [
            "--config.train.epochs=5", "--out=there", "--config", "a.py:x=1,y=b", "--config.a.b", "-1.2",
            "--config.train.epochs", "6", "-config.text=with = and , in it", "--config.log.tensorboard", "--debug",
            "--noconfig.log.plots", "--config.data.source=",
        ]
    )  # fmt: skip
    assert arguments.config == "a.py:x=1,y=b" and arguments.out == pathlib.Path("there") and arguments.debug
    assert arguments.overrides == [
        ("train.epochs", "5"),
        ("a.b", "-1.2"),
        ("train.epochs", "6"),
        ("text", "with = and , in it"),
        ("log.tensorboard", "True"),
        ("log.plots", "False"),
        ("data.source", ""),
    ]


def test_one_dash_is_enough_and_the_last_config_counts(parser):
    arguments = parser.parse_args(["-config=a.py", "--config=b.py:n=2", "-out", "x", "-batch_size=3"])
    assert (arguments.config, arguments.batch_size) == ("b.py:n=2", 3)
    assert arguments.overrides == []


def test_paths_are_a_user_s(parser, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    arguments = parser.parse_args(["--out=~/x", "--config=~/c.py:source=folder:/a//b/"])
    assert arguments.out == pathlib.Path("/home/someone/x")
    assert arguments.config == "/home/someone/c.py:source=folder:/a//b/"  # The file's arguments are no path.


@pytest.mark.parametrize(
    "words, message",
    [
        (["--oyt=x"], "--oyt: there is no such flag; did you mean --out?"),  # and not that --out is missing
        (["--out=x", "--batch=3"], "--batch: there is no such flag"),  # no abbreviations
        (["--out=x", "--batch-size=3"], "--batch-size: there is no such flag; did you mean --batch_size?"),
        (["--out=x", "-debugg"], "-debugg: there is no such flag; did you mean --debug?"),
        (["--out=x", "more"], "unexpected argument 'more'"),
        (["--out="], "--out: the path is empty"),
        (["--out=x", "--config="], "--config: the path is empty"),
        (["--out=x", "--batch_size=0"], "must be a whole number of at least 1, not '0'"),
        (["--out=x", "--batch_size=1e3"], "must be a whole number"),
        (["--out=x", "--batch_size=123456789012345678901234"], "must be a whole number"),
        (["--out=x", "--config.seed=1"], "--config.seed=1: changes a config; name its file first"),
        (["--out=x", "--config=a.py", "--noconfig.seed=1"], "--noconfig.seed=1: takes no value"),
        ([], "--out"),
    ],
)
def test_a_mistake_is_one_line_about_itself(words, message, parser, capsys):
    line = refusal(parser, capsys, *words)
    assert line.startswith("error: ") and message in line


def test_a_command_without_a_config_takes_no_overrides(capsys):
    assert "--config.seed: there is no such flag" in refusal(Parser(prog="x"), capsys, "--config.seed=1")


def test_help_shows_defaults_and_how_to_change_a_config(parser, capsys):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and "(default: 7)" in printed and "--config.FIELD" in printed


def test_types():
    assert list_of(int)("1, 2,") == (1, 2) and list_of(str, empty=True)("") == ()
    assert truth("true") and not truth("False")
    for kind, text in ((list_of(int), ","), (truth, "1"), (whole_number(0), "-1")):
        with pytest.raises(Exception, match=r"list is empty|true or false|at least 0"):
            kind(text)


def test_a_config_is_asked_for(parser):
    with pytest.raises(UserError, match="--config is missing: name one, as in --config=own"):
        read_config(parser.parse_args(["--out=x"]), "own")


@pytest.mark.parametrize(
    "error, status, message",
    [
        (UserError("out: is taken."), 2, "error: out: is taken."),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C."),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/f"),
            1,
            "error: /tmp/f: cannot be written (No space",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "too little memory for this (RESOURCE_EXHAUSTED"),
        (RuntimeError("Unable to initialize backend 'cuda': none"), 2, "there is no such device for JAX here"),
        (MemoryError("Unable to allocate 9 TiB"), 1, "use a smaller train.batch_size"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/tmp/f"), 1, "make it writable"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/tmp/f"),
            1,
            "error: /tmp/f: cannot be read or written",
        ),
    ],
)
def test_a_command_ends_in_one_sentence(error, status, message, parser, capsys):
    def fail(arguments):
        raise error

    assert run_command(fail, parser, ["--out=x"]) == status
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_odd_values_of_flags_are_one_line(parser, capsys):
    assert "--out=--: -- is no value" in refusal(parser, capsys, "--out=--")

    def fail(arguments):
        raise UserError("a\x1b[31m\nb\u202e: damaged.")

    assert run_command(fail, parser, ["--out=x"]) == 2
    assert capsys.readouterr().err == "error: a\\x1b[31m\\nb\\u202e: damaged.\n"
    assert run_command(lambda arguments: os.stat("x" * 300), parser, ["--out=x"]) == 2
    assert f"error: {'x' * 300}: the name is too long" in capsys.readouterr().err
    assert parser.parse_args(["--out=x", f"--config=a.py:{'x=1,' * 99}"]).config.startswith("a.py")


def test_a_fault_of_the_program_keeps_its_traceback(parser):
    def fail(arguments):
        raise ValueError("No space left on device")  # quoted, and no error of the system

    with pytest.raises(ValueError):
        run_command(fail, parser, ["--out=x"])


def test_a_command_finds_its_own_words(parser):
    found = []
    assert run_command(lambda arguments: found.append(arguments.argv), parser, ["--out=x", "--debug"]) == 0
    assert found == [["--out=x", "--debug"]]


def test_a_file_to_write_has_its_folder_before_the_work(tmp_path, capsys):
    made = Parser(prog="command", description="A command.")
    made.add_output_file("--json")
    file = tmp_path / "new" / "deep" / "numbers.json"
    assert made.parse_args([f"--json={file}"]).json == file and file.parent.is_dir()
    assert "is a folder; give a file in it" in refusal(made, capsys, f"--json={tmp_path}")
    (tmp_path / "file").touch()
    assert "cannot be made" in refusal(made, capsys, f"--json={tmp_path}/file/numbers.json")
    assert tmp_path.is_dir() and (tmp_path / "file").is_file()
    # The superuser may write anywhere, as permissions have it; and a device would be replaced by the file.
    assert "/proc: cannot be written into" in refusal(made, capsys, "--json=/proc/numbers.json")
    for device in ("/dev/null", "/dev/stdout"):
        assert "is a device or the like; give a file" in refusal(made, capsys, f"--json={device}")
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or the like" in refusal(made, capsys, f"--json={tmp_path}/pipe")


@pytest.mark.parametrize("text", ["0", "1.5", "nan", "inf", "-1", "x", ""])
def test_a_number_outside_its_bounds_is_blamed_on_its_flag(text, capsys):
    made = Parser(prog="command", description="A command.")
    made.add_argument("--decay", type=number(0, 1))
    assert made.parse_args(["--decay=1e-3"]).decay == 1e-3 and made.parse_args(["--decay=1"]).decay == 1
    assert f"--decay: must be a number above 0 and of at most 1, not '{text}'" in refusal(
        made, capsys, f"--decay={text}"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_and_refuses_a_mistyped_flag(command, capsys):
    run = [sys.executable, "-m", f"hamjepa_jax.{command.removesuffix('.__main__')}"]
    helped = subprocess.run([*run, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: python -m hamjepa_jax.")
    main = importlib.import_module(f"hamjepa_jax.{command}").main
    line = refused(lambda: main(["--nonsense"]), capsys)
    assert line.startswith("error: --nonsense: there is no such flag")


@pytest.mark.parametrize("command", ["aot", "benchmark"])
def test_flags_need_no_jax(command):
    code = f"import sys, hamjepa_jax.{command}.__main__ as m; m.make_parser(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
