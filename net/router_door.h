/* How many connections a router keeps that have not shown a member's key.
 *
 * libzmq accepts whoever connects and holds the descriptor while it waits for a handshake, so a
 * peer without any key could take all of the process's descriptors, and its files with them. The
 * door counts what was accepted and closes some when there are too many:
 *
 * 1. Who has not sent a message with a member's key is waiting: a connection that says nothing, a
 *    handshake that does not end, a guest. At most `most_waiting` wait; one more, and the oldest of
 *    the address that holds most is closed. So one address cannot keep another out, and who
 *    connects honestly has time to finish its handshake and tries again if it had not.
 * 2. A member has one connection: a newer one closes the older.
 *
 * A connection is closed by shutdown(), after a look at its far end, since its descriptor belongs
 * to libzmq; were it reused in that instant, a peer would have to connect again.
 *
 * Threads: pass() is for the router's owner; the door's own thread hears of new connections. */
#pragma once

#include "common/err.h"

#include <stddef.h>

typedef struct dure_door dure_door;

/* `socket` is not bound yet. The caller owns *out; dure_door_close() once the context is shut down.
 */
DURE_MUST_USE dure_err dure_door_open(dure_door **out, void *context, void *socket,
                                      size_t most_waiting, size_t most_members);
void dure_door_close(dure_door **door); /* NULL-safe, nulls */

/* A member's message came over `fd`; its last one over `before` (-1: none), which is closed if it
 * is another. */
void dure_door_pass(dure_door *door, int fd, int before);
/* Connections that were closed because too many waited. */
size_t dure_door_closed(dure_door *door);
