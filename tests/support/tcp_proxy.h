/* A TCP forwarder on loopback that behaves as badly as lines do: slow, far, silent, cut, moved.
 *
 * Calls from the test's thread take effect within some milliseconds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct tcp_proxy tcp_proxy;

/* Listens on a free port and forwards to 127.0.0.1:`port`. Aborts the test on failure. */
tcp_proxy *tcp_proxy_start(uint16_t port);
void tcp_proxy_stop(tcp_proxy *proxy);
uint16_t tcp_proxy_port(const tcp_proxy *proxy);

/* All connections together get so many bytes a second each way (0: no limit), and each byte comes
 * so much later. */
void tcp_proxy_shape(tcp_proxy *proxy, uint32_t bytes_per_s, uint32_t delay_ms);
/* Freezes the connections there are: neither side gets a byte or an end any more, as behind a
 * firewall that has forgotten them; later ones are forwarded. */
void tcp_proxy_freeze(tcp_proxy *proxy);
/* While it is held nothing passes and nothing is connected: a partition. Connections outlive it. */
void tcp_proxy_hold(tcp_proxy *proxy, bool held);
/* Resets the connections on the side that made them, and leaves the other side's open and silent:
 * what a change of address looks like to the two ends. */
void tcp_proxy_move(tcp_proxy *proxy);
/* Bytes forwarded so far to `port`. */
uint64_t tcp_proxy_carried(const tcp_proxy *proxy);

/* A connected socket to 127.0.0.1:`port`; aborts on failure. */
int tcp_connect(uint16_t port);
