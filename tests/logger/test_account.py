import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from logger.account import TAP_REASONS, AccountFile, Sum, read_account
from servelens.contract.errors import StateError


def test_what_is_counted_is_what_is_read_while_it_lives(tmp_path: Path) -> None:
    account = AccountFile(tmp_path, "s")
    for name, times in (("offered", 9), ("handed", 4), ("over_budget", 2), ("upgraded", 1)):
        assert [account.add(name) for _ in range(times)] == list(range(1, times + 1))
    counts, alive = read_account(account.path)
    assert alive
    assert counts == account.counts()
    assert (counts.offered, counts.handed, counts.open) == (9, 4, 2)
    assert counts.reasons == dict.fromkeys(TAP_REASONS, 0) | {"over_budget": 2, "upgraded": 1}
    account.close()
    assert read_account(account.path) == (counts, False)


def test_a_killed_process_leaves_its_counts_and_is_known_dead(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from logger.account import AccountFile\n"
        "account = AccountFile(Path(sys.argv[1]), 's')\n"
        "for _ in range(1000): account.add('offered')\n"
        "for _ in range(400): account.add('handed')\n"
        "print('counted', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"counted\n"
        assert read_account(tmp_path / "s.account")[1]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    counts, alive = read_account(tmp_path / "s.account")
    assert (counts.offered, counts.handed, counts.open, alive) == (1000, 400, 600, False)


def test_no_draft_is_left_and_two_taps_do_not_share_a_file(tmp_path: Path) -> None:
    first, second = AccountFile(tmp_path, "a"), AccountFile(tmp_path, "b")
    first.add("offered")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.account", "b.account"]
    assert read_account(second.path)[0].offered == 0
    first.close()
    second.close()


def test_a_count_that_is_none_of_ours_is_an_error(tmp_path: Path) -> None:
    account = AccountFile(tmp_path, "s")
    with pytest.raises(KeyError):
        account.add("crash")
    account.close()


@pytest.mark.parametrize("content", [b"", b"SLACCT01", b"SOMEFILE" + bytes(200)])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.account"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"s\.account: no account file of this version"):
        read_account(path)


def test_the_sum_adds_up_or_says_so() -> None:
    assert Sum(offered=10, shipped=5, waiting=2, reasons={"crash": 3}).adds_up
    assert not Sum(offered=10, shipped=5, waiting=2, reasons={"crash": 2}).adds_up
