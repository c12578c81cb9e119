"""One round of Flower's SecAgg+, its own SecAggPlusWorkflow and secaggplus_mod, without a network.

    flower_sum.py SITES SHARES THRESHOLD ELEMENTS DROPPED

The clients are in a process of their own, so that this one holds what Flower's server holds; every
message goes between the two as the bytes that Flower's transport sends, one message at a time.
DROPPED clients are lost after the shares, before their vectors. Checks the mean that comes out and
prints tab-separated figures; seconds are a process' processor time, all of its threads together.

Not in the seconds: imports, training, the messages' way from objects to bytes and back, the choice
of clients, and what the strategy does once the sum is there. Not in the memory: what the
interpreter and its modules held before, the model that a round hands out (here empty) and Flower's
SuperLink, a process of its own that keeps the messages too.
"""
import collections
import importlib
import importlib.metadata
import logging
import multiprocessing
import os
import sys
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.constant import ErrorCode
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server import LegacyContext, ServerConfig, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp.grid import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

WEIGHT = 1000  # the workflow's max_weight: every site counts alike, and is rounded least
MOD = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
WORKFLOW = importlib.import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")


Seconds = collections.namedtuple("Seconds", "whole quantising opening wire")  # of a site's step


class Clock:
    """Processor time of this process while it runs."""

    def __init__(self):
        self.seconds, self.started = 0.0, None

    def __enter__(self):
        self.started = time.process_time()

    def __exit__(self, *_):
        self.seconds += time.process_time() - self.started

    def around(self, module, *names):
        """Has the module's functions run with this clock."""
        for name in names:
            def timed(*args, inner=getattr(module, name)):
                with self:
                    return inner(*args)
            setattr(module, name, timed)


def pack(message):
    """The message as Flower sends it: its objects, by their digests."""
    objects = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
    return message.object_id, objects


def unpack(packed):
    name, objects = packed
    return inflate_object_from_contents(name, objects)


def update(node, elements):
    """A client's vector; every process knows all of them."""
    return np.random.default_rng(node).uniform(-1, 1, elements).astype(np.float32)


def memory(field):
    """In MB of a million bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e6


# ---- the clients ----

def serve_clients(pipe, elements):
    """Answers messages until None comes, with (reply, Seconds)."""
    contexts, quantising, opening, wire = {}, Clock(), Clock(), Clock()
    quantising.around(MOD, "parameters_multiply", "quantize")
    opening.around(MOD, "decrypt")
    training, whole = Clock(), Clock()

    def train(message, _):
        with training:
            parameters = ndarrays_to_parameters([update(message.metadata.dst_node_id, elements)])
            result = FitRes(Status(Code.OK, ""), parameters, WEIGHT, {})
            return Message(compat.fitres_to_recorddict(result, False), reply_to=message)

    while (packed := pipe.recv()) is not None:
        for clock in (quantising, opening, training, whole, wire):
            clock.seconds = 0.0
        with wire:
            message = unpack(packed)
        node = message.metadata.dst_node_id
        if node not in contexts:
            contexts[node] = Context(1, node, {}, RecordDict(), {})
        with whole:
            reply = MOD.secaggplus_mod(message, contexts[node], train)
        with wire:
            packed = pack(reply)
        pipe.send((packed, Seconds(whole.seconds - training.seconds, quantising.seconds,
                                   opening.seconds, wire.seconds)))


# ---- the server ----

class PipeGrid(Grid):
    """Passes messages to the clients' process; `lost` clients get no further than the shares."""

    def __init__(self, pipe, nodes, lost):
        self.pipe, self.nodes, self.lost = pipe, nodes, lost
        self.sent = {node: 0 for node in nodes}
        self.steps = []  # (node, stage, Seconds)
        self.server, self.wire = Clock(), Clock()
        self.closing_from = 0.0

    def set_run(self, run): ...
    run = None

    def get_node_ids(self):
        return self.nodes

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    push_messages = pull_messages = create_message

    def send_and_receive(self, messages, *, timeout=None):
        if self.server.started is not None:
            self.server.__exit__()
        replies = []
        for message in messages:
            stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
            node = message.metadata.dst_node_id
            if stage == Stage.COLLECT_MASKED_VECTORS and node in self.lost:
                replies.append(Message(Error(ErrorCode.NODE_UNAVAILABLE, "lost"), reply_to=message))
                continue
            with self.wire:
                packed = pack(message)
            self.pipe.send(packed)
            packed, seconds = self.pipe.recv()
            self.steps.append((node, stage, seconds))
            self.sent[node] += sum(map(len, packed[1].values()))
            with self.wire:
                replies.append(unpack(packed))
        self.closing_from = self.server.seconds
        self.server.__enter__()
        return replies


