"""A browser and a server that exchange registers over a network that loses, repeats, delays and reorders."""

from __future__ import annotations

import random
import types
import typing as t

from flask_stateful.browser import registers
from flask_stateful.browser.registers import NOTHING, Conflict, Entry, Register, Write

DAY = 24 * 3600 * 1_000_000
START = 1_790_000_000_000_000

#: The rules under test; a broken copy replaces one function.
Rules: t.TypeAlias = types.ModuleType | types.SimpleNamespace


def merge(server: bytes | None, browser: bytes | None) -> bytes | None:
    """Make one value of two, which tells of which it was made."""
    return b"(%s+%s)" % (server or b"-", browser or b"-")


def broken(**replaced: t.Any) -> types.SimpleNamespace:
    """Return the rules with some of them replaced."""
    return types.SimpleNamespace(**{**vars(registers), **replaced})


class Fault(AssertionError):
    """A schedule that the rules did not survive."""


class Exchange:
    """One register in a replica, or in a mirror cookie, and its entry in one browser, whose tabs share its storage."""

    def __init__(self, seed: int, *, mirror: bool = False, rules: Rules = registers) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.mirror = mirror
        self.conflict: Conflict = "browser" if mirror else self.random.choice(["browser", "server", merge])
        self.server: Register | None = None
        self.entry = Entry()
        self.offset = self.random.choice([0, 0, DAY, -DAY])
        self.server_time = START
        self.browser_time = START + self.offset
        self.uplink: list[tuple[Write, Register | None]] = []
        self.downlink: list[t.Callable[[], None]] = []
        self.count = 0
        #: The entries that this browser has held, each later than the one before.
        self.newest = (0, 0)
        self.losses = 0

    # What happens

    def step(self) -> None:
        """Let something happen."""
        self.server_time += self.random.choice([0, 1, 50, 1_000_000])
        self.browser_time += self.random.choice([0, 1, 50, 1_000_000])
        happenings = [self.assign, self.assign, self.send, self.send, self.write, self.receive, self.receive]
        happenings += [self.deliver, self.deliver, self.publish, self.lose, self.step_clock, self.lose_replica]
        self.random.choice(happenings)()
        if self.mirror:
            self.random.choice([self.look, int])()

    def assign(self) -> None:
        """JavaScript assigns a value, in one tab or another."""
        self.count += 1
        value = None if self.random.random() < 0.1 else b"js%d" % self.count
        before, self.entry = self.entry, self.rules.assign(self.entry, value, self.browser_time)
        if self.entry.write <= before.write:
            raise Fault(f"{self.entry} cannot be told from {before}, and would be ignored")
        self.newest = (self.entry.revision, self.entry.write)
        if self.mirror:
            self.bake()

    def write(self) -> None:
        """Python assigns a value; its answer may come late, or never."""
        self.count += 1
        value = None if self.random.random() < 0.1 else b"py%d" % self.count
        before = self.server or NOTHING
        register = self.rules.write(before, value, self.server_time)
        if register.revision <= before.revision or register.write != before.write:
            raise Fault(f"{register} cannot be told to be later than {before}, and would be ignored")
        if self.mirror:
            self.downlink.append(lambda: self.cookie(register))
        else:
            self.server = register
            self.publish()

    def publish(self) -> None:
        """The server sends a page, or the answer to a pull."""
        register = self.server
        if self.mirror:
            if register is not None:
                self.downlink.append(lambda: self.cookie(register))
            return

        def arrive() -> None:
            if register is not None:
                self.take(register)
            self.entry = self.rules.compare(self.entry, None if register is None else register.revision)

        self.downlink.append(arrive)

    def send(self) -> None:
        """The browser pushes what is pending."""
        if self.entry.pending:
            self.uplink.append((Write(*self.entry[:3]), self.server))

    def deliver(self) -> None:
        """One of the pushes on their way arrives, perhaps a second time."""
        if self.uplink:
            at = self.random.randrange(len(self.uplink))
            sent = self.uplink[at] if self.random.random() < 0.2 else self.uplink.pop(at)
            self.arrive(*sent)

    def arrive(self, sent: Write, cookie: Register | None) -> None:
        """A push reaches the server, with the mirror cookie as it was when it was sent."""
        before = (cookie if self.mirror else self.server) or NOTHING
        pushed = self.rules.push(before, sent, self.conflict, self.server_time)
        self.judge(before, sent, pushed)
        register = pushed.register
        if self.mirror:
            self.downlink.append(lambda: self.cookie(register))
        else:
            self.server = register
        if pushed.stands:
            self.downlink.append(lambda: self.acknowledge(register))
        else:
            self.downlink.append(lambda: self.take(register))

    def receive(self) -> None:
        """One of the answers on their way arrives, perhaps a second time."""
        if self.downlink:
            at = self.random.randrange(len(self.downlink))
            (self.downlink[at] if self.random.random() < 0.2 else self.downlink.pop(at))()

    def lose(self) -> None:
        """A message is lost."""
        for link in (self.uplink, self.downlink):
            if link and self.random.random() < 0.5:
                link.pop(self.random.randrange(len(link)))

    def step_clock(self) -> None:
        """A clock is set, forth or back."""
        by = self.random.choice([-DAY, -1_000_000, 1_000_000, DAY])
        if self.random.random() < 0.5:
            self.browser_time += by
        else:
            self.server_time += by

    def lose_replica(self) -> None:
        """The server's copy is lost; of a mirror cookie, the browser's jar."""
        if self.random.random() < 0.2:
            self.server, self.losses = None, self.losses + 1

    # What the browser does

    def take(self, register: Register) -> None:
        """A server's register arrives in the browser."""
        before, self.entry = self.entry, self.rules.take(self.entry, register, mirrored=self.mirror)
        if self.entry is before:
            return
        if (self.entry.revision, self.entry.write) < self.newest:
            raise Fault(f"a stale page rolled {before} back to {self.entry}")
        if register.write < before.write and (before.pending or self.mirror):
            raise Fault(f"{before} was replaced by {register}, which does not know it")
        self.newest = (self.entry.revision, self.entry.write)

    def acknowledge(self, register: Register) -> None:
        """A confirmation arrives in the browser."""
        self.entry = self.rules.acknowledge(self.entry, register.revision, register.write)
        if (self.entry.revision, self.entry.write) < self.newest:
            raise Fault(f"a stale confirmation took {self.newest} back to {self.entry}")
        self.newest = (self.entry.revision, self.entry.write)

    # A mirror: the register is a cookie, which whoever is processed last overwrites

    def cookie(self, register: Register) -> None:
        """A Set-Cookie is processed."""
        self.server = register

    def bake(self) -> None:
        """The browser writes its own entry into the cookie."""
        self.server = Register(*self.entry[:3])

    def look(self) -> None:
        """The browser compares the cookie with its own entry; where its own is later, it writes that back."""
        if self.server is not None and self.entry[:3] != self.server:
            self.take(self.server)
        if self.entry != Entry() and self.entry[:3] != self.server:
            self.bake()

    # What must hold

    def judge(self, before: Register, sent: Write, pushed: registers.Pushed) -> None:
        """Order and conflicts: every push comes to one of the outcomes that are promised."""
        after = pushed.register
        if sent.write < before.write and after.value != before.value:
            raise Fault(f"{sent} overwrote {before}, which had seen a later write")
        if after.revision < before.revision or after.write < before.write:
            raise Fault(f"{before} went back to {after}")
        if sent.write > before.write:
            theirs = {"browser": sent.value, "server": before.value}
            expected = sent.value
            if sent.base < before.revision:
                conflict = self.conflict
                expected = theirs[conflict] if isinstance(conflict, str) else conflict(before.value, sent.value)
            if after.value != expected:
                raise Fault(f"{sent} on {before} came to {after}: a third outcome")
            if pushed.stands != (after.value == sent.value) and after.value != sent.value:
                raise Fault(f"{sent} is confirmed, although {after} stands")

    def settle(self) -> None:
        """Writes stop and messages flow, in both directions, those on their way included."""
        while self.uplink:
            self.arrive(*self.uplink.pop(self.random.randrange(len(self.uplink))))
        while self.downlink:
            self.downlink.pop(self.random.randrange(len(self.downlink)))()
        for _ in range(4):
            if self.mirror:
                self.look()
            else:
                self.publish()
            self.drain()
            self.send()
            while self.uplink:
                self.arrive(*self.uplink.pop())
            self.drain()
        held = (self.server or NOTHING).value
        if held != self.entry.value or self.entry.pending:
            raise Fault(f"the server holds {self.server}, the browser {self.entry}")

    def drain(self) -> None:
        """Let the answers on their way arrive."""
        while self.downlink:
            self.downlink.pop(0)()


def run(seed: int, *, mirror: bool = False, rules: Rules = registers, steps: int = 40) -> Exchange:
    """Run one schedule to its end."""
    exchange = Exchange(seed, mirror=mirror, rules=rules)
    for _ in range(exchange.random.randrange(steps)):
        exchange.step()
    exchange.settle()
    return exchange


def run_many(count: int, *, mirror: bool = False, rules: Rules = registers) -> None:
    """Run so many schedules."""
    for seed in range(count):
        run(seed, mirror=mirror, rules=rules)
