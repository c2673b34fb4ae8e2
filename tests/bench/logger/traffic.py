"""What is asked and answered: V2 JSON of a given size, as whole HTTP messages made before any clock runs.

Apart from `load`, which sends them. Bodies of one size differ, since a batch of equal ones compresses to nothing.
"""

import json
import random
from dataclasses import dataclass

# The stand-in predictor finds the body's length by it; nginx writes Content-Length anew and elsewhere.
SIZE = b"x-size: "
DIGITS = 8
REQUEST = (
    b"POST /v2/models/income/infer HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n"
    b"content-type: application/json\r\nx-request-id: %012x\r\n" + SIZE + b"%08d\r\ncontent-length: %d\r\n\r\n%b"
)
ANSWER = json.dumps(
    {"model_name": "income", "outputs": [{"name": "income", "datatype": "FP64", "shape": [1, 1], "data": [0.731059]}]}
).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
)
FEATURES = 8
SIZES = {"100 B": 100, "4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MiB": 1000 << 10}  # the last one under the tap's cap
MIX = {"100 B": 60, "4 KiB": 30, "64 KiB": 9, "1 MiB": 1}
BODIES = ("100 B", "4 KiB", "64 KiB", "mix")
# What a rules file asks for where redaction is on: both columns are in every body of 4 KiB and more.
RULES = "version: 1\nredact:\n  - {column: ssn, action: mask}\n"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests to be sent in turn, over and over."""

    name: str
    requests: tuple[bytes, ...]

    @property
    def mean_bytes(self) -> float:
        """Of the messages, heads included."""
        return sum(map(len, self.requests)) / len(self.requests)


def body(size: int, chance: random.Random) -> bytes:
    """A V2 request of exactly `size` bytes: social security numbers, and rows of floats where there is room."""
    rows = max(0, (size - 150) // (14 + 9 * FEATURES))
    while True:
        left = size - len(_body(rows, "", chance))
        if left >= 0:
            return _body(rows, "r" * left, chance)
        rows -= 1


def _body(rows: int, name: str, chance: random.Random) -> bytes:
    numbers = [f"{chance.randrange(100, 900):03d}-{chance.randrange(99):02d}-{chance.randrange(9999):04d}"]
    numbers += [f"{chance.randrange(100, 900):03d}-22-{chance.randrange(9999):04d}" for _ in range(rows - 1)]
    tensors = [_tensor("ssn", "BYTES", [len(numbers)], ",".join(f'"{one}"' for one in numbers))]
    if rows:
        floats = ",".join(f"{chance.random():.6f}" for _ in range(rows * FEATURES))
        tensors.append(_tensor("x", "FP64", [rows, FEATURES], floats))
    return f'{{"id":"{name}","inputs":[{",".join(tensors)}]}}'.encode()


def _tensor(name: str, datatype: str, shape: list[int], data: str) -> str:
    return f'{{"name":"{name}","datatype":"{datatype}","shape":{json.dumps(shape)},"data":[{data}]}}'


def request(size: int, chance: random.Random) -> bytes:
    """A whole request message."""
    made = body(size, chance)
    return REQUEST % (chance.getrandbits(48), len(made), len(made), made)


def traffic(name: str, seed: int = 0) -> Traffic:
    """The traffic of that name, always the same."""
    chance = random.Random(seed)
    if name != "mix":
        return Traffic(name, tuple(request(SIZES[name], chance) for _ in range(64)))
    made = [request(SIZES[size], chance) for size, weight in MIX.items() for _ in range(weight)]
    chance.shuffle(made)
    return Traffic(name, tuple(made))