class SumIsThere:
    """Stands before the workflow's dequantize(), and stops the server's clock."""

    def __init__(self, grid):
        self.grid, self.inner, self.peak = grid, WORKFLOW.dequantize, 0.0
        WORKFLOW.dequantize = self

    def __call__(self, *args):
        self.grid.server.__exit__()
        self.peak = memory("VmHWM")
        return self.inner(*args)


def run_round(pipe, sites, shares, threshold, lost):
    grid = PipeGrid(pipe, list(range(1, sites + 1)), lost)
    manager = SimpleClientManager()
    for node in grid.nodes:
        manager.register(GridClientProxy(node, grid, 1))
    strategy = FedAvg(min_fit_clients=sites, min_available_clients=sites)
    context = LegacyContext(Context(1, 0, {}, RecordDict(), {}), ServerConfig(num_rounds=1),
                            strategy, manager)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    context.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord()
    done = SumIsThere(grid)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")
    before = memory("VmRSS")
    WORKFLOW.SecAggPlusWorkflow(shares, threshold, max_weight=float(WEIGHT))(grid, context)
    record = context.state.array_records[MAIN_PARAMS_RECORD]
    mean = parameters_to_ndarrays(compat.arrayrecord_to_parameters(record, True))
    return grid, mean, before, done.peak


def check_mean(mean, nodes, elements):
    """Off by a step of the quantisation at most."""
    want = sum(update(node, elements).astype(np.float64) for node in nodes) / len(nodes)
    if len(mean) != 1 or np.abs(mean[0] - want).max() > 16 / 2**22:
        sys.exit("flower_sum: the mean is wrong")


def print_figures(grid, survivors, before, peak):
    n = len(survivors)
    mine = [(stage, seconds) for node, stage, seconds in grid.steps if node in survivors]
    whole, quantising, opening, wire = (sum(values) / n for values in zip(*(s for _, s in mine)))
    masking = sum(s.whole for stage, s in mine if stage == Stage.COLLECT_MASKED_VECTORS) / n
    closing = grid.server.seconds - grid.closing_from
    for figure, value in [
            ("site seconds", whole - quantising),
            ("site seconds masking", masking - quantising - opening),
            ("site seconds quantising", quantising),
            ("site seconds to bytes and back", wire),
            ("site bytes sent", sum(grid.sent[node] for node in survivors) / n),
            ("server seconds", grid.server.seconds),
            ("server seconds closing", closing),
            ("server seconds to bytes and back", grid.wire.seconds),
            ("server mb before", before),
            ("server mb", peak - before)]:
        print(f"{figure}\t{value:.6g}")


def main():
    sites, shares, threshold, elements, dropped = map(int, sys.argv[1:])
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    ours, theirs = multiprocessing.Pipe()
    clients = multiprocessing.get_context("fork").Process(target=serve_clients,
                                                          args=(theirs, elements), daemon=True)
    clients.start()
    lost = set(range(1, dropped + 1))
    grid, mean, before, peak = run_round(ours, sites, shares, threshold, lost)
    ours.send(None)
    clients.join()
    survivors = [node for node in grid.nodes if node not in lost]
    check_mean(mean, survivors, elements)
    print(f"flwr\t{importlib.metadata.version('flwr')}")
    print_figures(grid, survivors, before, peak)


if __name__ == "__main__":
    main()
