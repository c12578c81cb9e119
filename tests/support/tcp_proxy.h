/* A TCP forwarder on loopback whose connections can be frozen: neither side then gets a byte or an
 * end of the connection, as behind a firewall that has forgotten it. */
#pragma once

#include <stdint.h>

typedef struct tcp_proxy tcp_proxy;

/* Listens on a free port and forwards to 127.0.0.1:`port`. Aborts the test on failure. */
tcp_proxy *tcp_proxy_start(uint16_t port);
void tcp_proxy_stop(tcp_proxy *proxy);
uint16_t tcp_proxy_port(const tcp_proxy *proxy);
/* Freezes the connections there are; later ones are forwarded. */
void tcp_proxy_freeze(tcp_proxy *proxy);

/* A connected socket to 127.0.0.1:`port`; aborts on failure. */
int tcp_connect(uint16_t port);
