"""What holds for every command: help, version, usage errors, interruption, clean endings."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cardiogen import __version__

COMMANDS = ("generate", "complete", "measure", "check", "train")
PROGRAM = [sys.executable, "-c", "from cardiogen.cli import main; main()"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_program_and_the_options(run, command):
    ran = run(command, "--help")
    assert ran.code == 0
    assert f"Usage: cardiogen {command}" in ran.out
    assert "--json" in ran.out


def test_help_lists_the_commands_also_without_arguments(run):
    for arguments in ([], ["--help"]):
        ran = run(*arguments)
        assert ran.code == 0
        assert all(command in ran.out for command in COMMANDS)


def test_version(run):
    assert run("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["generate", "--bad"], "No such option: --bad"), (["nonsense"], "nonsense"),
     (["generate", "--age", "7O"], "'--age'"), (["generate", "extra"], "extra"),
     (["generate", "--space", "xyz"], "'ras', 'lps'"), (["generate", "-n", "1.5"], "-n"),
     (["complete"], "labels"), (["measure"], "path"), (["train"], "--out")],
)  # fmt: skip
def test_usage_errors_have_the_form_of_all_others(refused, run, arguments, words):
    line = refused(*arguments, status=2, code="U02", words=words)
    assert line.endswith("--help")
    assert run(*arguments, "--json").fault["exit_code"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [(["generate", "--age", "17"], "CG-D01", 5), (["complete", "no.nii"], "CG-N47", 3),
     (["measure", "no.nii"], "CG-N47", 3), (["train", "--out", "b", "-n", "1"], "CG-C28", 3)],
)  # fmt: skip
def test_faults_as_json(run, arguments, code, status):
    ran = run(*arguments, "--json")
    assert ran.code == status
    assert (ran.fault["code"], ran.fault["exit_code"]) == (code, status)
    assert set(ran.fault) == {"code", "where", "found", "expected", "remedy", "exit_code"}


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [(KeyboardInterrupt(), 130, "interrupted"), (MemoryError(), 6, "CG-R04 memory: "),
     (PermissionError(13, "Permission denied", "/x"), 6, "CG-R01 ")],
)  # fmt: skip
def test_an_ending_in_the_middle_leaves_nothing(run, monkeypatch, tree, tmp_path, raised,
                                                status, words):  # fmt: skip
    small = ["generate", "--out", "heart", "--phase-only", "ed", "--format", "csv"]
    assert run(*small).code == 0
    before = tree(tmp_path)

    def half(folder, *_, **__):
        (folder / "measures.csv").write_text("half")
        raise raised

    monkeypatch.setattr("cardiogen.cli.generate_heart.write_files", half)
    for arguments in ([*small, "--overwrite"], [*small[:2], "other"], [*small[:2], "two", "-n2"]):
        ran = run(*arguments)
        assert ran.code == status
        assert words in ran.err
        assert "--workers" not in ran.err  # the command need not have that option
        assert tree(tmp_path) == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_no_partial_file(tmp_path, number, status):
    workers = "2" if number == signal.SIGINT else "1"
    arguments = ["generate", "-n", "500", "--workers", workers, "--out", str(tmp_path / "many")]
    process = subprocess.Popen(
        [*PROGRAM, *arguments, "--format", "nifti", "--spacing", "4"], text=True,
        stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Where the tests run in the background, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not list(tmp_path.glob(".cg-tmp-*/heart_00001")) and process.poll() is None:
        time.sleep(0.05)
    # A terminal sends Ctrl-C to the whole group.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == status, shown
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in shown
