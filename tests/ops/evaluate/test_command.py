"""`backchannel evaluate`, on public logs and on a made-up one."""

from collections.abc import Callable
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result

from backchannel.agents.bandit.features import context_of
from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.sessions import SESSION_ESTIMATORS
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.ops.cli import main
from backchannel.ops.evaluate.result import Evaluation, PolicyValue
from backchannel.schemas import codec, events
from backchannel.schemas.events import Click, Event, Impression, Query
from backchannel.streams.config import Config
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader
from tests.support.terminals import TERMINAL

PublicLog = Callable[[str], Path]

# Results of the Open Bandit Pipeline 0.5.7 for the uniform policy: 1000 x IPS, 1000 x SNIPS, effective sample size.
REFERENCE = {"all": (2.360, 2.334, 340), "men": (3.009, 3.189, 656), "women": (7.438, 2.373, 2)}


QUICK = ("--interval", "normal")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", *arguments], terminal_width=200)


def evaluation(*arguments: str) -> tuple[Evaluation, int]:
    ran = run(*arguments, "--json")
    assert ran.exit_code in (0, 3), ran.output
    return msgspec.json.decode(ran.stdout, type=Evaluation), ran.exit_code


def policy(found: Evaluation, name: str) -> PolicyValue:
    return next(one for one in found.policies if one.name == name)


@pytest.mark.parametrize("campaign", REFERENCE)
def test_uniform_from_the_thompson_logs_agrees_with_the_open_bandit_pipeline(
    public_log: PublicLog, campaign: str
) -> None:
    found, exit_code = evaluation(str(public_log(f"obd_small/bts_{campaign}.csv.gz")))
    uniform = policy(found, "uniform")
    ips, snips, effective = REFERENCE[campaign]
    assert uniform.estimates["IPS"].value == pytest.approx(ips / 1000, abs=5e-7)
    assert uniform.estimates["SNIPS"].value == pytest.approx(snips / 1000, abs=5e-7)
    assert round(uniform.diagnosis.effective) == effective
    for name in ("IPS", "SNIPS"):
        estimate = uniform.estimates[name]
        assert estimate.low < estimate.value < estimate.high
    # Propensities go down to 1e-6: one log is unusable and must be reported as such.
    assert bool(uniform.faults) == (campaign == "women")
    assert exit_code == (3 if campaign == "women" else 0)


@pytest.mark.parametrize("campaign", REFERENCE)
def test_thompson_from_the_random_logs(public_log: PublicLog, campaign: str) -> None:
    bts = public_log(f"obd_small/bts_{campaign}.csv.gz")
    found, _ = evaluation(str(public_log(f"obd_small/random_{campaign}.csv.gz")), "--policy", f"bts={bts}")
    value = policy(found, "bts")
    assert value.faults == []
    assert value.diagnosis.mean == pytest.approx(1.0, abs=0.1)
    truth = {"all": 0.0042, "men": 0.0069, "women": 0.0046}[campaign]
    for name in ("IPS", "SNIPS", "DR", "switch-DR"):
        estimate = value.estimates[name]
        assert 0 < estimate.low < estimate.high < 0.02
        assert estimate.low - 0.001 < truth < estimate.high + 0.001
    # The random log comes from the uniform policy, so every weight is 1.
    uniform = policy(found, "uniform")
    assert uniform.diagnosis.effective == pytest.approx(found.turns, abs=1)
    assert uniform.estimates["IPS"].value == pytest.approx(found.logged.value, rel=1e-3)
    assert uniform.kept is not None
    assert uniform.kept > 0.99 * found.turns


def test_a_policy_as_a_table(tmp_path: Path) -> None:
    log, table = tmp_path / "log.csv", tmp_path / "policy.csv"
    rows = [f"{number % 2},1,{number % 2},0.5" for number in range(400)]
    log.write_text("\n".join(["item_id,position,click,propensity_score", *rows]))
    table.write_text("item_id,position,probability\n0,1,1\n1,1,3\n")
    found, exit_code = evaluation(str(log), "--policy", f"better={table}", "--interval", "bernstein")
    assert exit_code == 0
    assert policy(found, "better").estimates["IPS"].value == pytest.approx(0.75)
    assert policy(found, "better").estimates["DM"].value == pytest.approx(0.75, abs=0.15)  # shrunk
    assert policy(found, "uniform").lift.value == pytest.approx(0.0, abs=1e-9)


