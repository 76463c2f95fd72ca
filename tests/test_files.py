"""Files are written in one go; what is in the way or damaged is put aside; empty and odd paths are refused."""

import json
import pathlib

import pytest

from hamjepa_jax import files
from hamjepa_jax.errors import UserError
from hamjepa_jax.run import workdir as workdir_lib
from hamjepa_jax.training.writer import MetricsWriter


def test_a_failed_write_leaves_the_former_file(tmp_path):
    files.write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(RuntimeError), files.written_at_once(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_in_the_way_of_a_file_is_put_aside(tmp_path, caplog):
    (tmp_path / "run.json").mkdir()
    (tmp_path / "plots").write_text("no folder")
    files.write_text(tmp_path / "run.json", "{}")
    assert files.room_for_folder(tmp_path / "plots").is_dir()
    assert (tmp_path / "run.json").read_text() == "{}" and (tmp_path / "run.json.damaged1").is_dir()
    assert (tmp_path / "plots.damaged1").read_text() == "no folder"
    assert caplog.text.count("was renamed to") == 2


def test_paths_of_users(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.user_path("~/runs", "--workdir") == pathlib.Path("/home/me/runs")
    with pytest.raises(UserError, match=r"--workdir: the path is empty"):
        files.user_path("", "--workdir")
    with pytest.raises(UserError, match=r"--workdir 'a\\x00b': no path has a NUL"):
        files.user_path("a\0b", "--workdir")


@pytest.mark.parametrize(
    "path, problem",
    [
        ("~nobody-of-this-name/runs", "no such user"),
        ("gs://bucket/runs", "is a URL"),
        ("x" * 300, "File name too long"),
        ("LOOP/runs", "Too many levels of symbolic links"),
    ],
)
def test_what_can_be_no_path_of_this_machine_is_refused(tmp_path, path, problem):
    (tmp_path / "loop").symlink_to("loop")
    path = path.replace("LOOP", str(tmp_path / "loop"))
    with pytest.raises(UserError, match=f"^--out {path}: .*{problem}"):
        files.user_path(path, "--out")


def test_names_that_are_no_text_are_written_as_escapes(tmp_path):
    """As of a file whose name is not UTF-8, or has a line break in it."""
    files.write_text(tmp_path / "table.txt", "caf\udce9\n")
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == "caf\\udce9\n"
    assert files.readable("dög\nfi\udce9sh") == "dög fi\\udce9sh"


DAMAGED = {
    "garbage": b'{"step": 1, "a": 1}\nxyz\n{"step": 2, "a": 2}\n',
    "merged": b'{"step": 1, "a": 1}\n{"step": 2, "a"{"step": 2, "a": 2}\n{"step": 2, "a": 2}\n',
    "NULs": b'{"step": 1, "a": 1}\n\0\0\0\n{"step": 2, "a": 2}\n',
    "no UTF-8": b'{"step": 1, "a": 1}\n{"step": 2, "\xff": 2}\n{"step": 2, "a": 2}\n',
    "no step": b'{"step": 1, "a": 1}\n{"a": 2}\n{"step": 2, "a": 2}\n',
    "an infinite step": b'{"step": 1, "a": 1}\n{"step": Infinity}\n{"step": 2, "a": 2}\n',
    "nothing but brackets": b'{"step": 1, "a": 1}\n' + b"[" * 10**5 + b'\n{"step": 2, "a": 2}\n',
    "a step that is text": b'{"step": 1, "a": 1}\n{"step": "two"}\n{"step": 2, "a": 2}\n',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_log_is_put_aside_and_its_good_lines_are_kept(kind, tmp_path, caplog):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(DAMAGED[kind])
    MetricsWriter(tmp_path, first_step=5).close()
    assert [json.loads(line) for line in log.read_text().splitlines()] == [{"step": 1, "a": 1}, {"step": 2, "a": 2}]
    assert (tmp_path / "metrics.jsonl.damaged1").read_bytes() == DAMAGED[kind]
    assert "1 damaged line" in caplog.text


def test_a_line_that_a_kill_has_cut_is_no_damage(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "a')
    MetricsWriter(tmp_path, first_step=5).close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_folders_and_files_of_the_wrong_kind_do_not_stop_a_log(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    (tmp_path / "tensorboard").write_text("")
    MetricsWriter(tmp_path, first_step=0, trackers=("tensorboard",)).close()
    assert (tmp_path / "metrics.jsonl").is_file() and (tmp_path / "tensorboard").is_dir()


@pytest.mark.parametrize(
    "content", [b"", b'{"config": {"se', b"\0" * 64, b"[]", b"{}", b"\xff\xfe", b'{"config": 3}']
)
def test_a_damaged_config_is_one_sentence(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: is damaged \(.*restore a copy"):
        workdir_lib.saved_config(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"encoder": "x"}, {"predictor": None}, {"seed": 1.5}, {"a.b": 1}, {"data": {"source": 5}}, {"plugins": 5}],
    ids=str,
)
def test_a_config_with_a_damaged_field_is_one_sentence(change, tmp_path, tiny_config):
    """Where it is read, and where a run goes on by the command's own config."""
    record = workdir_lib.record_of(tiny_config, "images")
    files.write_json(tmp_path / "config.json", record | {"config": record["config"] | change})
    with pytest.raises(UserError, match=r"config\.json: is damaged \("):
        workdir_lib.saved_config(tmp_path)
    if "plugins" not in change:  # The command's own count.
        with pytest.raises(UserError, match=r"is damaged \("), workdir_lib.claim(tmp_path, tiny_config, "images"):
            pass


def test_a_folder_in_place_of_the_config_is_one_sentence(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json: is damaged"):
        workdir_lib.saved_config(tmp_path)


@pytest.mark.parametrize("name", ["run[seed=0]", "run*", "what?"])
def test_paths_that_no_checkpoint_can_be_read_from_are_refused(name, tmp_path, tiny_config):
    with (
        pytest.raises(UserError, match=r"checkpoints cannot be kept"),
        workdir_lib.claim(tmp_path / name / "inside", tiny_config, "aa"),
    ):
        pass
    assert not list(tmp_path.iterdir())
