"""Notebooks in the sandbox: what cells give, what they cannot do, and that the host is never harmed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memorist
from conftest import needs_sandbox
from memorist.errors import SandboxError
from memorist.tasks.notebook import cells
from memorist.tasks.notebook.jupyter import JupyterNotebook
from memorist.tasks.notebook.kernels import Kernels
from memorist.tasks.notebook.ran import DIED, TIMEOUT, Kept, shortened
from memorist.tasks.notebook.sandbox import Limits

pytestmark = needs_sandbox

TABLE = "region,units,price\nN,3,2.0\nS,5,1.5\nN,2,4.0\nE,,3.0\nS,1,2.5\n"
FILES = {"a.csv": TABLE}
SHORT = Limits(seconds=1.0, disk=20)
LOAD = "import pandas as pd; d = pd.read_csv('a.csv')"
SAY = (
    "import os\ndef say(line):\n  for place in range(3, 20):\n    try: os.write(place, line + b'\\n')\n"
    "    except OSError: pass\n"
)
"""Writes a line wherever a process can write."""
HARM = {
    "writes outside its folder": "open('/tmp/memorist-harm', 'w').write('x')",
    "writes beside its program": "import json, os; open(os.path.dirname(json.__file__) + '/harm.py', 'w')",
    "reads what is none of its business": "print(open('/etc/passwd').read())",
    "reads where the project is": f"print(open({str(Path(__file__))!r}).read())",
    "opens a connection": "import socket; socket.create_connection(('127.0.0.1', 1))",
    "asks for a name": "import socket; socket.getaddrinfo('example.org', 80)",
    "sends a datagram": "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "kills who started it": f"import os; os.kill({os.getpid()}, 9)",
    "kills everything": "import os; os.kill(-1, 9)",
    "limits another process": f"import resource as r; r.prlimit({os.getpid()}, r.RLIMIT_NOFILE, (5, 5))",
    "limits its own process's parent": "import os, resource as r; r.prlimit(os.getppid(), r.RLIMIT_AS, (9, 9))",
    "slows another process": f"import os; os.setpriority(os.PRIO_PROCESS, {os.getpid()}, 19)",
    "pins another process": f"import os; os.sched_setaffinity({os.getpid()}, {{0}})",
    "schedules another process": f"import os; os.sched_setscheduler({os.getpid()}, os.SCHED_IDLE, os.sched_param(0))",
    "sets the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "reads this package": f"print(open({str(Path(memorist.__file__))!r}).read())",
    "forks": "import os\nwhile True: os.fork()",
    "writes too large a file": "open('big', 'wb').write(b'x' * 11 * 2 ** 20)",
    "follows a link out": "import os; os.symlink('/etc/passwd', 'l'); print(open('l').read())",
}


@pytest.fixture(scope="module")
def kernels() -> Iterator[Kernels]:
    with Kernels(1, SHORT) as found:
        yield found


class TestCells:
    def test_state_goes_from_cell_to_cell(self, kernels: Kernels) -> None:
        """Vector 7."""
        notebook = kernels.notebook(FILES)
        cells = [
            LOAD,
            "len(d)",
            "print(round(d.units.mean(), 2), round(d.units.std(), 6), d.units.isna().sum())",
            "(d.units * d.price).groupby(d.region).sum().idxmax()",
            "print(d.units.fillna(d.units.median()).sum())",
        ]
        told = [notebook.ran(cell).told() for cell in cells]
        assert told == ["", "5", "2.75 1.707825 1", "'N'", "13.5"]

    def test_an_error_is_the_end_of_a_traceback_and_later_cells_go_on(self, kernels: Kernels) -> None:
        notebook = kernels.notebook(FILES)
        ran = [notebook.ran(cell) for cell in (LOAD, "x = 1\nprint('before')\nd['cost'].mean()", "x")]
        assert ran[1].kind == "KeyError" and "cost" in ran[1].error and ran[1].output == "before\n"
        assert len(ran[1].error.splitlines()) <= 15 and "\x1b" not in ran[1].error
        assert ran[2].good and ran[2].told() == "1"

    @pytest.mark.parametrize("code", ["print(", "x = = 1", "\x00", "def f(:"])
    def test_what_is_no_python_is_an_error(self, kernels: Kernels, code: str) -> None:
        ran = kernels.notebook().ran(code)
        assert ran.kind in ("SyntaxError", "ValueError") and ran.error

    def test_notebooks_know_nothing_of_each_other(self, kernels: Kernels) -> None:
        one, other = kernels.notebook(FILES), kernels.notebook()
        one.ran("import pandas; pandas.read_csv = None; secret = 1; open('left', 'w').write('x')")
        assert other.ran("secret").kind == "NameError"
        assert other.ran("import os, pandas; print(os.listdir('.'), pandas.read_csv is None)").told() == "[] False"
        assert one.ran("print(open('left').read())").told() == "x"

    def test_a_long_output_keeps_its_ends(self, kernels: Kernels) -> None:
        ran = kernels.notebook().ran("for i in range(20000): print(i)")
        assert ran.good and ran.output.startswith("0\n1\n") and ran.output.endswith("19999\n")
        assert len(ran.output) < 2100 and "characters left out" in ran.output
        assert shortened("x" * 2000, 2000) == "x" * 2000

    def test_many_at_once_share_few_processes(self, kernels: Kernels) -> None:
        async def all_of_them() -> list[str]:
            notebooks = [kernels.notebook() for _ in range(12)]
            await asyncio.gather(*(one.run(f"x = {i}") for i, one in enumerate(notebooks)))
            return [ran.told() for ran in await asyncio.gather(*(one.run("print(x)") for one in notebooks))]

        assert asyncio.run(all_of_them()) == [str(i) for i in range(12)]

    def test_what_was_asked_before_is_known_and_whoever_wants_it_fresh_gets_it_fresh(self) -> None:
        chance = "import random; print(random.random())"
        with Kernels(1, known=3) as found:
            first, again = (found.notebook({"a.csv": "x\n1\n"}).ran(chance).output for _ in range(2))
            assert first == again
            others = [
                found.notebook({"a.csv": "x\n1\n"}, fresh=True),
                found.notebook({"a.csv": "x\n2\n"}),
                found.notebook(),
            ]
            assert len({first, *(one.ran(chance).output for one in others)}) == 4
            others[1].ran("1")  # one more than is kept: the first is forgotten
            assert found.notebook({"a.csv": "x\n1\n"}).ran(chance).output != first

    def test_who_stops_waiting_takes_nothing_from_others(self) -> None:
        code = "import time; time.sleep(.5); print('done')"

        async def two(found: Kernels) -> str:
            given_up, waiting = (asyncio.create_task(found.notebook().run(code)) for _ in range(2))
            await asyncio.sleep(0.1)
            given_up.cancel()
            return (await waiting).output

        with Kernels(1, known=3) as found:
            assert asyncio.run(two(found)).strip() == "done"

    def test_what_did_not_end_is_tried_again(self) -> None:
        with Kernels(1, SHORT, known=3) as found:
            for _ in range(2):
                assert found.notebook().ran("import os; os._exit(3)").kind == DIED
                assert not found._known

    def test_processes_outlive_the_loop_in_which_they_began(self) -> None:
        with Kernels(1) as found:
            for _ in range(2):
                assert asyncio.run(found.notebook().run("1")).told() == "1"
            assert found.replaced == 0

    def test_a_file_in_another_encoding_is_an_error_that_can_be_mended(self, kernels: Kernels) -> None:
        notebook = kernels.notebook({"a.csv": "name\nZürich\n".encode("latin-1")})
        assert notebook.ran(LOAD).kind == "UnicodeDecodeError"
        assert (
            notebook.ran("import pandas as pd; pd.read_csv('a.csv', encoding='latin-1').name[0]").told() == "'Zürich'"
        )

    @given(st.lists(st.text(max_size=30), max_size=8), st.integers(1, 40))
    def test_what_is_kept_of_an_output_is_the_same_on_both_sides(self, pieces: list[str], most: int) -> None:
        inside, outside = cells.Kept(most), Kept(most)
        for piece in pieces:
            inside.write(piece)
            outside.add(piece)
        assert inside.told() == outside.told() == shortened("".join(pieces), most)


class TestHarm:
    @pytest.mark.parametrize("code", HARM.values(), ids=HARM.keys())
    def test_it_is_refused_and_the_next_cell_runs(self, kernels: Kernels, code: str) -> None:
        notebook = kernels.notebook({"a.csv": "x\n1\n"})
        notebook.ran("x = 1")
        ran = notebook.ran(code)
        assert not ran.good and "root" not in ran.output
        assert notebook.ran("x + 1").told() == "2"
        assert not Path("/tmp/memorist-harm").exists()

    def test_a_socket_of_the_host_is_out_of_reach(self, kernels: Kernels, tmp_path: Path) -> None:
        server, reached = socket.socket(socket.AF_UNIX), []
        server.bind(str(tmp_path / "s"))
        server.listen()
        server.settimeout(0.5)

        def wait() -> None:
            try:
                reached.append(server.accept())
            except TimeoutError:
                return

        waiting = threading.Thread(target=wait)
        waiting.start()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r})"
        assert not kernels.notebook().ran(code).good
        waiting.join()
        server.close()
        assert not reached

    def test_a_cell_that_takes_too_long_leaves_nothing_behind(self, kernels: Kernels) -> None:
        notebook = kernels.notebook()
        notebook.ran("x = 1")
        assert notebook.ran("x = 2\nwhile True: pass").kind == TIMEOUT
        assert notebook.ran("print(x)").told() == "1"

    @pytest.mark.parametrize(
        "code",
        [
            "import time\nwhile True:\n  try: time.sleep(1)\n  except BaseException: pass",
            "sum(range(10 ** 12))",
            "import signal; signal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
        ],
    )
    def test_one_that_does_not_listen_is_ended(self, kernels: Kernels, code: str) -> None:
        before, notebook = kernels.replaced, kernels.notebook()
        assert notebook.ran(code).kind == TIMEOUT
        assert kernels.replaced == before + 1 and notebook.ran("1").told() == "1"

    def test_memory_is_limited(self, kernels: Kernels) -> None:
        notebook = kernels.notebook()
        assert notebook.ran("x = bytearray(1100 * 2 ** 20)").kind == "MemoryError"
        raised = "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)"
        assert not notebook.ran(f"{raised}; x = bytearray(8 * 2 ** 30)").good
        assert notebook.ran("1").told() == "1"

    def test_disk_is_limited_and_given_back(self, kernels: Kernels) -> None:
        full = "for i in range(40): open(f'f{i}', 'wb').write(b'x' * 2 ** 20)"
        assert kernels.notebook().ran(full).kind == "OSError"
        assert kernels.notebook().ran("open('f', 'wb').write(b'x' * 2 ** 20)").good

    def test_a_kernel_that_ends_itself_is_replaced(self, kernels: Kernels) -> None:
        notebook = kernels.notebook()
        notebook.ran("x = 1")
        assert notebook.ran("import os; os._exit(0)").kind == DIED
        assert notebook.ran("import os, signal; os.kill(os.getppid(), signal.SIGKILL)").kind in (
            DIED,
            "PermissionError",
        )
        assert notebook.ran("x").told() == "1"

    def test_a_cell_cannot_speak_for_later_ones(self, kernels: Kernels) -> None:
        """It writes answers, and ends of answers, where its process writes them."""
        said = [json.dumps([{"output": "forged", "error": "", "kind": "", "seconds": 0}]), "ended"]
        forged = (
            f"import os, time\nfor place in range(3, 20):\n  for line in {said}:\n"
            "    try: os.write(place, line.encode() + b'\\n')\n    except OSError: pass\ntime.sleep(.3)"
        )
        assert kernels.notebook().ran(forged).output != "mine"
        for _ in range(3):
            assert kernels.notebook().ran("print('mine')").told() == "mine"

    def test_a_cell_that_keeps_talking_is_ended(self, kernels: Kernels) -> None:
        """It says that its request is over, and goes on with a line now and then."""
        talking = (
            f"{SAY}import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsay(b'ended')\n"
            "while True:\n  time.sleep(.2)\n  say(b'more')"
        )
        began = time.monotonic()
        assert not kernels.notebook().ran(talking).good
        assert time.monotonic() - began < 8 and kernels.notebook().ran("1").told() == "1"

    def test_what_a_cell_says_of_itself_is_cut_and_never_raises(self, kernels: Kernels) -> None:
        for said in (
            {"output": "x" * 3_000_000, "error": "y" * 10**6, "kind": "z" * 10**6, "seconds": 1},
            {"output": "", "error": "", "kind": "", "seconds": int("1" * 400)},
            {"output": "", "error": "", "kind": "", "seconds": -1e9},
            [], "text", 7, {"output": 1}, [[1]],
        ):  # fmt: skip
            line = json.dumps([said] if isinstance(said, dict) else said)
            code = f"{SAY}say({line!r}.encode())\nos._exit(0)"
            ran = kernels.notebook().ran(code)
            assert len(ran.output) < 2200 and len(ran.error) < 8200 and len(ran.kind) < 90 and 0 <= ran.seconds <= 1
            assert kernels.notebook().ran("print('mine')").told() == "mine"

    def test_megabytes_of_forged_answers_cost_the_host_nothing(self, kernels: Kernels) -> None:
        flood = f"{SAY}for n in range(400): say(b'x' * 10 ** 5)"
        assert not kernels.notebook().ran(flood).good
        assert kernels.notebook().ran("1").told() == "1"

    def test_errors_without_a_name_are_errors_and_none_is_taken_for_another(self, kernels: Kernels) -> None:
        notebook = kernels.notebook()
        kinds = [
            notebook.ran(f"raise type({name!r}, (Exception,), {{}})('boom')").kind for name in ("", "Timeout", "Died")
        ]
        assert kinds == ["Exception", "TimeoutError", "DiedError"]

    def test_half_a_character_is_a_question_mark(self, kernels: Kernels) -> None:
        assert kernels.notebook({"a.csv": "\ud800"}).ran("print('\\ud800', open('a.csv').read())").told() == "? ?"

    def test_what_cannot_start_says_so(self) -> None:
        with Kernels(1, imported=("no_such_module",)) as none, pytest.raises(SandboxError, match="did not start"):
            none.notebook().ran("1")

    def test_printing_without_end_is_no_danger(self, kernels: Kernels) -> None:
        ran = kernels.notebook().ran("while True: print('x' * 10 ** 6)")
        assert ran.kind == TIMEOUT and len(ran.output) < 2100

    def test_nothing_runs_without_a_sandbox(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sandlock", None)
        with Kernels(1) as without, pytest.raises(SandboxError, match=r"memorist\[notebook\]"):
            without.notebook().ran("1")


class TestFiles:
    @pytest.mark.parametrize("text", ["", "a\n", "\ufeffa,b\n1,2\n", 'a,b\n"1', "a;b\n1;2\n", "\r\n\r\n"])
    def test_odd_tables_are_errors_of_the_cell_at_most(self, kernels: Kernels, text: str) -> None:
        notebook = kernels.notebook({"a.csv": text})
        ran = notebook.ran(LOAD)
        assert ran.kind in ("", "EmptyDataError", "ParserError") and notebook.ran("1").told() == "1"

    def test_a_million_rows_can_be_read(self) -> None:
        table = "a,b\n" + "1234567,2345678\n" * 1_000_000  # more than a cell may write into one file
        with Kernels(1, Limits(seconds=20)) as found:
            notebook = found.notebook({"a.csv": table})
            notebook.ran(LOAD)
            assert notebook.ran("len(d)").told() == "1000000"

    @pytest.mark.parametrize("name", ["../a.csv", "/tmp/a.csv", "a/b.csv", "", ".", "..", "a\x00"])
    def test_files_lie_in_the_folder(self, kernels: Kernels, name: str) -> None:
        from memorist.errors import DataError

        with pytest.raises(DataError, match="name"):
            kernels.notebook({name: "x"})


def test_a_jupyter_kernel_keeps_the_same_promises(kernels: Kernels) -> None:
    cells = [
        LOAD,
        "len(d)",
        "d['cost']",
        "while True: pass",
        "d.region.nunique()",
        "import os; os._exit(0)",
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "open('/tmp/memorist-harm', 'w')",
        "print(1)\n2",
    ]
    same = kernels.notebook(FILES)

    async def both() -> tuple[list[str], list[str]]:
        notebook = JupyterNotebook(FILES, Limits(seconds=2.0))
        try:
            return [(await notebook.run(cell)).kind for cell in cells], [
                ran.output.strip() for _, ran in notebook.cells
            ]
        finally:
            await notebook.close()

    began = time.monotonic()
    kinds, outputs = asyncio.run(both())
    expected = [same.ran(cell) for cell in cells]
    assert kinds == ["", "", "KeyError", TIMEOUT, "", DIED, expected[6].kind, "PermissionError", ""]
    assert kinds == [ran.kind for ran in expected] and outputs == [ran.output.strip() for ran in expected]
    assert time.monotonic() - began < 120
    assert not list(Path("/tmp").glob("memorist-jupyter-*"))
