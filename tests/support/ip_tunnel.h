/* Packets that get lost between real TCP stacks: a TUN device of the test's own, in a network of
 * its own, so that nothing outside is seen or changed.
 *
 * Line i has its far address, 10.77.0.(2 + i). Who connects to it reaches the process that listens
 * at 10.77.0.1: every packet goes through this program, which turns it round under the line's
 * address, late, at the line's rate, or not at all. TCP's own retransmissions and congestion
 * control are the kernel's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define IP_TUNNEL_LINES 16
#define IP_TUNNEL_HERE "10.77.0.1"

typedef struct ip_tunnel ip_tunnel;

typedef struct ip_tunnel_shape {
    uint32_t loss_permille; /* of the packets, each way */
    uint32_t delay_ms;      /* each way */
    uint32_t bytes_per_s;   /* each way; 0: no limit. What does not fit in 300 ms is dropped */
} ip_tunnel_shape;

/* Moves this process, and those that it starts from now on, to a network that has loopback and the
 * tunnel alone. NULL, and a word why is printed, where the kernel or the user's rights do not allow
 * that: the caller skips its test. */
ip_tunnel *ip_tunnel_open(uint64_t seed);
void ip_tunnel_close(ip_tunnel *tunnel);

/* The port that is listened on at 10.77.0.1. */
void ip_tunnel_listener(ip_tunnel *tunnel, uint16_t port);
void ip_tunnel_set(ip_tunnel *tunnel, uint32_t line, const ip_tunnel_shape *shape);
/* While it is cut no packet of the line arrives anywhere, and nobody is told. */
void ip_tunnel_cut(ip_tunnel *tunnel, uint32_t line, bool cut);
/* Bytes of packets that have arrived at 10.77.0.1 over the line, and packets that were lost. */
uint64_t ip_tunnel_carried(const ip_tunnel *tunnel, uint32_t line);
uint64_t ip_tunnel_lost(const ip_tunnel *tunnel, uint32_t line);
