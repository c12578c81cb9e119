"""A second verifier of Dure's ledger, written from docs/ledger.md alone.

    verify_ledger.py EXPORT [--checkpoint NOTE] [--root HEX] [--site-ledger FILE]

Prints one JSON object as `dure audit verify --json` does: verified, entry and last_entry or
checkpoint at fault, error, or each site's epsilon by Renyi divergences. Exit status 0 verified,
1 not. Needs the standard library and `cryptography`; shares no code with Dure. Comments give the
sections of the document.
"""
import argparse
import base64
import hashlib
import json
import math
import struct
import sys
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAGIC = b"dure-ledger-export-1\n"
ZERO = bytes(32)
NAME_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
GENESIS, ROSTER, OPENED, CLOSED, ABORTED, PROMOTED, ROLLED_BACK, EPOCH = range(1, 9)


class Wrong(Exception):
    """What does not stand; entries first..last or a checkpoint (from 1) may be named."""

    def __init__(self, text, first=None, last=None, checkpoint=None):
        super().__init__(text)
        self.first, self.checkpoint = first, checkpoint
        self.last = first if last is None else last


# ---- 1. Encodings ----

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, n):
        if self.at + n > len(self.data):
            raise Wrong("cut short")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, n):
        return int.from_bytes(self.raw(n), "big")

    def u8(self):
        return self.number(1)

    def u16(self):
        return self.number(2)

    def u32(self):
        return self.number(4)

    def u64(self):
        return self.number(8)

    def f64(self):
        return struct.unpack(">d", self.raw(8))[0]

    def bytes(self, most):
        n = self.u32()
        if n > most:
            raise Wrong("too long")
        return self.raw(n)

    def text(self, most):
        value = self.bytes(most)
        if 0 in value:
            raise Wrong("a text with a zero byte")
        return value

    def name(self):
        value = self.text(64)
        if not value or not set(value) <= NAME_BYTES:
            raise Wrong("not a name")
        return value.decode()

    def end(self):
        if self.at != len(self.data):
            raise Wrong("bytes are left over")


def field(data):
    return struct.pack(">I", len(data)) + data


def sha256(data):
    return hashlib.sha256(data).digest()


def labelled(label, *fields):
    return sha256(field(label) + b"".join(field(f) for f in fields))


