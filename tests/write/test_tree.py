"""The tree of what was written, in node, against a list of texts."""

from __future__ import annotations

import json
import random
from importlib.resources import files

import pytest

from tests.export.browsers import run_in_node

TREE = (files("folio.write") / "tree.js").read_text(encoding="utf-8")
RUN = """
const texts = (tree) => {
  const found = [], waiting = [tree.root];
  while (waiting.length) {
    const node = waiting.pop();
    found.push(tree.text(node));
    waiting.push(...node.children);
  }
  return found;
};
return given.map((steps) => {
  const tree = new Tree(), shown = [""];
  for (const [kind, ...how] of steps) {
    tree[kind](...how);
    shown.push(tree.text());
  }
  const again = Tree.fromJSON(JSON.parse(JSON.stringify(tree)));
  const inOrder = (one) => JSON.stringify([one.text(), ...texts(one).sort()]);
  const same = inOrder(again) === inOrder(tree);
  for (const { text } of tree.toJSON().nodes) encodeURI(text); // fails at half of a pair
  const all = texts(tree), back = [];
  while (tree.undo()) back.push(tree.text());
  const there = [tree.text()];
  while (tree.redo()) there.push(tree.text());
  return { shown, same, all, back, there };
});
"""


def outcomes(sequences: list[list[list[object]]]) -> list[dict[str, object]]:
    return run_in_node(TREE, f"const given = {json.dumps(sequences)};\n{RUN}")


def drawn(seed: int) -> tuple[list[list[object]], list[str], list[str]]:
    """Steps, the texts after them, and those that undo should come by: a new one cuts off what was
    undone before it.
    """
    rng = random.Random(seed)
    text, steps, shown, past, at = "", list[list[object]](), [""], [""], 0
    for _ in range(rng.randrange(1, 12)):
        kind = rng.choice(["edit", "edit", "branch", "undo", "redo"])
        if kind == "undo":
            at = max(0, at - 1)
            steps.append(["undo"])
        elif kind == "redo":
            at = min(len(past) - 1, at + 1)
            steps.append(["redo"])
        else:
            cut = rng.randrange(len(text) + 1)
            added = "".join(rng.choice("ab\U0001f600\U0001f601") for _ in range(rng.randrange(4)))
            rest = "" if kind == "branch" else text[rng.randrange(cut, len(text) + 1) :]
            new = text[:cut] + added + rest
            length = len(text[:cut].encode("utf-16-le")) // 2
            steps.append(
                ["edit", new, False] if kind == "edit" else ["branch", length, added, "model"]
            )
            if new != text:
                past, at = [*past[: at + 1], new], at + 1
        text = past[at]
        shown.append(text)
    return steps, shown, past[: at + 1]


def test_any_steps_can_be_undone_and_redone_and_nothing_is_lost():
    cases = [drawn(seed) for seed in range(300)]
    for (steps, shown, past), outcome in zip(cases, outcomes([steps for steps, _, _ in cases])):
        assert outcome["shown"] == shown, steps
        assert outcome["back"] == past[-2::-1], steps
        assert outcome["there"][: len(past)] == past, steps  # type: ignore[index]
        assert set(shown) <= set(outcome["all"]), steps  # type: ignore[arg-type]
        assert outcome["same"], steps


def test_typing_on_is_one_step():
    steps = [["edit", "a", False], ["edit", "ab", True], ["edit", "abc", True], ["edit", "x", True]]
    (outcome,) = outcomes([steps])
    assert outcome["back"] == [""] and outcome["there"] == ["", "x"]
    (outcome,) = outcomes(
        [[["edit", "a b", False], ["edit", "a b c", False], ["edit", "a b", True]]]
    )
    assert outcome["back"] == [""] and set(outcome["all"]) == {"", "a b"}  # type: ignore[arg-type]


def test_the_other_branch_is_the_one_beside_the_nearest_fork():
    walks = [["edit", "a", False], ["branch", 1, "b", "model"], ["branch", 1, "c", "model"]]
    steps = [*walks, ["walk", 1], ["walk", 1], ["walk", -1], ["undo"]]
    (outcome,) = outcomes([steps])
    assert outcome["shown"] == ["", "a", "ab", "ac", "ab", "ac", "ab", "ac"]


def test_who_goes_to_a_node_that_is_gone_comes_to_what_is_left_of_its_way():
    script = """
    const tree = new Tree(), other = new Tree();
    tree.edit("a", false);
    const gone = tree.add(tree.current, "b", "model"), below = tree.add(gone, "c", "model");
    tree.remove(gone);
    const found = [below, gone, other.root].map((node) => (tree.go(node), tree.text()));
    tree.past[tree.at] = below;
    return [...found, Tree.fromJSON(JSON.parse(JSON.stringify(tree))).text()];
    """
    assert run_in_node(TREE, script) == ["a", "a", "", "a"]


def test_branches_that_were_kept_without_text_are_gone():
    script = """
    const tree = new Tree();
    tree.edit("a", false);
    for (const by of ["model", "model"]) tree.add(tree.current, "", by);
    tree.go(tree.current.children[1]);
    const again = Tree.fromJSON(JSON.parse(JSON.stringify(tree)));
    return [again.text(), again.current.text, again.current.children.length];
    """
    assert run_in_node(TREE, script) == ["a", "a", 0]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"nodes": [{"parent": None, "text": 3, "by": "you"}], "current": 0}, "node 0 has no text"),
        ({"nodes": [{"parent": None, "text": "a", "by": "you"}], "current": 0}, "no beginning"),
        ({"nodes": [{"parent": None, "text": "", "by": "me"}], "current": 0}, "neither you nor"),
        ({"nodes": [{"parent": None, "text": "", "by": "you"}], "current": 1}, "where you are"),
        ({"nodes": [{"parent": None, "text": "", "by": "you"}], "current": "length"}, "where you"),
        (
            {
                "nodes": [
                    {"parent": None, "text": "", "by": "you"},
                    {"parent": 1, "text": "a", "by": "you"},
                ],
                "current": 0,
            },
            "the parent of node 1",
        ),
    ],
)
def test_a_tree_that_is_none_is_refused(entry: dict[str, object], message: str):
    script = f"try {{ Tree.fromJSON({json.dumps(entry)}) }} catch (e) {{ return e.message }}"
    assert message in run_in_node(TREE, script)
