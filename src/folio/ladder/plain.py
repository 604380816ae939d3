"""Step -1: the GPT of step 1 in plain Python, with its own backward pass. It imports nothing.

A `Number` remembers which numbers it was computed from, and its derivative by each of them. The
loss is such a number: `backward` walks from it to the weights and leaves a gradient in each. That
is all that torch's autograd does, for whole tensors. Run this file, and it learns its own source.

Source: Rumelhart, Hinton & Williams 1986, https://doi.org/10.1038/323533a0

Shapes:  T positions · C = d_model · V vocabulary; a matrix (V, C) is a list of V lists of C numbers
"""

E = 2.718281828459045


class Number:
    """A value, the numbers it was computed from, and its derivative by each of them."""

    def __init__(self, value, parents=(), slopes=()):
        self.value, self.parents, self.slopes, self.gradient = value, parents, slopes, 0.0

    def __add__(self, other):
        return Number(self.value + other.value, (self, other), (1.0, 1.0))

    def __truediv__(self, other):
        ratio = self.value / other.value
        return Number(ratio, (self, other), (1 / other.value, -ratio / other.value))

    def exp(self):
        value = E**self.value
        return Number(value, (self,), (value,))

    def log(self):
        y = 0.0
        for _ in range(60):  # Newton's method on e^y = x: at most 1 a round, then twice the digits
            y += self.value / E**y - 1
        return Number(y, (self,), (1 / self.value,))

    def backward(self):
        """Add d self / d x to `x.gradient` for every number x that self was computed from."""
        order, seen, stack = [], set(), [(self, False)]
        while stack:  # a topological order, parents first
            number, is_done = stack.pop()
            if is_done:
                order.append(number)
            elif number not in seen:
                seen.add(number)
                stack += [(number, True), *((parent, False) for parent in number.parents)]
        self.gradient = 1.0
        for number in reversed(order):  # the chain rule; all uses of a number come before it
            for parent, slope in zip(number.parents, number.slopes):
                parent.gradient += slope * number.gradient


def dot(a, b):
    """(C,), (C,) -> their dot product."""
    value = sum(x.value * y.value for x, y in zip(a, b))
    return Number(value, (*a, *b), (*(y.value for y in b), *(x.value for x in a)))


def total(numbers):
    """(N,) -> their sum."""
    return Number(sum(x.value for x in numbers), tuple(numbers), (1.0,) * len(numbers))


def softmax(scores):
    """(N,) scores -> (N,) probabilities."""
    shift = Number(-max(score.value for score in scores))  # the same result, and no overflow
    powers = [(score + shift).exp() for score in scores]
    whole = total(powers)
    return [power / whole for power in powers]


def uniform(seed):
    """Draw from 0 to 1 without end: a linear congruential generator (Knuth's MMIX)."""
    while True:
        seed = (6364136223846793005 * seed + 1442695040888963407) % 2**64
        yield seed / 2**64


def build(vocab_size, context_length, d_model, seed=1):
    """Draw the weights of a model: matrices of numbers, by name."""
    draw = uniform(seed)

    def matrix(rows, columns, scale):
        return [[Number(scale * (2 * next(draw) - 1)) for _ in range(columns)] for _ in range(rows)]

    small = d_model**-0.5
    return {
        "token_embedding": matrix(vocab_size, d_model, 1.0),
        "position_embedding": matrix(context_length, d_model, 1.0),
        "q_proj": matrix(d_model, d_model, small),
        "k_proj": matrix(d_model, d_model, small),
        "v_proj": matrix(d_model, d_model, small),
        "lm_head": matrix(vocab_size, d_model, small),
        "bias": matrix(1, vocab_size, small),
    }


def forward(weights, token_ids):
    """(T,) token ids -> (T, V) logits; position t sees positions <= t only."""
    keys, values, logits = [], [], []
    for position, token in enumerate(token_ids):
        here = weights["position_embedding"][position]
        x = [a + b for a, b in zip(weights["token_embedding"][token], here)]  # (C,)
        query, key, value = (
            [dot(row, x) for row in weights[name]] for name in ("q_proj", "k_proj", "v_proj")
        )
        keys.append(key)
        values.append(value)
        scores = [dot(query, key) / Number(len(x) ** 0.5) for key in keys]  # (t + 1,)
        shares = softmax(scores)
        mixed = [dot(shares, channel) for channel in zip(*values)]  # (C,)
        logits.append(
            [dot(row, mixed) + bias for row, bias in zip(weights["lm_head"], weights["bias"][0])]
        )
    return logits


def loss_of(weights, token_ids, targets):
    """(T,), (T,) -> the mean cross-entropy in nats, a number."""
    scores = forward(weights, token_ids)
    logs = [softmax(row)[target].log() for row, target in zip(scores, targets)]
    return total(logs) / Number(-len(logs))


def train(weights, windows, learning_rate=1e-3):
    """Take a step of AdamW on each window of T + 1 token ids; yields its loss before the step."""
    numbers = [x for matrix in weights.values() for row in matrix for x in row]
    means, squares = [0.0] * len(numbers), [0.0] * len(numbers)
    for step, window in enumerate(windows, 1):
        for x in numbers:
            x.gradient = 0.0
        loss = loss_of(weights, window[:-1], window[1:])
        loss.backward()
        for i, x in enumerate(numbers):  # https://arxiv.org/abs/1711.05101
            means[i] = 0.9 * means[i] + 0.1 * x.gradient
            squares[i] = 0.999 * squares[i] + 0.001 * x.gradient**2
            mean, square = means[i] / (1 - 0.9**step), squares[i] / (1 - 0.999**step)
            x.value -= learning_rate * (mean / (square**0.5 + 1e-8) + 0.01 * x.value)
        yield loss.value


def write(weights, token_ids, n_tokens, seed=1):
    """Continue (T,) token ids by so many, each drawn from the model's probabilities."""
    draw, context_length = uniform(seed), len(weights["position_embedding"])
    for _ in range(n_tokens):
        shares = softmax(forward(weights, token_ids[-context_length:])[-1])
        token, left = 0, next(draw) - shares[0].value
        while left > 0 and token + 1 < len(shares):
            token += 1
            left -= shares[token].value
        token_ids = [*token_ids, token]
    return token_ids


if __name__ == "__main__":
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    letters = sorted(set(text))
    ids = [letters.index(letter) for letter in text]
    model = build(len(letters), context_length=8, d_model=16)
    places = uniform(2)
    windows = ((ids[(p := int(next(places) * (len(ids) - 9))) : p + 9]) for _ in range(2000))
    for step, loss in enumerate(train(model, windows, learning_rate=1e-2), 1):
        if step % 100 == 0:
            print(f"step {step}: {loss:.3f} nats per character of its own source")
    print("".join(letters[i] for i in write(model, ids[:8], 200)))