def signed_by(key, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def check_signature(what, key, label, message, signature):
    if not signed_by(key, field(label) + message, signature):
        raise Wrong(what + " is not validly signed")


# ---- 3. The tree ----

def leaf_hash(leaf):
    return sha256(b"\0" + leaf)


def tree_root(hashes):
    n = len(hashes)
    if n == 0:
        return sha256(b"")
    if n == 1:
        return hashes[0]
    split = 1 << ((n - 1).bit_length() - 1)
    return sha256(b"\1" + tree_root(hashes[:split]) + tree_root(hashes[split:]))


# ---- 2. The export file ----

class Export:
    def __init__(self, data):
        r = Reader(data)
        if data[:len(MAGIC)] != MAGIC:
            raise Wrong("it is not a ledger export")
        r.raw(len(MAGIC))
        self.leaves, self.hashes, self.notes = [], [], []
        try:
            n = r.u64()
            if n > 16777216:
                raise Wrong("too many entries")
            for i in range(n):
                self.leaves.append(r.bytes(32768))
                self.hashes.append(r.raw(32))
            for k in range(r.u64()):
                if k == 1048576:
                    raise Wrong("too many checkpoints")
                self.notes.append(r.bytes(32768))
            self.roster = r.bytes(4194304)
            r.end()
        except Wrong as wrong:
            raise Wrong("the export is %s" % wrong, first_fault(data)) from None


def first_fault(data):
    """The first entry that is not whole or does not have its hash, in a file that does not parse."""
    r, i = Reader(data), 0
    try:
        r.raw(len(MAGIC))
        n = r.u64()
    except Wrong:
        return None
    while i < n:
        try:
            leaf = r.bytes(32768)
            if leaf_hash(leaf) != r.raw(32):
                return i
        except Wrong:
            return i
        i += 1
    return None


# ---- 5. Leaves ----

class Record:
    """Fields by name."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def same(self, other, names):
        return all(getattr(self, n) == getattr(other, n) for n in names)


def take_reason(r):
    value = r.text(256)
    if any(c < 0x20 or c == 0x7F for c in value):
        raise Wrong("a control character in a reason")
    return value


def take_plan(r):
    start = r.at
    p = Record(mechanism=r.u8(), full=r.u8(), q_k=r.u64(), sigma_num=r.u32(), clip=r.f64(),
               grid_bits=r.u32(), steps=r.u64(), n_pub=r.u64(), batch=r.u64())
    p.honest, p.params = (r.u32(), r.u64()) if p.mechanism == 3 else (0, 0)
    p.encoding = r.data[start:r.at]
    if p.mechanism not in (1, 2, 3) or not 0 < p.batch <= p.n_pub <= 10**12:
        raise Wrong("a plan is out of range")
    rate = (1, 0) if p.batch == p.n_pub else (0, (p.batch << 64) // p.n_pub)
    if (p.full, p.q_k) != rate or not 1e-9 <= p.clip <= 1e9 or not 14 <= p.grid_bits <= 24:
        raise Wrong("a plan is out of range")
    if not 1 <= p.steps <= 10**8:
        raise Wrong("a plan is out of range")
    if p.mechanism == 3:
        v = share_variance(p) if 2 <= p.honest <= 100 else -1
        if not p.full or not 0 < p.params <= 4 ** (p.grid_bits - 6) or v and not 16 <= v <= 1 << 46:
            raise Wrong("a plan is out of range")
    return p


def share_variance(p):
    """V of section 5: (sigma G)^2 / h in grid units, rounded up."""
    return -(-(p.sigma_num**2 * 4**p.grid_bits) // (p.honest << 32))


def take_loss(r):
    bits = r.u64()
    if bits > 0x7FF0000000000000:
        raise Wrong("a loss is out of range")
    return bits


def ascending(names):
    encoded = [n.encode() for n in names]
    if any(a >= b for a, b in zip(encoded, encoded[1:])):
        raise Wrong("names are not in order")


def take_round(r, kind, version):
    e = Record(run_id=r.u64(), round=r.u64(), h_c=r.raw(32), t3=r.raw(32), roster_size=r.u64(),
               roster_head=r.raw(32), checkpoint=r.u64(), mode=r.u32(), base=r.raw(32),
               adapter_in=r.raw(32), adapter_out=r.raw(32), result=r.raw(32), verdict=r.u8(),
               records=r.u64(), before=take_loss(r), after=take_loss(r), reason=take_reason(r))
    n = r.u32()
    if not 1 <= n <= 100 or not 1 <= e.mode <= 4 or e.verdict > 2:
        raise Wrong("a round is out of range")
    e.members = []
    for _ in range(n):
        m = Record(name=r.name(), key=r.raw(32), part=r.u8(), plan=None)
        m.plan = take_plan(r)
        if m.part > {OPENED: 0, CLOSED: 2, ABORTED: 1}[kind]:
            raise Wrong("a part that this kind cannot have")
        e.members.append(m)
    ascending([m.name for m in e.members])
    e.suite = e.threshold = e.u_min = e.c = e.n_words = e.word_bits = 0
    if version == 2:
        e.suite, e.threshold, e.u_min, e.c, e.n_words, e.word_bits = (r.u32() for _ in range(6))
        if not (e.suite and e.threshold <= n and 2 * e.threshold > n + e.c and e.c < 100 and
                e.u_min >= max(3, e.c + 2) and e.n_words and e.word_bits in (24, 32)):
            raise Wrong("the secure sum is out of range")
    check_shares(e)
    closed = kind == CLOSED
    if closed != (e.adapter_out != ZERO) or closed != (e.result != ZERO):
        raise Wrong("adapter and result belong to closed rounds")
    if (closed and e.t3 == ZERO) or (kind == OPENED and e.t3 != ZERO):
        raise Wrong("t3 is out of place")
    if (kind == ABORTED) != bool(e.reason):
        raise Wrong("a reason is out of place")
    if closed and not any(m.part == 2 for m in e.members):
        raise Wrong("nobody is in the sum")
    return e


def check_shares(e):
    """Mode 2 is mechanism 3: one share for all, counted for u_min - c honest sites."""
    for m in e.members:
        if (e.mode == 2) != (m.plan.mechanism == 3):
            raise Wrong("the mechanism is not of the mode")
        alike = m.plan.same(e.members[0].plan, ("sigma_num", "clip", "grid_bits"))
        if e.mode == 2 and not (e.suite and alike and m.plan.honest == e.u_min - e.c and
                                m.plan.params == e.n_words):
            raise Wrong("shares of noise are not those of the sum's rules")


def take_event(leaf):
    r = Reader(leaf)
    label = r.raw(11)
    kind, index, time = r.u8(), r.u64(), r.u64()
    if label not in (b"DURE/1/leaf", b"DURE/2/leaf") or not 1 <= kind <= 8 or time >= 1 << 63:
        raise Wrong("it is not a log entry")
    version = label[5] - ord("0")
    if version == 2 and kind not in (OPENED, CLOSED, ABORTED):
        raise Wrong("it is not a log entry")
    if (kind == GENESIS) != (index == 0):
        raise Wrong("genesis is entry 0, and entry 0 is genesis")
    if kind == GENESIS:
        e = Record(federation_id=r.raw(32), federation=r.name(), root=r.raw(32),
                   coordinator=r.raw(32), terms=r.raw(32), c=r.u32())
        if e.c >= 100:
            raise Wrong("c is out of range")
    elif kind == ROSTER:
        e = Record(size=r.u64(), head=r.raw(32))
        n = r.u32()
        if n > 100:
            raise Wrong("too many sites")
        e.sites = [(r.name(), r.raw(32)) for _ in range(n)]
        ascending([name for name, _ in e.sites])
    elif kind in (OPENED, CLOSED, ABORTED):
        e = take_round(r, kind, version)
        if e.checkpoint > index:
            raise Wrong("a checkpoint of later entries")
    elif kind in (PROMOTED, ROLLED_BACK):
        e = Record(run_id=r.u64(), round=r.u64(), adapter=r.raw(32), previous=r.raw(32),
                   release=r.raw(32), reason=take_reason(r))
    else:
        start = r.at
        e = Record(federation_id=r.raw(32), epoch=r.u64(), kept=r.u64(), kept_root=r.raw(32),
                   lost_n=r.u64(), reason=take_reason(r))
        e.message, e.signature = r.data[start:r.at], r.raw(64)
        if e.epoch == 0 or e.lost_n < e.kept or e.kept != index:
            raise Wrong("a new epoch is out of range")
    r.end()
    e.kind, e.index, e.time = kind, index, time
    return e


# ---- 4. Checkpoints and cosignatures ----

def key_id(name, kind, key):
    return sha256(name.encode() + b"\n" + bytes([kind]) + key)[:4]


def note_name(value):
    if not value or any(c <= 0x20 or c >= 0x7F or c == ord("+") for c in value):
        raise Wrong("a name in the note is malformed")
    return value.decode()


def unbase64(value):
    data = base64.b64decode(value, validate=True)
    if base64.b64encode(data) != value:
        raise ValueError
    return data


class Note:
    def __init__(self, data):
        lines = data.split(b"\n")
        if len(data) > 32768 or len(lines) < 6 or lines[-1] != b"" or lines[3] != b"":
            raise Wrong("it is not a signed checkpoint")
        try:
            self.origin = note_name(lines[0])
            if len(self.origin) > 159 or not lines[1].isdigit() or len(lines[1]) > 20:
                raise ValueError
            self.size, self.root = int(lines[1]), unbase64(lines[2])
            if str(self.size).encode() != lines[1] or self.size >= 1 << 64 or len(self.root) != 32:
                raise ValueError
            self.body = b"\n".join(lines[:3]) + b"\n"
            self.lines = [self.line(text) for text in lines[4:-1]]
        except ValueError:
            raise Wrong("it is not a signed checkpoint") from None
        if len(self.lines) > 128:
            raise Wrong("it is not a signed checkpoint")

    @staticmethod
    def line(text):
        dash, _, rest = text.partition(b" ")
        name, space, value = rest.partition(b" ")
        if dash != "\u2014".encode() or not space or len(name) > 159:
            raise ValueError
        data = unbase64(value)
        if len(data) not in (4 + 64, 4 + 72):
            raise ValueError
        return note_name(name), data[:4], data[4:]

    def by_coordinator(self, origin, key):
        if self.origin != origin:
            raise Wrong("the checkpoint is of another log")
        if not any(name == origin and ident == key_id(origin, 1, key) and len(payload) == 64 and
                   signed_by(key, self.body, payload) for name, ident, payload in self.lines):
            raise Wrong("the checkpoint is not signed by the coordinator")

    def cosignature(self, line, key):
        """The time of a valid cosignature, or None."""
        name, ident, payload = line
        if len(payload) != 72 or ident != key_id(name, 4, key):
            return None
        time = int.from_bytes(payload[:8], "big")
        text = b"cosignature/v1\ntime %d\n" % time + self.body
        return time if signed_by(key, text, payload[8:]) else None

    def cosigned(self, sites):
        """Times of valid cosignatures of these (name, key), one each."""
        times = {}
        for site in sites:
            for line in self.lines:
                time = self.cosignature(line, site[1]) if line[0] == site[0] else None
                if time is not None and site not in times:
                    times[site] = time
        return times

    def counts(self, sites, c):
        return 2 * len(self.cosigned(sites)) > len(sites) + c

    def shown_at(self, sites, c):
        """When it had been shown, though c of them lie about their times."""
        return sorted(self.cosigned(sites).values(), reverse=True)[c]


# ---- 6. The roster ----

class Join:
    def __init__(self, entry, root):
        r = Reader(entry)
        r.u8()
        self.joined = r.u64()
        self.revoked = False
        invitation = r.bytes(2048)
        record_at = r.at
        if self.joined >= 1 << 63 or r.u16() != 1:
            raise Wrong("a join is malformed")
        self.key, self.curve = r.raw(32), r.raw(32)
        self.n_pub, self.q_k, self.batch = r.u64(), r.u64(), r.u32()
        self.sigma_num, self.sigma_den, self.base = r.u32(), r.u32(), r.raw(32)
        message = invitation + entry[record_at:r.at]
        by_invitation, by_self = r.raw(64), r.raw(64)
        r.end()
        self.take_invitation(invitation, root)
        check_signature("a join", self.invitation, b"DURE/1/join", message, by_invitation)
        check_signature("a join", self.key, b"DURE/1/join-own", message, by_self)
        self.check()

    def take_invitation(self, data, root):
        r = Reader(data)
        if r.u16() != 1 or r.raw(32) != root:
            raise Wrong("an invitation is of another federation")
        self.invitation, _, self.coordinator = r.raw(32), r.raw(32), r.raw(32)
        self.name, self.organisation, endpoint = r.name(), r.name(), r.text(255)
        issued, self.expires = r.u64(), r.u64()
        start = r.at
        self.terms = take_terms(r)
        self.terms_hash = labelled(b"DURE/1/terms", data[start:r.at])
        message, signature = data[:r.at], r.raw(64)
        r.end()
        if not (self.name[0].isalnum() and self.organisation[0].isalnum() and
                endpoint.startswith(b"tcp://") and issued < self.expires < 1 << 63):
            raise Wrong("an invitation is malformed")
        check_signature("an invitation", root, b"DURE/1/invitation", message, signature)

    def check(self):
        private = self.terms.mode != 3
        if self.base != self.terms.base or self.joined > self.expires:
            raise Wrong("a join has another base or came too late")
        if not 0 < self.batch <= self.n_pub:
            raise Wrong("a join declares an impossible batch")
        if self.q_k != (0 if self.batch == self.n_pub else (self.batch << 64) // self.n_pub):
            raise Wrong("a join declares another rate than its batch gives")
        if private and not (self.sigma_num > 0 and self.sigma_den == 65536):
            raise Wrong("a join declares no noise")
        if not private and not (self.sigma_num == 0 and self.sigma_den == 1):
            raise Wrong("a join declares noise without privacy")
        if self.terms.mode == 2 and self.sigma_num != self.terms.sigma_num:
            raise Wrong("a join declares another share of noise than the terms")


def take_terms(r):
    version = r.u16()
    if version not in (1, 2):
        raise Wrong("terms of another version")
    t = Record(suite=version, federation=r.text(64), base=r.raw(32), architecture=r.text(31))
    for _ in range(8):
        r.u32()
    t.rank, t.alpha, t.targets, t.first_layer = r.u32(), r.f64(), r.u32(), r.u32()
    t.seed, t.n_active, t.n_params = r.u64(), r.u64(), r.u64()
    t.rounds, t.steps, t.learning_rate, t.clip = r.u32(), r.u32(), r.f64(), r.f64()
    t.grid_bits, t.batch, t.max_length, t.mode = (r.u32() for _ in range(4))
    t.sigma_num, t.delta = (r.u32(), r.f64()) if t.mode == 2 else (0, 0)
    if t.mode == 2 and not 0 < t.delta <= 1e-3:
        raise Wrong("the terms' delta is too large for a site")
    t.optimizer = r.u32()
    for _ in range(5):
        r.f64()
    t.min_sites, t.c, t.u_min, t.lifetime = (r.u32() for _ in range(4))
    t.range, t.limit, t.modulus_bits = r.f64(), r.u32(), r.u32()
    return t


class Roster:
    def __init__(self, data, root):
        r = Reader(data)
        if r.u16() != 1:
            raise Wrong("the roster is of another version")
        n = r.u32()
        if n > 400:
            raise Wrong("the roster is too long")
        head = labelled(b"DURE/1/roster", root)
        self.joins, self.heads, self.in_force = [], [head], [{}]
        revoked = set()
        for i in range(n):
            entry = r.bytes(4096)
            try:
                if entry[:1] == b"\1":
                    self.add(Join(entry, root), revoked)
                elif entry[:1] == b"\2":
                    self.revoke(entry, root, revoked)
                else:
                    raise Wrong("of unknown kind")
            except Wrong as wrong:
                raise Wrong("roster entry %d: %s" % (i, wrong)) from None
            head = labelled(b"DURE/1/roster-entry", head, entry)
            self.heads.append(head)
            self.in_force.append({j.name: j.key for j in self.joins if not j.revoked})
        r.end()

    def add(self, join, revoked):
        if join.invitation in revoked:
            raise Wrong("the invitation was revoked")
        for j in self.joins:
            if join.invitation == j.invitation or join.key == j.key or join.curve == j.curve:
                raise Wrong("an invitation or a key is used twice")
            if join.name == j.name and not j.revoked:
                raise Wrong("a name is used twice")
        if len(self.in_force[-1]) >= 100:
            raise Wrong("too many sites are in force")
        self.joins.append(join)

    def revoke(self, entry, root, revoked):
        r = Reader(entry)
        r.u8()
        invitation, message = r.raw(32), None
        message = root + invitation + r.raw(8)
        signature = r.raw(64)
        r.end()
        check_signature("a revocation", root, b"DURE/1/revocation", message, signature)
        if invitation in revoked:
            raise Wrong("revoked twice")
        revoked.add(invitation)
        for j in self.joins:
            j.revoked = j.revoked or j.invitation == invitation

    def by_key(self, key):
        return next((j for j in self.joins if j.key == key), None)


# ---- 7. Verification ----

ROUND_FIELDS = ("run_id round h_c roster_size roster_head checkpoint mode base adapter_in suite "
                "threshold u_min c n_words word_bits").split()


class History:
    """Section 7, number 5, and the charges of section 8."""

    def __init__(self):
        self.n, self.roster, self.last_round, self.epochs = 0, None, None, 0
        self.open, self.products, self.charges, self.n_pub = {}, set(), {}, {}
        self.genesis = None

    def add(self, e):
        if e.index != self.n:
            raise Wrong("it says that it is entry %d" % e.index)
        {GENESIS: self.founded, ROSTER: self.listed, OPENED: self.opened, CLOSED: self.ended,
         ABORTED: self.ended, PROMOTED: self.released, ROLLED_BACK: self.released,
         EPOCH: self.begun}[e.kind](e)
        self.n += 1

    def founded(self, e):
        self.genesis = e

    def listed(self, e):
        if self.roster and e.size <= self.roster.size:
            raise Wrong("the roster shrank")
        self.roster = e

    def opened(self, e):
        if not self.roster or not (self.roster.size, self.roster.head) == (e.roster_size,
                                                                          e.roster_head):
            raise Wrong("the roster is not the one in force")
        if self.last_round is not None and e.round <= self.last_round:
            raise Wrong("the round's number does not grow")
        known = any(run == e.run_id for run, _, _ in self.products)
        if known and not any(adapter == e.adapter_in for _, _, adapter in self.products):
            raise Wrong("no round made its adapter")
        for m in e.members:
            if (m.name, m.key) not in self.roster.sites:
                raise Wrong("a member is not in the roster in force")
            self.charges.setdefault(m.name, [])
            self.n_pub[m.name] = m.plan.n_pub
        if not known:
            self.products.add((e.run_id, 0, e.adapter_in))
        self.open[e.round] = e
        self.last_round = e.round

    def ended(self, e):
        began = self.open.get(e.round)
        if not began:
            raise Wrong("the round is not open")
        members = [[(m.name, m.key, m.plan.encoding) for m in x.members] for x in (began, e)]
        if not began.same(e, ROUND_FIELDS) or members[0] != members[1]:
            raise Wrong("the round ends with another configuration")
        if e.kind == CLOSED and sum(m.part == 2 for m in e.members) < max(e.u_min, e.threshold):
            raise Wrong("a sum of too few")
        for m in e.members:
            if m.part:
                self.charges[m.name].append(m.plan)
        del self.open[e.round]
        if e.kind == CLOSED:
            self.products.add((e.run_id, e.round, e.adapter_out))

    def released(self, e):
        if (e.run_id, e.round, e.adapter) not in self.products:
            raise Wrong("that round did not make the adapter")

    def begun(self, e):
        if e.epoch != self.epochs + 1:
            raise Wrong("not the next epoch")
        check_signature("the new epoch", self.genesis.root, b"DURE/1/new-epoch", e.message,
                        e.signature)
        self.epochs += 1

    def plans(self, name):
        open_ones = [m.plan for e in self.open.values() for m in e.members if m.name == name]
        return self.charges[name] + open_ones


class Plan:
    """Section 7, number 8."""

    def __init__(self, roster):
        self.roster, self.summed = roster, {}

    def check(self, e):
        t = self.roster.joins[0].terms if self.roster and self.roster.joins else None
        if t and (e.mode != t.mode or e.base != t.base):
            raise Wrong("another mode or base than the terms")
        if t and e.suite and (e.c != t.c or e.u_min < t.u_min or (e.suite == 2) != (t.suite == 2)):
            raise Wrong("another rule of the sum than the terms")
        for m in e.members:
            join = self.roster.by_key(m.key) if self.roster else None
            if not join or join.name != m.name:
                raise Wrong("a member never joined")
            rate = (join.q_k, int(join.q_k == 0), join.batch)
            if t.mode == 2:  # a round is one step of the whole site
                rate = (0, 1, join.n_pub)
            steps = 1 if t.mode == 2 else t.steps
            shared = (t.u_min - t.c, t.n_active) if t.mode == 2 else (0, 0)
            declared = (join.n_pub,) + rate + (join.sigma_num, t.clip, t.grid_bits, steps) + shared
            p = m.plan
            if p.mechanism != {2: 3, 4: 2}.get(t.mode, 1):
                raise Wrong("the unit of %s is not that of the terms" % m.name)
            if declared != (p.n_pub, p.q_k, p.full, p.batch, p.sigma_num, p.clip, p.grid_bits,
                            p.steps, p.honest, p.params):
                raise Wrong("constants of %s are not as declared" % m.name)
            if m.part == 2:
                self.summed[m.key] = self.summed.get(m.key, 0) + p.steps
            if self.summed.get(m.key, 0) > t.rounds * steps:
                raise Wrong("%s has more steps than planned" % m.name)


class Verifier:
    def __init__(self, export, checkpoint=None, root=None):
        self.export, self.checkpoint, self.root = export, checkpoint, root
        self.roster, self.history, self.shown, self.shown_at = None, History(), 0, 0

    def run(self):
        self.entries()
        self.founding()
        self.checkpoints()
        self.seen()
        self.follow()
        self.adapters()
        self.rosters()
        self.plan()
        self.cosignatures()
        self.citations()

    def entries(self):
        if not self.export.leaves:
            raise Wrong("the ledger has no entries")
        self.hashes, self.events = [], []
        for i, leaf in enumerate(self.export.leaves):
            self.hashes.append(leaf_hash(leaf))
            if self.hashes[i] != self.export.hashes[i]:
                raise Wrong("entry %d was changed" % i, i)
            try:
                self.events.append(take_event(leaf))
            except Wrong as wrong:
                raise Wrong("entry %d: %s" % (i, wrong), i) from None
            if self.events[i].index != i:
                raise Wrong("entry %d says that it is %d" % (i, self.events[i].index), i)

    def founding(self):
        g = self.genesis = self.events[0]
        self.origin = "dure/%s/%s" % (g.federation, g.federation_id.hex())
        if self.root and self.root != g.root:
            raise Wrong("another root key", 0)
        if g.federation_id != labelled(b"DURE/1/federation", g.root, g.federation.encode()):
            raise Wrong("the federation's id is not that of its root and name", 0)
        if not self.export.roster:
            return
        try:
            self.roster = Roster(self.export.roster, g.root)
        except Wrong as wrong:
            raise Wrong(str(wrong), 0) from None
        for j in self.roster.joins:
            if (j.terms_hash, j.coordinator, j.terms.c) != (g.terms, g.coordinator, g.c):
                raise Wrong("the genesis is not what the invitations say", 0)

    def delta(self, name):
        """Section 8."""
        shared = any(p.mechanism == 3 for p in self.history.plans(name))
        return self.roster.joins[0].terms.delta if shared else 1 / (10 * self.history.n_pub[name])

    def note(self, data):
        note = Note(data)
        note.by_coordinator(self.origin, self.genesis.coordinator)
        return note

    def checkpoints(self):
        good, self.notes = 0, []
        for k, data in enumerate(self.export.notes):
            try:
                note = self.note(data)
                if note.size <= good:
                    raise Wrong("checkpoints are not in order")
            except Wrong as wrong:
                raise Wrong(str(wrong), checkpoint=k + 1) from None
            if note.size > len(self.hashes):
                raise Wrong("entries are missing", len(self.hashes), note.size - 1)
            if tree_root(self.hashes[:note.size]) != note.root:
                raise self.blame(good, note.size)
            self.notes.append(note)
            good = note.size

    def blame(self, good, size):
        history, plan = History(), Plan(self.roster)
        for i, e in enumerate(self.events[:size]):
            try:
                history.add(e)
            except Wrong as wrong:
                if i < good:
                    break
                return Wrong("an entry was replaced: %s" % wrong, good, i)
            try:
                if e.kind in (OPENED, CLOSED, ABORTED):
                    plan.check(e)
            except Wrong as wrong:
                if i < good:
                    break
                return Wrong("an entry was replaced: %s" % wrong, i)
        return Wrong("an entry was replaced", good, size - 1)

    def seen(self):
        if self.checkpoint is None:
            return
        note = self.note(self.checkpoint)
        if note.size > len(self.hashes):
            raise Wrong("the log was rolled back", len(self.hashes), note.size - 1)
        if tree_root(self.hashes[:note.size]) != note.root:
            raise Wrong("not the log that the site has seen", 0, note.size - 1)

    def follow(self):
        for i, e in enumerate(self.events):
            try:
                self.history.add(e)
                if e.kind == EPOCH and e.kept_root != tree_root(self.hashes[:i]):
                    raise Wrong("it keeps other entries")
            except Wrong as wrong:
                raise Wrong("entry %d: %s" % (i, wrong), i) from None

    def adapters(self):
        last = None
        for i, e in enumerate(self.events):
            if e.kind == EPOCH:
                last = None
            if e.kind == OPENED and last and last[0] == e.run_id and last[1] != e.adapter_in:
                raise Wrong("entry %d does not go on from the adapter before it" % i, i)
            if e.kind == CLOSED:
                last = (e.run_id, e.adapter_out)

    def rosters(self):
        for i, e in enumerate(self.events):
            if e.kind != ROSTER:
                continue
            if not self.roster or e.size >= len(self.roster.heads):
                raise Wrong("entry %d: the roster in the file is shorter" % i, i)
            if e.head != self.roster.heads[e.size] or dict(e.sites) != self.roster.in_force[e.size]:
                raise Wrong("entry %d: not the root-signed roster" % i, i)

    def plan(self):
        plan = Plan(self.roster)
        for i, e in enumerate(self.events):
            if e.kind in (OPENED, CLOSED, ABORTED):
                try:
                    plan.check(e)
                except Wrong as wrong:
                    raise Wrong("entry %d: %s" % (i, wrong), i) from None

    def sites_at(self, n_entries):
        rosters = [e for e in self.events[:n_entries] if e.kind == ROSTER]
        return rosters[-1].sites if rosters else None

    def cosignatures(self):
        ever = {site for e in self.events if e.kind == ROSTER for site in e.sites}
        for k, note in enumerate(self.notes):
            names = [name for name, _, _ in note.lines]
            others = [n for n in names if n != self.origin]
            valid = note.cosigned(ever)
            if len(names) != len(others) + 1 or sorted(others) != sorted(n for n, _ in valid):
                raise Wrong("a cosignature is not valid, not of a site or there twice",
                            checkpoint=k + 1)
            sites = self.sites_at(note.size)
            if sites is not None and note.counts(sites, self.genesis.c):
                self.shown = note.size
                self.shown_at = note.shown_at(sites, self.genesis.c)

    def citations(self):
        least = 0
        for i, e in enumerate(self.events):
            if e.kind == CLOSED:
                least = i + 1
            if e.kind == EPOCH:
                least = 0
            if e.kind != OPENED:
                continue
            note = next((n for n in self.notes if n.size == e.checkpoint), None)
            if e.checkpoint < least:
                raise Wrong("entry %d cites too old a checkpoint" % i, i)
            if e.checkpoint and not (note and note.counts(self.sites_at(i), self.genesis.c)):
                raise Wrong("entry %d cites a checkpoint that does not count" % i, i)
            least = max(least, e.checkpoint)


# ---- 8. Epsilon ----

ORDERS = ([i / 10 for i in range(11, 110)] + list(range(11, 65)) +
          [72, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024])


def log_add(a, b):
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def log_erfc(x):
    if x < 26:
        return math.log(math.erfc(x))
    r = 1 / (2 * x * x)  # asymptotic series
    return -x * x - math.log(x) - math.log(math.pi) / 2 + math.log1p(
        -r * (1 - 3 * r * (1 - 5 * r * (1 - 7 * r))))


def log_a_integer(q, sigma, alpha):
    total = -math.inf
    for i in range(alpha + 1):
        choose = math.lgamma(alpha + 1) - math.lgamma(i + 1) - math.lgamma(alpha - i + 1)
        total = log_add(total, choose + i * math.log(q) + (alpha - i) * math.log1p(-q) +
                        (i * i - i) / (2 * sigma * sigma))
    return total


def log_a_other(q, sigma, alpha):
    z = sigma * sigma * math.log(1 / q - 1) + 0.5
    total, choose, last = -math.inf, 0.0, (math.inf, math.inf)
    for i in range(1000):
        j = alpha - i
        s0 = (choose + i * math.log(q) + j * math.log1p(-q) + (i * i - i) / (2 * sigma * sigma) +
              log_erfc((i - z) / (math.sqrt(2) * sigma)) - math.log(2))
        s1 = (choose + j * math.log(q) + i * math.log1p(-q) + (j * j - j) / (2 * sigma * sigma) +
              log_erfc((z - j) / (math.sqrt(2) * sigma)) - math.log(2))
        total = log_add(total, log_add(s0, s1))
        if s0 < last[0] and s1 < last[1] and max(s0, s1) < total - 30:
            return total
        last = (s0, s1)
        choose += math.log(abs(alpha - i)) - math.log(i + 1)
    return math.inf


def rdp_step(q, sigma, alpha):
    if sigma == 0:
        return math.inf
    if q == 1:
        return alpha / (2 * sigma * sigma)
    whole = math.ceil(alpha)
    above = max(0, log_a_integer(q, sigma, whole)) / (whole - 1)
    if whole == alpha:
        return above
    return min(above, max(0, log_a_other(q, sigma, alpha)) / (alpha - 1))


def rdp_shared(p, alpha):
    """Section 8, mechanism 3: arXiv 2102.06387, proposition 14."""
    v = share_variance(p)
    if v == 0:
        return math.inf
    tau = 10 * sum(math.exp(-2 * math.pi**2 * v * k / (k + 1)) for k in range(1, p.honest))
    return alpha * 4**p.grid_bits / (2 * p.honest * v) + tau * p.params


def epsilon(plans, delta):
    if not plans:
        return 0.0
    steps, shared = {}, [p for p in plans if p.mechanism == 3]
    for p in plans:
        if p.mechanism == 3:
            continue
        mechanism = (1.0 if p.full else p.q_k / 2**64, p.sigma_num / 65536)
        steps[mechanism] = steps.get(mechanism, 0) + p.steps
    best = math.inf
    for alpha in ORDERS:
        rdp = sum(n * rdp_step(q, sigma, alpha) for (q, sigma), n in steps.items())
        rdp += sum(p.steps * rdp_shared(p, alpha) for p in shared)
        if delta * delta + math.expm1(-rdp) > 0:
            return 0.0
        if math.isfinite(rdp):
            best = min(best, max(0, rdp + math.log1p(-1 / alpha) -
                                 math.log(delta * alpha) / (alpha - 1)))
    return best


# ---- 9. A site's own ledger ----

def check_site_ledger(data):
    """Number of lines, and the state of every reservation."""
    head, n, sources, plans = ZERO, 0, set(), {}
    for line in data.split(b"\n")[:-1]:
        try:
            both = json.loads(line)
            inner = line[len(b'{"entry":'):-len(b',"hash":""}') - 64]
            head = labelled(b"dure/site-ledger/1", head, inner)
            if line != b'{"entry":' + inner + b',"hash":"' + head.hex().encode() + b'"}':
                raise ValueError
            take_site_entry(both["entry"], n, sources, plans)
        except (ValueError, KeyError, TypeError, AttributeError, Wrong):
            raise Wrong("line %d of the site's ledger is damaged or was altered" % (n + 1)) from None
        n += 1
    return n, {ident: p["state"] for ident, p in plans.items()}


def text_of_time(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else None


def take_site_entry(e, n, sources, plans):
    kind = e["kind"]
    if (kind == "ledger") != (n == 0) or (n == 0 and e["version"] != 1):
        raise Wrong("out of place")
    if kind == "source":
        if e["source"] in sources or not (e["epsilon"] > 0 and 0 < e["delta"] < 1):
            raise Wrong("a source is not new")
        sources.add(e["source"])
    elif kind == "reserve":
        if e["id"] in plans or e["source"] not in sources:
            raise Wrong("a reservation is not new")
        plans[e["id"]] = {"state": "reserved", "steps": e["plan"]["steps"], "to": 0, "round": 0}
    elif kind in ("spend", "release"):
        if plans[e["id"]]["state"] != "reserved":
            raise Wrong("not reserved")
        if len(bytes.fromhex(e.get("by", "00" * 32))) != 32:
            raise Wrong("spent by whom")
        plans[e["id"]]["state"] = "spent" if kind == "spend" else "released"
    elif kind == "use":
        p = plans[e["id"]]
        if not (p["state"] == "spent" and p["to"] <= e["from"] < e["to"] <= p["steps"] and
                e["round"] > p["round"]):
            raise Wrong("steps out of order")
        p["to"], p["round"] = e["to"], e["round"]
    elif kind != "ledger":
        raise Wrong("unknown kind")


# ---- The program ----

def judge(args):
    try:
        data = open(args.export, "rb").read()
        note = open(args.checkpoint, "rb").read() if args.checkpoint else None
        v = Verifier(Export(data), note, bytes.fromhex(args.root) if args.root else None)
        v.run()
        sites = [{"name": name, "steps": sum(p.steps for p in v.history.plans(name)),
                  "epsilon_rdp": epsilon(v.history.plans(name), v.delta(name)),
                  "delta": v.delta(name)} for name in v.history.charges]
        found = {"verified": True, "entries": len(v.events), "shown_entries": v.shown,
                 "shown_time": text_of_time(v.shown_at), "sites": sites}
        if args.site_ledger:
            found["site_ledger_lines"], found["reservations"] = check_site_ledger(
                open(args.site_ledger, "rb").read())
        return found
    except Wrong as wrong:
        return {"verified": False, "entry": wrong.first, "last_entry": wrong.last,
                "checkpoint": wrong.checkpoint, "error": str(wrong)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("export")
    parser.add_argument("--checkpoint")
    parser.add_argument("--root")
    parser.add_argument("--site-ledger")
    found = judge(parser.parse_args())
    print(json.dumps(found))
    return 0 if found["verified"] else 1


if __name__ == "__main__":
    sys.exit(main())
