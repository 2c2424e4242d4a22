import codecs
import io
import json
import os
import subprocess
import sys

import pytest

from bench import terminal
from tests.test_cli import ROOT, run_main

SEEN = (
    ["run", "--models", "popularity,random", "--dataset", "small", "--seeds", "2", "--jobs", "1"],
    ["table"], ["table", "--json"], ["models"], ["data", "list"],
)  # fmt: skip


def require_plain(words: list[str], out: str, error: str) -> None:
    """Check what a command printed to a console that lacks letters."""
    assert "UnicodeEncodeError" not in error
    if words == ["table"]:
        assert ("0.0" in out) and ("+-" in out or "\u00b1" in out)
    if words == ["table", "--json"]:
        assert json.loads(out)["dataset"] == "small"


def on_console(monkeypatch, encoding: str, *words: str) -> tuple[int, str, str]:
    """Run `main` on a console of an encoding; return its exit code, what it printed and its messages."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = run_main(patch, *words)
    for stream in streams:
        stream.flush()
    out, error = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    return code, out, error


@pytest.mark.parametrize("encoding", ["latin-1", "gbk"])
def test_a_console_that_lacks_letters_gets_plain_signs(place, monkeypatch, encoding):
    for words in SEEN:
        code, out, error = on_console(monkeypatch, encoding, *words)
        assert code == 0
        require_plain(words, out, error)
    code, _, error = on_console(monkeypatch, encoding, "data", "stats", "\u4e2d\u00f8")
    escaped = "\\u4e2d\u00f8" if encoding == "latin-1" else "\u4e2d\\u00f8"
    assert code == 2 and error.startswith(f"error: {escaped}: no such") and error.count("\n") == 1


def test_a_process_with_a_console_of_ascii_prints_plain_signs(place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    for words in SEEN:
        command = [sys.executable, "-m", "bench", *words]
        done = subprocess.run(command, capture_output=True, env=environment, check=True)
        require_plain(words, done.stdout.decode("ascii"), done.stderr.decode("ascii"))


def test_an_escaped_letter_is_one_that_json_reads():
    letters = "\u4e2d\U0001f600"
    codecs.register_error("plain", terminal._plain)
    assert json.loads('"' + letters.encode("ascii", "plain").decode() + '"') == letters
    assert "a ± b".encode("ascii", "plain") == b"a +- b"
