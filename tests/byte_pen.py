"""What the kinds of connection are written with: a draft that counts its exchanges and knows what is to be logged."""

from random import Random
from typing import Final

from byte_messages import INFORMATIONAL, Request, Response, request, response
from byte_scripts import CLIENT, CLOSE, HALF_CLOSE, RESET, SERVER, Draft, Logged

OTHER: Final = {CLIENT: SERVER, SERVER: CLIENT}
ENDS: Final = (HALF_CLOSE, CLOSE, RESET)


class Pen:
    """A draft, and the ids of its exchanges: those of `name` are known to the end."""

    def __init__(self, random: Random, name: str, cuts: object = None, *, apart: bool | None = None) -> None:
        self.random, self.name = random, name
        self.draft = Draft(random, cuts, apart=apart)
        self.say, self.do = self.draft.say, self.draft.do

    def request(self, *, last: bool = False, known: bool = True, with_body: bool | None = None) -> Request:
        """A request, counted; one that is `known` carries an id."""
        self.draft.exchanges += 1
        requestid = f"{self.name}-{self.draft.exchanges}" if known else ""
        return request(self.random, requestid, last=last, with_body=with_body)

    def log(self, asked: Request, told: Response) -> None:
        """Both are sent whole: the record is known."""
        if asked.requestid:
            self.draft.logged.append(
                Logged(asked.requestid, asked.method, asked.path, told.status, asked.body, told.body)
            )

    def exchange(self, *, last: bool = False) -> Response:
        """One exchange, whole."""
        asked = self.request(last=last)
        told = response(self.random, asked.method, last=last)
        self.log(asked, told)
        self.say(CLIENT, asked.raw)
        for _ in range(self.random.choice((0, 0, 0, 0, 1, 2))):
            self.say(SERVER, self.random.choice(INFORMATIONAL))
        self.say(SERVER, told.raw)
        return told

    def some(self, most: int) -> None:
        """A few whole exchanges before the one it is about."""
        for _ in range(self.random.randrange(most + 1)):
            self.exchange()

    def finish(self, first: int | None = None, how: str = "") -> None:
        """One end ends, then the other, in any of the ways there are; or they leave it open."""
        choice = self.random
        end = choice.choice((CLIENT, SERVER)) if first is None else first
        act = how or choice.choice((*ENDS, HALF_CLOSE, CLOSE, "open"))
        if act == "open":
            return
        self.do(end, act)
        if act == HALF_CLOSE and choice.random() < 0.9:
            self.do(OTHER[end], choice.choice((HALF_CLOSE, HALF_CLOSE, CLOSE, RESET)))
            if choice.random() < 0.2:
                self.do(end, choice.choice((CLOSE, RESET)))
        elif act == CLOSE and choice.random() < 0.5:
            self.do(OTHER[end], choice.choice(ENDS))