def test_faulty_files_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    for text, complaint in (
        ("item_id,position,click,propensity_score\n", "0 rounds"),
        ("item_id,position,click,propensity_score\n1,1,x,0.5\n1,1,0,0.5\n", "line 2"),
        ("item_id,position,click,propensity_score\n1,1,0,0\n1,1,0,0.5\n", "propensity 0"),
    ):
        log.write_text(text)
        ran = run(str(log))
        assert ran.exit_code == 1
        assert complaint in ran.output
    log.write_text("item_id,position,click,propensity_score\n1,1,0,0.5\n1,2,0,0.5\n")
    table = tmp_path / "policy.csv"
    for text, complaint in (
        ("item_id,position\n1,1\n", "probability"),
        ("item_id,position,probability\n1,1,1\n", "[2]"),
    ):
        table.write_text(text)
        ran = run(str(log), "--policy", f"other={table}")
        assert ran.exit_code == 1
        assert complaint in ran.output
    assert run(str(log), "--policy", "other").exit_code == 2
    assert run(str(log), "--store", "sqlite:///none.db").exit_code == 2


def write_log(
    path: Path,
    turns: int,
    budget: int = 1,
    coin: float = 0.0,
    users: int = 50,
    in_turns: bool = True,
    distinct: bool = False,
    served: Policy | None = None,
    **settings: Any,
) -> None:
    """Write events of a world in which only `memory` works, served by a policy or a bandit that has learned nothing.

    Ranks are looked up with probability `coin`. Each user has every n-th session. Lists are merged in turns, or one
    comes after the other.
    """
    rng = np.random.default_rng(0)
    bandit = StrategyBandit(Config().bandit)
    section = bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)
    allocator = Allocator(live_rows(section))
    lines: list[Event] = []
    for number in range(turns):
        common: dict[str, Any] = {"session_id": f"s{number // 3}", "query_id": f"q{number}"}
        user = f"u{number // 3 % users}" if users else None
        query = Query(
            event_id=f"{number}q",
            ts=1_700_000_000_000 + 1_000_000 * number,
            text="play something",
            user_id=user,
            **common,
        )
        decision = (served or allocator).allocate(context_of(query), budget, rng, distinct=distinct)
        results = []
        page = [(strategy, place) for strategy, count in decision.allocation.items() for place in range(count)]
        if in_turns:
            page.sort(key=itemgetter(1))
        for position, (strategy, place) in enumerate(page, start=1):
            ranks = {strategy: place + 1}
            places = allocator.retrieval(context_of(query), budget).places(ranks) if coin else None
            results.append(events.Result(f"{strategy}{place}", position, (strategy,), ranks, places=places))
        looked_up = coin if coin and rng.random() < coin else None
        shown = Impression(
            event_id=f"{number}i",
            ts=query.ts + 1,
            results=tuple(results),
            allocation=decision.allocation,
            planned=decision.planned,
            distinct=decision.distinct,
            **(
                {
                    "propensities": decision.propensities,
                    "allocation_propensity": decision.allocation_propensity,
                    "looked_up": looked_up,
                }
                | settings
            ),
            **common,
        )
        lines += [query, shown]
        if "memory" in decision.allocation and rng.random() < 0.5:
            lines.append(Click(event_id=f"{number}c", ts=query.ts + 2, entity_id="memory0", **common))
    path.write_bytes(b"\n".join(map(codec.encode, lines)))


def test_a_terminal_shows_what_is_done_and_how_far_it_is(tmp_path: Path) -> None:
    log, items = tmp_path / "events.jsonl", tmp_path / "log.csv"
    write_log(log, 200)
    items.write_text("item_id,position,click,propensity_score\n" + "1,1,1,0.5\n2,1,0,0.5\n" * 200)
    for command, done in (
        (["evaluate", str(log)], "75% evaluating learned, squarecb"),
        (["bandits", "compare", str(log)], "75% evaluating learned, squarecb"),
        (["evaluate", str(items)], "0% evaluating uniform"),
    ):
        assert done in CliRunner().invoke(main, command, env=TERMINAL).stderr
        assert CliRunner().invoke(main, command).stderr == ""


