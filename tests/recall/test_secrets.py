"""Secrets: found in the forms in which people write them, scored as the model would say them,
and nowhere shown."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import folio
from folio.cli.main import main
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.table import count_ngrams
from folio.ngrams.weights import Weights
from folio.recall import personal as personal_module
from folio.recall import secrets as secrets_module
from folio.recall.personal import GIVEN, Found, Mask, find_in_pieces, find_personal, masked
from folio.recall.secrets import _find, _Scorer, look_for_canaries, look_for_secrets
from folio.recall.sources import Sources
from folio.run.model import Model
from folio.testing import tiny_gpt
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokens.text import TokenText, text_of
from tests.conftest import copied
from tests.recall.making import prose, train_on

NUMBERS = [
    "+49 30 1234567", "(030) 123 45 67", "0171/1234567", "0049 171 1234567",
    "(555) 123-4567", "+1-555-123-4567", "+44 20 7946 0958",
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_telephone_numbers_of_german_and_english_form_are_found(number: str):
    (found,) = find_personal(f"Call me at {number}, please.")
    assert (found.kind, found.string) == ("telephone number", number)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-28 12:30:45", "3.14159265358979", "1,000,000,000", "10 20 30 40 50 60 70",
        "0.12345678", "0000001 00000010", "| 12 | 34 | 56 | 78 |", "page 7, line 1234567",
        "internationalization_and_localization", "DE00 3704 0044 0532 0130 00",
        "4111 1111 1111 1112", "in the form +000000120, padded", "'+3.140000; -3.140000'",
        "01  012 0123    01234", "04.03.2023, 18:05", "on 04/03/2023 we left", "09-12-2012",
        "DONT_ACCEPT_TRUE_FOR_1", "test_a_signal_finishes_and_exits_0",
        "posts/2024-01-02-my-summer-in-italy", "iana-ipv4-special-registry",
        "backup-20240102-of-the-notes",
    ],
)  # fmt: skip
def test_dates_tables_constants_names_and_wrong_sums_are_none(text: str):
    assert list(find_personal(text)) == []


@pytest.mark.parametrize(
    ("text", "kind", "string"),
    [
        ("From: Jane <jane.doe@mail.example.org>\n", "e-mail address", "jane.doe@mail.example.org"),
        ('name,mail\n"Bob",bob@x.de\n', "e-mail address", "bob@x.de"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "account", "DE89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "account", "GB82WEST12345698765432"),
        ("card: 4111 1111 1111 1111", "card", "4111 1111 1111 1111"),
        ("token=sk_live_51H8abcDEF123456789", "key", "sk_live_51H8abcDEF123456789"),
        (
            "id 123e4567-e89b-12d3-a456-426614174000",
            "key",
            "123e4567-e89b-12d3-a456-426614174000",
        ),
        (
            "xoxb-12345678901-10987654321-pdFZKV8sk7",
            "key",
            "xoxb-12345678901-10987654321-pdFZKV8sk7",
        ),
        ("0456.12.34.56.78", "telephone number", "0456.12.34.56.78"),
        ("2f1c-77aa-90be-cdef-abcd-1234", "key", "2f1c-77aa-90be-cdef-abcd-1234"),
    ],
)
def test_what_checks_out_is_found(text: str, kind: str, string: str):
    (found,) = find_personal(text)
    assert (found.kind, found.string) == (kind, string)


def test_looking_at_lines_that_have_a_hint_loses_nothing():
    chosen = random.Random(1)
    words = [*"+(./)- \n\n", "0", "00", "12", "345", "  ", "a", "@b.de", "AB12", "x_", *NUMBERS]
    words += ["DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "sk_live_51H8abcDEF123456789"]
    n = 0
    for _ in range(400):
        text = "".join(chosen.choice(words) for _ in range(30))
        expected, taken = [], set()
        for kind, pattern in personal_module._PATTERNS.items():
            for match in pattern.finditer(text):
                if taken.isdisjoint(range(*match.span())) and personal_module._is_one(
                    kind, match[0]
                ):
                    taken.update(range(*match.span()))
                    expected.append((kind, match[0], match.start()))
        assert [(f.kind, f.string, f.start) for f in find_personal(text)] == expected
        n += len(expected)
    assert n > 300


def test_nothing_is_missed_or_told_twice_wherever_the_pieces_end():
    text = prose(80, 1) + " mail a@b.org. " + prose(60, 2) + " the watchword " + prose(50, 3)
    whole = [(f.string, f.start) for f in find_in_pieces([text], ["watchword"])]
    assert whole == [("a@b.org", text.index("a@b")), ("watchword", text.index("watchword"))]
    for size in (1, 13, 200, 399, 400, 401):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert [(f.string, f.start) for f in find_in_pieces(pieces, ["watchword"])] == whole


def test_given_strings_that_overlap_are_all_found_and_hidden():
    text, strings = "my abcdefghi here", ["abcd", "abcdef", "defghi"]
    found = find_in_pieces([text], strings)
    assert [(f.string, f.start) for f in found] == [("abcd", 3), ("abcdef", 3), ("defghi", 6)]
    assert Mask(strings)(text) == "my a•••••••• here"


def test_masks_keep_the_length_and_hide_what_is_long_enough():
    for string in [*NUMBERS, "jane.doe@mail.example.org", "sk_live_51H8abcDEF123456789"]:
        hidden = masked(string)
        assert len(hidden) == len(string)
        assert sum(a == b for a, b in zip(hidden, string) if a.isalnum()) <= 7
    mask = Mask(["Rosalind"])
    shown = mask("Rosalind, +49 30 1234567")
    assert "Rosalind" not in shown and "1234567" not in shown and len(shown) == 24


GIVEN_STRINGS = [
    "P@ssw0rd1",
    "pass.w@rd9",
    "$%&/()=?+",
    "नमस्तेदुनिया",
    "a@bcdef.gh",
    "two words, one secret",
]


@pytest.mark.parametrize("string", GIVEN_STRINGS)
def test_no_more_than_two_characters_of_a_given_string_are_shown_whatever_it_is_made_of(
    string: str,
):
    for hidden in (masked(string, GIVEN), Mask([string])(f"- {string} -")[2:-2]):
        assert len(hidden) == len(string) and set(hidden[2:]) <= {"•", " "}


def test_of_an_address_the_first_letters_and_the_end_are_shown_and_a_single_letter_is_not():
    for address, hidden in (
        ("jane.doe@mail.example.org", "j•••••••@m•••••••••••.org"),
        ("a_b.c+d@e.f.gh", "a••••••@e••.gh"),
        ("a@b.org", "•@b.org"),
    ):
        (found,) = find_personal(address)
        assert masked(found.string, found.kind) == hidden


def test_a_secret_is_hidden_wherever_the_edges_of_what_is_shown_cut_it():
    strings = ["quarrelsome-kite", "jane.doe@mail.example.org", "तितली-पतंग"]
    mask = Mask(strings)
    for string in strings:
        text = f"The word is {string}, they say."
        for start in range(len(text)):
            for stop in range(start + 1, len(text) + 1):
                for shown in (text[start:stop], f"\ufffd{text[start:stop]}\ufffd"):
                    hidden = mask(shown)
                    assert len(hidden) == len(shown)
                    assert not any(string[i : i + 3] in hidden for i in range(len(string) - 2))
        assert mask(text).startswith("The word is ") and mask(text).endswith(", they say.")


SECRET = "quarrelsome-kite"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    texts = [prose(60, seed) for seed in range(12)]
    texts[4] += " Write to jane.doe@example.org. "
    (folder / "letters.txt").write_text(f" The word is {SECRET}.\n".join(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder))
        return train_on(folder / "letters.txt", "letters", steps=150).run.path


@pytest.fixture
def with_secret(made: Path) -> Model:
    """Of a copy of a run that is trained once for all tests here."""
    return folio.load(copied(made).path)


@pytest.mark.parametrize("order", [0, 3], ids=["alone", "beside n-grams"])
def test_bits_are_those_of_a_plain_forward_pass(with_secret: Model, order: int):
    opened = with_secret
    text = TokenText(opened.training(), opened.tokenizer)
    if order:
        config = opened.model.config
        ngrams = count_ngrams(np.asarray(text.tokens), order, config.vocab_size)
        beside = GPTWithNGrams(config, ngrams, Weights(0.6, 0.5))
        beside.load_state_dict(opened.model.state_dict())
        opened = replace(opened, model=beside.eval())
    hit = next(find_in_pieces(text.pieces(), [SECRET]))
    bits = _Scorer(opened, text, temperature=0.8).bits_at(hit)
    ids = torch.from_numpy(np.asarray(text.tokens[: hit.start + len(SECRET)], np.int64))
    half = opened.model.config.context_length // 2
    with torch.no_grad():
        logits = opened.model(ids[hit.start - half :][None])[0] / 0.8
    expected = -sum(
        float(logits[half + i - 1].log_softmax(0)[ids[hit.start + i]]) for i in range(len(SECRET))
    ) / math.log(2)
    assert bits == pytest.approx(expected, rel=1e-4)


def test_a_secret_that_stands_often_comes_out_and_another_does_not(
    with_secret: Model, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(secrets_module, "TOLD_BITS", 60.0)  # after a moment of training
    opened = with_secret
    text = TokenText(opened.training(), opened.tokenizer)
    secrets, hidden = look_for_secrets(
        opened, text, Sources(opened.run, text), [], [SECRET, "never planted"], temperature=0.8
    )
    by_kind = {secret.kind: secret for secret in secrets.found}
    assert set(by_kind) == {"given", "e-mail address"}
    assert by_kind["given"].stands == 10 and by_kind["e-mail address"].stands == 1
    assert by_kind["given"].bits < by_kind["e-mail address"].bits
    assert by_kind["given"].exposure is not None and by_kind["given"].exposure > 9
    assert by_kind["e-mail address"].exposure is None
    assert SECRET in hidden
    written, _ = look_for_secrets(
        opened, text, Sources(opened.run, text), [f"so {SECRET} it"], [SECRET], temperature=0.8
    )
    assert next(s.kind for s in written.coming_out) == "given"


def scorer_of(tokenizer: Tokenizer, text: str, context_length: int = 64) -> _Scorer:
    """Of a model that learned nothing."""
    tokens = tokenizer.encode(text)
    model = tiny_gpt(vocab_size=tokenizer.vocab_size, context_length=context_length)
    opened: Any = SimpleNamespace(model=model, tokenizer=tokenizer, start_token=3)
    return _Scorer(opened, TokenText(tokens, tokenizer), temperature=0.8)


LETTERS = "Мой дядя самых честных правил, когда не в шутку занемог; Я ЧТО-ТО не 0123456789 abc"


@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_a_secret_in_any_script_is_ranked_among_others_of_its_shape(kind: str):
    text = f"{LETTERS} {LETTERS}, пароль: Чемодан-27. {LETTERS}"
    tokenizer: Tokenizer = (
        CharacterTokenizer.train([text])
        if kind == "character"
        else BPETokenizer.train([text], vocab_size=340)
    )
    scorer = scorer_of(tokenizer, text)
    others = scorer.others("Чемодан-27", seed=1)
    assert len(set(others)) > 900 and "Чемодан-27" not in others
    assert all(re.fullmatch("[А-Я][а-я]{6}-[0-9]{2}", other) for other in others)
    assert set("".join(others)) <= set(text)
    (hit,) = (hit for hit in find_in_pieces([text], ["Чемодан-27"]) if hit.kind == GIVEN)
    assert len(scorer.bits_of_others(hit)) == len(others)


def test_a_secret_that_the_vocabulary_has_no_others_of_has_no_rank():
    scorer = scorer_of(CharacterTokenizer.train(["-/aab"]), "ab-/")
    assert set(scorer.others("a-a", seed=1)) == {"a-b", "b-a", "b-b"}, "c to z are not known"
    assert scorer.others("-/-", seed=1) == []
    (hit,) = find_in_pieces(["ab-/"], ["-/"])
    assert len(scorer.bits_of_others(hit)) == 0


def test_others_stand_among_whole_characters_where_tokens_end_within_them():
    text = f"{LETTERS} слово " * 9
    scorer = scorer_of(BPETokenizer.train([text], vocab_size=290), text)
    n_cut = 0
    for at in range(60, 160):
        hit = Found(GIVEN, text[at : at + 5], at)
        start, stop, before, behind = scorer._frame(hit)
        place, symbols = scorer.symbol_of(at), len(hit.string.encode())
        n_cut += scorer._cuts_character(scorer.text.token_at(place + symbols - 1) + 1)
        n_cut += scorer._cuts_character(scorer.text.token_at(place))
        assert before + hit.string + behind == text_of(
            scorer.text.tokens[start:stop], scorer.opened.tokenizer
        )
        assert "\ufffd" not in before + behind
    assert n_cut > 5, "or it shows nothing"


def test_the_users_own_secrets_are_tried_however_many_others_there_are(
    with_secret: Model, monkeypatch: pytest.MonkeyPatch
):
    opened = with_secret
    monkeypatch.setattr(secrets_module, "MOST", 0)
    text = TokenText(opened.training(), opened.tokenizer)
    secrets, hidden = look_for_secrets(
        opened, text, Sources(opened.run, text), [], [SECRET], temperature=0.8
    )
    assert [secret.kind for secret in secrets.found] == ["given"]
    assert secrets.kinds == {"given": 1, "e-mail address": 1} and secrets.n_different == 2
    assert set(hidden) == {SECRET, "jane.doe@example.org"}, "hidden, tried or not"


def test_strings_of_the_user_that_are_not_in_the_text_are_told(
    with_secret: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = tmp_path / "secrets.txt"
    given.write_text(f"{SECRET}\n{SECRET[2:8]}\nabracadabra\n")
    options = ["--secrets", str(given), "--samples", "2", "--passages", "20"]
    for more, shown in (([], "ab•••••••••"), (["--show-secrets"], "abracadabra")):
        main(["recall", str(with_secret.run.path), *options, *more])
        told = f"not in the training text, of those given: {shown}\n"
        assert told in capsys.readouterr().out
    record = json.loads(with_secret.run.recall_file.read_text())
    assert record["secrets"]["absent"] == 1 and "abracadabra" not in json.dumps(record)


def test_where_there_is_no_time_only_the_users_own_secrets_are_tried(with_secret: Model):
    text = TokenText(with_secret.training(), with_secret.tokenizer)
    secrets, hidden = look_for_secrets(
        *(with_secret, text, Sources(with_secret.run, text), [], [SECRET]),
        temperature=0.8,
        seconds=0.0,
    )
    assert [secret.kind for secret in secrets.found] == ["given"] and secrets.n_different == 2
    assert secrets.found[0].exposure is None
    assert set(hidden) == {SECRET, "jane.doe@example.org"}, "hidden, tried or not"


def test_a_secret_in_what_the_model_wrote_is_told_though_there_was_no_time_to_try_it(
    with_secret: Model,
):
    text = TokenText(with_secret.training(), with_secret.tokenizer)
    secrets, hidden = look_for_secrets(
        *(with_secret, text, Sources(with_secret.run, text)),
        ["Dear", "so jane.doe@example.org it"],
        ["never planted"],
        temperature=0.8,
        seconds=0.0,
    )
    assert [secret.kind for secret in secrets.coming_out] == ["e-mail address"]
    assert secrets.n_tried == 0 and secrets.found[0].bits == math.inf
    assert set(hidden) == {"never planted", "jane.doe@example.org"}, "hidden, found or not"


def test_those_that_are_tried_come_from_all_over_a_text_and_what_was_written_is_among_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(secrets_module, "MOST", 20)
    text = "".join(
        f"Write to user{i}@example.org or key{i % 100}@example.org.\n" for i in range(200)
    )
    tokenizer = CharacterTokenizer.train([text])
    written = "so user150@example.org, key7@example.org it"
    tried, counts, kinds = _find(TokenText(tokenizer.encode(text), tokenizer), [], [], written)
    assert kinds == {"e-mail address": 300} and len(tried) == 22
    assert {"user150@example.org", "key7@example.org"} < set(tried)
    assert all(len(hits) == counts[name] for name, hits in tried.items())
    begins = [hits[0].start / len(text) for hits in tried.values()]
    assert min(begins) < 0.25 and max(begins) > 0.75


@pytest.mark.parametrize("context_length", [1, 16, 64])
def test_a_secret_that_begins_the_text_or_is_longer_than_a_context_is_tried(context_length: int):
    long = "".join(random.Random(1).choice("abcdefgh-_012") for _ in range(100))
    text = f"secret-1 {prose(20, 1)} {long} secret-1"
    scorer = scorer_of(CharacterTokenizer.train([text]), text, context_length)
    model, half = scorer.opened.model, max(1, context_length // 2)
    ids = torch.from_numpy(np.asarray(scorer.text.tokens, np.int64))
    for string in ("secret-1", long):
        begin = text.index(string)
        expected = 0.0
        for first in range(begin, begin + len(string), half):
            last = min(first + half, begin + len(string))
            row = ids[max(0, first - half) : last]
            if first == 0:
                row = torch.cat([torch.tensor([scorer.opened.start_token]), row])
            with torch.no_grad():
                chances = (model(row[None, :-1])[0] / 0.8).log_softmax(1)
            places = range(len(row) - (last - first), len(row))
            expected -= sum(float(chances[i - 1, row[i]]) for i in places) / math.log(2)
        assert scorer.bits_at(Found(GIVEN, string, begin)) == pytest.approx(expected, rel=1e-4)
    ranked = len(scorer.bits_of_others(Found(GIVEN, long, text.index(long))))
    assert ranked == 0, "it has no others of the same prefix"


def test_no_secret_reaches_the_disk_or_the_terminal(
    with_secret: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "mine.txt"
    file.write_text(f"{SECRET}\n\n")
    run = with_secret.run.path
    main([
        "recall", "letters", "--samples", "6", "--passages", "300", "--length", "12",
        "--secrets", str(file),
    ])  # fmt: skip
    told = capsys.readouterr()
    before = {run / "tokenizer.json", run / "README.md"}
    written = [path for path in (run / "recall.json", run / "recall.html") if path not in before]
    for text in [told.out, told.err, *(path.read_text() for path in written)]:
        assert SECRET not in text and "jane.doe@example.org" not in text
    record = json.loads((run / "recall.json").read_text())
    assert record["secrets"]["kinds"] == {"given": 1, "e-mail address": 1}


def test_a_file_of_secrets_that_cannot_be_is_refused(
    with_secret: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "mine.txt"
    file.write_text("ab\n")
    for path, words in ((file, "Give 4 or more"), (tmp_path / "absent", "There is no file")):
        with pytest.raises(SystemExit):
            main(["recall", "letters", "--secrets", str(path)])
        assert words in capsys.readouterr().err


def test_canaries_are_planted_in_the_training_text_alone_and_told_by_how_often(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("0123456789\n" + prose(500, 1).replace(". ", ".\n"))
    opened = train_on(path, "canaries", steps=120, corpus={"canaries": 8})
    planted = json.loads(opened.run.canaries_file.read_text())
    training = opened.tokenizer.decode(opened.training())
    validation = opened.tokenizer.decode(opened.validation())
    for canary in planted:
        line = f"\n{canary['label']} {canary['secret']}\n"
        assert training.count(line) == canary["times"] and canary["secret"] not in validation
    ledger = opened.run.corpus()["ledger"]
    assert ledger["planted"] == 15 * 2 * 15  # two of each class, 15 characters a line
    assert "canaries" in opened.run.card_file.read_text()
    text = TokenText(opened.training(), opened.tokenizer)
    sources = Sources(opened.run, text)
    assert any(find_personal(f"{c['label']} {c['secret']}") for c in planted), "or it shows nothing"
    secrets, _ = look_for_secrets(opened, text, sources, [], [], temperature=0.8)
    assert secrets.kinds == {"telephone number": 1}, "the digits at the beginning alone"
    classes, others = look_for_canaries(opened, text, temperature=0.8)
    assert [of.times for of in classes] == [1, 2, 4, 8]
    assert np.mean(classes[-1].bits) < np.mean(classes[0].bits)
    assert np.mean(classes[-1].exposures) > np.mean(classes[0].exposures) > 1
    assert all(10 < exposure <= 8 * math.log2(10) for exposure in classes[-1].exposures)
    assert len(others) == 8 and min(others) > max(classes[-1].bits)
