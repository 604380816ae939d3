"""A journal that a kill tore or a disk damaged."""

from __future__ import annotations

import itertools

import pytest

optuna = pytest.importorskip("optuna")
from optuna.trial import TrialState  # noqa: E402

from folio.config import read_toml  # noqa: E402
from folio.tuning.journal import cut_torn_line  # noqa: E402
from folio.tuning.making import with_trials  # noqa: E402
from folio.tuning.rebuild import Found  # noqa: E402
from folio.tuning.space import DEFAULT_SPACE, parse_space  # noqa: E402
from folio.tuning.study import open_study  # noqa: E402
from folio.tuning.worker import work  # noqa: E402
from tests.tuning.studies import MakeStudy, begin, never, rates_of_runs, states, stop_after  # noqa: E402


def test_a_line_that_a_kill_tore_is_cut_off_and_the_journal_stays_readable(make_study: MakeStudy):
    study = make_study(trials=2)
    begin(study).held.close()
    whole = study.journal_file.read_bytes()
    for torn in (b'{"op_code": 4, "wor', b"{", b""):
        study.journal_file.write_bytes(whole + torn)
        cut_torn_line(study.journal_file)
        assert study.journal_file.read_bytes() == whole
    study.journal_file.write_bytes(whole + b'{"op_code": 4, "wor')
    work(study, never)
    assert all(state != TrialState.RUNNING for state in states(study))


DAMAGES = [b'{"op_code": 4, "wor\n', b"\n", b"\0" * 40 + b"\n", b"[]\n"]


def test_a_journal_damaged_in_the_middle_is_made_anew_from_the_runs(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
):
    study = make_study(trials=2)
    work(study, never)
    before = [(t.value, t.state, t.intermediate_values) for t in study.connect().get_trials()]
    rates = rates_of_runs(study, 2)
    whole = study.journal_file.read_bytes().splitlines(keepends=True)
    places = itertools.product(DAMAGES, (0, len(whole) // 2, len(whole) - 1))
    for times, (damage, number) in enumerate(places, 1):
        lines = [*whole[:number], damage, *whole[number + 1 :]]
        study.journal_file.write_bytes(b"".join(lines))
        again = with_trials(open_study(study.path), 3)
        said = capsys.readouterr().err
        assert f"journal.log, line {number + 1}, is damaged" in said and "2 trials" in said
        trials = again.connect().get_trials()
        assert [(t.value, t.state, t.intermediate_values) for t in trials] == before
        assert [t.params["optimizer.learning_rate"] for t in trials] == pytest.approx(rates)
        end = "" if times == 1 else f"-{times}"
        aside = study.path / f"journal.damaged{end}.log"
        assert aside.read_bytes() == b"".join(lines)
    work(again, never)
    assert len(states(again)) == 3 and set(states(again)) == {TrialState.COMPLETE}


def test_a_trial_that_was_at_work_when_the_journal_was_damaged_goes_on(make_study: MakeStudy):
    study = make_study(DEFAULT_SPACE, trials=1)
    work(study, stop_after(20))
    before = read_toml(study.trial_run(0).recipe_file)
    step = study.trial_run(0).newest()[0].step
    study.journal_file.write_bytes(b"{\n" + study.journal_file.read_bytes())
    again = with_trials(open_study(study.path), 1)
    assert states(again) == [TrialState.RUNNING] and 0 < step < 27
    work(again, never)
    assert states(again) == [TrialState.COMPLETE]
    assert read_toml(study.trial_run(0).recipe_file) == before
    assert not list(study.path.glob("trials/*-set-aside-*"))


def test_a_whole_multiple_of_the_width_is_found_again_where_the_product_was_rounded():
    space = parse_space({"model": {"d_ff": {"low": 2, "high": 4, "times_width": True}}})
    trial = Found({"model.d_model": 54, "model.d_ff": 160})  # the multiple of 8 next to 162
    assert space.parameters[0].draw(trial) == 3