def test_the_policy_learned_from_the_first_half_is_better_on_the_second(tmp_path: Path) -> None:
    log, report = tmp_path / "events.jsonl", tmp_path / "report.html"
    write_log(log, 1200)
    found, _ = evaluation(str(log), "--report", str(report))
    assert found.turns == 600
    assert found.left_out == 0
    uniform, greedy = policy(found, "uniform"), policy(found, "learned, greedy")
    assert greedy.estimates["DR"].value > 1.2 * uniform.estimates["DR"].value
    assert greedy.lift.low > 0
    assert greedy.sessions is None
    text = report.read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    assert "learned, greedy" in text
    ran = run(str(log))
    assert "effective sample size" in ran.output
    assert "logged" in ran.output


def test_whole_sessions_and_users_are_relied_upon_if_asked_for(tmp_path: Path) -> None:
    log, report = tmp_path / "events.jsonl", tmp_path / "report.html"
    write_log(log, 1500)
    found, exit_code = evaluation(
        str(log), "--horizon", "session", "--discount", "0.9", *QUICK, "--report", str(report)
    )
    uniform = policy(found, "uniform")
    assert uniform.sessions is not None
    assert {"logged", *SESSION_ESTIMATORS} == set(uniform.sessions.estimates)
    assert uniform.relied.turns == 250
    assert uniform.faults == uniform.sessions.faults
    assert found.lift(uniform) == uniform.sessions.lift
    assert exit_code == (0 if found.usable else 3)
    # A fifth of all strategies is `memory`, half of whose answers are clicked, in each of three turns.
    value = uniform.sessions.estimates["WDR"]
    assert value.low < 0.1 * (1 + 0.9 + 0.81) < value.high
    assert "per session: WDR" in report.read_text(encoding="utf-8")
    ran = run(str(log), "--horizon", "user", *QUICK)
    assert "per user: WDR minus logged success" in ran.output
    found, _ = evaluation(str(log), "--horizon", "user", *QUICK)
    assert policy(found, "uniform").relied.turns == 50
    assert any("users" in fault for one in found.policies for fault in one.faults)


