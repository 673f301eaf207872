"""The search for keys finds them."""

from types import SimpleNamespace

from leaks import Leaks, files_with_a_key
from stub import KEY


def test_a_planted_key_is_found(tmp_path):
    (tmp_path / "deep").mkdir()
    leak = tmp_path / "deep/cache.bin"
    leak.write_bytes(b"x" * 5000 + KEY.encode())
    (tmp_path / "empty").touch()
    (tmp_path / "plain").write_text("nothing")
    assert list(files_with_a_key(tmp_path)) == [leak]
    leak.unlink()

    leaks = Leaks()
    for text in ("all well", f"Authorization: Bearer {KEY}"):
        report = SimpleNamespace(nodeid=text[:3], when="call", longreprtext="", sections=[("Captured stderr", text)])
        leaks.pytest_runtest_logreport(report)
    assert leaks.found == ["Aut (call)"]


def test_what_a_worker_found_fails_the_session(tmp_path):
    worker, session = Leaks(), Leaks()
    worker.found = ["tests/test_a.py::test_b (call)"]
    node = SimpleNamespace(workeroutput={})
    worker.pytest_sessionfinish(SimpleNamespace(config=node))
    session.pytest_testnodedown(node)
    folders = SimpleNamespace(getbasetemp=lambda: tmp_path)
    ended = SimpleNamespace(config=SimpleNamespace(_tmp_path_factory=folders), exitstatus=0)
    session.pytest_sessionfinish(ended)
    assert (session.found, ended.exitstatus) == (worker.found, 1)
