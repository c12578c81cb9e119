"""One round of NVFLARE's homomorphic encryption: its own HEBuilder's keys, HEModelEncryptor,
HEInTimeAccumulateWeightedAggregator and HEModelDecryptor, without a network.

    nvflare_sum.py SITES ELEMENTS

The sites are in a process of their own, so that this one holds what NVFLARE's server holds; every
message goes between the two as the bytes that NVFLARE sends (FOBS), one at a time. Checks the mean
that comes out and prints tab-separated figures; seconds are a process' processor time, all of its
threads together. Not in the memory: what the interpreter and its modules held before.
"""
import importlib.metadata
import logging
import multiprocessing
import sys
import time

import numpy as np
import tenseal
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.he import decomposers
from nvflare.app_opt.he.intime_accumulate_model_aggregator import (
    HEInTimeAccumulateWeightedAggregator)
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.fuel.utils import fobs
from nvflare.lighter.impl.he import HEBuilder


def update(site, elements):
    """A site's vector; every process knows all of them."""
    return np.random.default_rng(site).uniform(-1, 1, elements).astype(np.float32)


def memory(field):
    """In MB of a million bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e6


def context_of(site=None):
    context = FLContext()
    context.set_prop(AppConstants.CURRENT_ROUND, 0)
    peer = FLContext()
    peer.set_prop(ReservedKey.IDENTITY_NAME, f"site-{site}")
    context.set_peer_context(peer)
    return context


def timed(seconds, name, work, *args):
    started = time.process_time()
    result = work(*args)
    seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
    return result


# ---- the sites ----

def encrypt(seconds, keys, site, elements):
    """What the site sends."""
    encryptor = HEModelEncryptor(weigh_by_local_iter=False)
    encryptor.tenseal_context, encryptor.encrypt_layers = keys, [True]
    dxo = DXO(DataKind.WEIGHT_DIFF, data={"adapter": update(site, elements)},
              meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 1})
    sent = timed(seconds, "encrypting", encryptor.process_dxo, dxo, None, context_of(site))
    shareable = sent.to_shareable()
    shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{site}"})
    shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 0)
    return timed(seconds, "serialising", fobs.dumps, shareable)


def decrypt(seconds, keys, received):
    shareable = timed(seconds, "serialising", fobs.loads, received)
    decryptor = HEModelDecryptor()
    decryptor.tenseal_context = keys
    dxo = timed(seconds, "decrypting", decryptor.process_dxo, from_shareable(shareable), shareable,
                context_of())
    return np.array(dxo.data["adapter"])


def serve_sites(pipe, sites, elements, context):
    seconds, keys = {}, tenseal.context_from(context)
    for site in range(sites):
        pipe.send_bytes(encrypt(seconds, keys, site, elements))
    mean = decrypt(last := {}, keys, pipe.recv_bytes())
    want = sum(update(site, elements).astype(np.float64) for site in range(sites)) / sites
    pipe.send(({name: value / sites for name, value in seconds.items()}, last,
               float(np.abs(mean - want).max())))


# ---- the server ----

def run_round(pipe, sites):
    """The figures of the server, and the bytes of one site's message."""
    aggregator, seconds, context = HEInTimeAccumulateWeightedAggregator(), {}, context_of()
    aggregator.handle_event(EventType.START_RUN, context)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")
    before = memory("VmRSS")
    for _ in range(sites):
        received = pipe.recv_bytes()
        size = len(received)
        shareable = timed(seconds, "serialising", fobs.loads, received)
        del received
        if not timed(seconds, "summing", aggregator.accept, shareable, context):
            sys.exit("nvflare_sum: a site's update was not accepted")
    result = timed(seconds, "summing", aggregator.aggregate, context)
    peak = memory("VmHWM")
    pipe.send_bytes(timed(seconds, "serialising", fobs.dumps, result))
    return seconds, size, before, peak


def main():
    sites, elements = map(int, sys.argv[1:])
    logging.disable(logging.CRITICAL)  # they miss the engine of a whole NVFLARE
    decomposers.register()
    builder = HEBuilder()
    builder.initialize(None, None)
    ours, theirs = multiprocessing.Pipe()
    clients = multiprocessing.get_context("fork").Process(
        target=serve_sites, daemon=True,
        args=(theirs, sites, elements, builder.get_serialized_context(is_client=True)))
    clients.start()
    server, size, before, peak = run_round(ours, sites)
    first, last, error = ours.recv()
    if error > 1e-4:
        sys.exit(f"nvflare_sum: the mean is off by {error}")
    print(f"nvflare\t{importlib.metadata.version('nvflare')}")
    print(f"tenseal\t{importlib.metadata.version('tenseal')}")
    for figure, value in [
            ("site seconds", first["encrypting"] + last["decrypting"]),
            ("site seconds to bytes and back", first["serialising"] + last["serialising"]),
            ("site bytes sent", size),
            ("server seconds", server["summing"]),
            ("server seconds to bytes and back", server["serialising"]),
            ("server mb before", before),
            ("server mb", peak - before)]:
        print(f"{figure}\t{value:.6g}")


if __name__ == "__main__":
    main()