def test_goals_are_a_reward_of_sessions(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    write_log(log, 600, coin=0.5)
    # No query follows within the window, so each turn is a goal.
    by_success, by_goals = (
        policy(evaluation(str(log), "--horizon", "session", "--reward", one, *QUICK)[0], "uniform")
        for one in ("success", "goals")
    )
    assert by_goals.sessions == by_success.sessions
    assert by_goals.union is None
    assert by_success.union is not None
    assert run(str(log), "--reward", "goals").exit_code == 2


def test_sessions_that_cannot_be_weighed_say_what_to_log(tmp_path: Path) -> None:
    log, table = tmp_path / "events.jsonl", tmp_path / "log.csv"
    write_log(log, 300, allocation_propensity=None)
    ran = run(str(log), "--horizon", "session")
    assert ran.exit_code == 1
    assert "`allocation_propensity`" in ran.output
    write_log(log, 300, users=0)
    ran = run(str(log), "--horizon", "user")
    assert ran.exit_code == 1
    assert "`user_id`" in ran.output
    table.write_text("item_id,position,click,propensity_score\n1,1,0,0.5\n1,1,1,0.5\n")
    assert run(str(table), "--horizon", "session").exit_code == 2


def test_where_strategies_share_pages_only_whole_allocations_are_relied_upon(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    write_log(log, 600, budget=4)
    found, exit_code = evaluation(str(log))
    assert found.shared
    assert found.pages is not None
    assert found.pages.overlap == 0.0
    assert found.pages.several > 0.2
    uniform = policy(found, "uniform")
    assert uniform.whole is not None
    assert found.lift(uniform) == uniform.whole.lift != uniform.lift
    assert exit_code == (3 if any(one.faults for one in found.policies) else 0)
    assert "ask several strategies" in run(str(log)).output
    write_log(log, 300, budget=4, allocation_propensity=None)
    found, exit_code = evaluation(str(log))
    assert exit_code == 3
    assert all("allocation_propensity" in fault for one in found.policies for fault in one.faults)


def test_where_only_the_policies_would_share_pages_whole_allocations_are_relied_upon(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    write_log(log, 600)
    of_three = []
    for event in map(orjson.loads, log.read_bytes().splitlines()):
        if "allocation" in event:
            event["allocation"] = {name: 3 * count for name, count in event["allocation"].items()}
        of_three.append(orjson.dumps(event))
    log.write_bytes(b"\n".join(of_three))
    found, exit_code = evaluation(str(log))
    assert found.pages is not None
    assert (found.pages.several, found.shared, exit_code) == (0.0, True, 3)
    assert found.pages.asked > 0.5
    assert "do not cover the policy" in " ".join(policy(found, "uniform").faults)


def test_a_policy_weighs_its_own_plans_of_distinct_budgets_with_1(tmp_path: Path) -> None:
    log, store = tmp_path / "events.jsonl", f"sqlite:///{tmp_path}/policy.db"
    write_log(log, 100, budget=4)
    assert CliRunner().invoke(main, ["run", str(log), "--store", store]).exit_code == 0
    with closing(PolicyReader(store)) as reader:
        write_log(log, 300, budget=4, distinct=True, served=reader.policy)
    found, _ = evaluation(str(log), "--store", store)
    (value,) = found.policies
    assert value.relied.effective == pytest.approx(found.turns)


def test_clicks_on_items_that_were_looked_up_tell_of_policies_that_share_pages(tmp_path: Path) -> None:
    log, report = tmp_path / "events.jsonl", tmp_path / "report.html"
    write_log(log, 3600, budget=4, coin=0.7, allocation_propensity=None)
    found, exit_code = evaluation(str(log), "--report", str(report))
    assert (found.shared, exit_code) == (True, 0)
    greedy = policy(found, "learned, greedy")
    assert greedy.union is not None
    assert found.lift(greedy) == greedy.union.lift
    # It asks `memory` but for its floor of random sets, and half of what that has is clicked.
    value = greedy.union.estimates["clicked items, IPS"]
    assert value.low < 0.49 < value.high
    assert greedy.union.lift.low > 0
    assert "clicked items minus logged success" in report.read_text(encoding="utf-8")
    write_log(log, 300, budget=4, coin=0.7, in_turns=False)
    union = policy(evaluation(str(log))[0], "uniform").union
    assert union is not None
    assert any("do not stand by rank" in fault for fault in union.faults)
    write_log(log, 2400, budget=4, coin=0.7, looked_up=0.5)  # of a coin that is not thrown
    found, _ = evaluation(str(log))
    uniform = policy(found, "uniform")
    assert uniform.union is not None
    assert any("2.00 of the turns" in fault for fault in uniform.union.faults)
    assert uniform.of_pages == uniform.whole


def test_the_policy_in_a_store(tmp_path: Path) -> None:
    log, store = tmp_path / "events.jsonl", f"sqlite:///{tmp_path}/policy.db"
    write_log(log, 300, allocation_propensity=None)
    assert CliRunner().invoke(main, ["run", str(log), "--store", store]).exit_code == 0
    found, _ = evaluation(str(log), "--store", store)
    assert found.turns == 300
    (value,) = found.policies
    assert value.name.startswith("version ")
    assert value.kept is None  # no whole allocation has a propensity


def test_logs_that_cannot_be_evaluated_say_what_to_log(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    write_log(log, 20, propensities={})
    ran = run(str(log))
    assert ran.exit_code == 1
    assert "`propensities`" in ran.output
    assert run(str(log), "--policy", "a=b").exit_code == 2
    log.write_text("no event\n")
    assert "no valid `query` event" in run(str(log)).output
    assert run(str(tmp_path / "none.jsonl")).exit_code == 1
    config = tmp_path / "config.toml"
    config.write_text('[bandit]\nstrategies = ["lexical"]\n')
    write_log(log, 20)
    ran = run(str(log), "--config", str(config))
    assert ran.exit_code == 1
    assert "bandit.strategies" in ran.output


def test_bandits_are_compared_on_a_log(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    write_log(log, 2400)
    ran = CliRunner().invoke(main, ["bandits", "compare", str(log)], terminal_width=200)
    assert ran.exit_code == 0, ran.output
    assert "Recommended: learned, " in ran.output
    ran = CliRunner().invoke(main, ["bandits", "compare", str(log), "--json"])
    assert msgspec.json.decode(ran.stdout, type=Evaluation).turns == 1200
    assert CliRunner().invoke(main, ["bandits", "compare", str(tmp_path / "none")]).exit_code == 1
    write_log(log, 60)
    for output in ((), ("--json",)):
        assert CliRunner().invoke(main, ["bandits", "compare", str(log), *output]).exit_code == 3
