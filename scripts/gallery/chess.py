"""The rules of chess: which moves are legal, and games that two careless players might play.

A square is a number, 0 is a1, 7 is h1 and 63 is h8. A move is written as e2e4, or e7e8q.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

BEGIN = "RNBQKBNR" + "P" * 8 + "." * 32 + "p" * 8 + "rnbqkbnr"
STEPS = {
    "n": [(1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2)],
    "b": [(1, 1), (1, -1), (-1, 1), (-1, -1)],
    "r": [(0, 1), (1, 0), (0, -1), (-1, 0)],
}
STEPS["q"] = STEPS["k"] = STEPS["b"] + STEPS["r"]
SLIDES = "brq"
VALUES = {".": 1, "p": 4, "n": 12, "b": 12, "r": 20, "q": 36, "k": 1}
"""How much likelier a careless player takes such a piece, than moves to an empty square."""
CASTLING = {"K": (4, 6, 7, 5), "Q": (4, 2, 0, 3), "k": (60, 62, 63, 61), "q": (60, 58, 56, 59)}
"""Right -> from where to where the king goes, and the rook."""


@dataclass(frozen=True)
class Position:
    """What the next move depends on, but for repetitions."""

    board: str = BEGIN
    white: bool = True
    rights: str = "KQkq"
    passant: int | None = None
    """The square behind a pawn that has just moved two squares."""

    def ours(self, square: int) -> bool:
        """Whether a piece of the side to move stands there."""
        piece = self.board[square]
        return piece != "." and piece.isupper() == self.white


Move = tuple[int, int, str]
"""From, to, and what a pawn becomes, or nothing."""


def legal_moves(position: Position) -> list[Move]:
    """All moves that do not leave the own king in check."""
    return [
        move
        for move in [*_moves(position), *_castles(position)]
        if not in_check(replace(after(position, move), white=position.white))
    ]


def in_check(position: Position) -> bool:
    """Whether the king of the side to move is attacked."""
    king = position.board.index("K" if position.white else "k")
    return attacked(position, king)


def attacked(position: Position, square: int) -> bool:
    """Whether the other side could take a piece of the side to move on a square."""
    board = position.board
    knight, others = ("n", "bqrk") if position.white else ("N", "BQRK")
    if any(board[line[0]] == knight for step in STEPS["n"] if (line := _line(square, step))):
        return True
    for step in STEPS["q"]:
        kinds = others[:2] if 0 not in step else others[1:3]
        for distance, to in enumerate(_line(square, step)):
            piece = board[to]
            if piece != ".":
                if piece in kinds or (piece == others[3] and distance == 0):
                    return True
                break
    ahead, pawn = (1, "p") if position.white else (-1, "P")
    sides = (_beside(square, side, ahead) for side in (-1, 1))
    return any(to is not None and board[to] == pawn for to in sides)


def after(position: Position, move: Move) -> Position:
    """The position behind a move."""
    start, to, becomes = move
    board, piece = list(position.board), position.board[start]
    pawn = piece in "Pp"
    if pawn and to == position.passant:
        board[to - 8 if position.white else to + 8] = "."
    board[to], board[start] = (_colored(becomes, position.white) if becomes else piece), "."
    for right in position.rights:
        king_from, king_to, rook_from, rook_to = CASTLING[right]
        if piece in "Kk" and (start, to) == (king_from, king_to):
            board[rook_to], board[rook_from] = board[rook_from], "."
    touched = {start, to}
    rights = "".join(r for r in position.rights if not touched & {CASTLING[r][0], CASTLING[r][2]})
    passant = (start + to) // 2 if pawn and abs(to - start) == 16 else None
    return Position("".join(board), not position.white, rights, passant)


def written(move: Move) -> str:
    """A move in letters.

    >>> written((12, 28, ""))
    'e2e4'
    """
    start, to, becomes = move
    return "".join(f"{'abcdefgh'[s % 8]}{s // 8 + 1}" for s in (start, to)) + becomes


def game(draw: random.Random, longest: int = 60) -> str:
    """The moves of a game on one line; players like to take, and to promote."""
    position, moves = Position(), []
    while len(moves) < longest and (choices := legal_moves(position)):
        weights = [VALUES[position.board[to].lower()] + 8 * bool(b) for _, to, b in choices]
        (move,) = draw.choices(choices, weights)
        moves.append(written(move))
        position = after(position, move)
    return " ".join(moves)


def share_of_legal(text: str) -> tuple[int, int]:
    """How many moves of whole games are legal, up to the first that is not in each; and of how
    many that were tried.
    """
    right = tried = 0
    for line in text.splitlines():
        position = Position()
        for word in line.split():
            tried += 1
            known = {written(move): move for move in legal_moves(position)}
            if word not in known:
                break
            right += 1
            position = after(position, known[word])
    return right, tried


# ---- how pieces move ------------------------------------------------------------------------


def _moves(position: Position) -> Iterator[Move]:
    for start in range(64):
        if not position.ours(start):
            continue
        kind = position.board[start].lower()
        if kind == "p":
            yield from _pawn(position, start)
            continue
        for step in STEPS[kind]:
            for to in _along(position, start, step, kind):
                if not position.ours(to):
                    yield start, to, ""


def _along(position: Position, start: int, step: tuple[int, int], kind: str) -> Iterator[int]:
    """Squares that a piece reaches in a direction, up to the first that is not empty."""
    for to in _line(start, step)[: None if kind in SLIDES else 1]:
        yield to
        if position.board[to] != ".":
            return


@cache
def _line(square: int, step: tuple[int, int]) -> tuple[int, ...]:
    """All squares in a direction, to the edge of the board."""
    to = _beside(square, *step)
    return () if to is None else (to, *_line(to, step))


def _beside(square: int, right: int, up: int) -> int | None:
    file, rank = square % 8 + right, square // 8 + up
    return 8 * rank + file if 0 <= file < 8 and 0 <= rank < 8 else None


def _pawn(position: Position, start: int) -> Iterator[Move]:
    up = 1 if position.white else -1
    targets = []
    one = start + 8 * up
    if position.board[one] == ".":
        targets.append(one)
        two = one + 8 * up
        if start // 8 == (1 if position.white else 6) and position.board[two] == ".":
            targets.append(two)
    for side in (-1, 1):
        to = _beside(start, side, up)
        if to is None:
            continue
        taken = position.board[to] != "." and not position.ours(to)
        if taken or to == position.passant:
            targets.append(to)
    for to in targets:
        for becomes in "qrbn" if to // 8 in (0, 7) else ("",):
            yield start, to, becomes


def _castles(position: Position) -> Iterator[Move]:
    for right in position.rights:
        if right.isupper() != position.white:
            continue
        start, to, rook, _ = CASTLING[right]
        between = position.board[min(start, rook) + 1 : max(start, rook)]
        if set(between) == {"."} and not any(
            attacked(position, square) for square in (start, (start + to) // 2)
        ):
            yield start, to, ""


def _colored(kind: str, white: bool) -> str:
    return kind.upper() if white else kind
