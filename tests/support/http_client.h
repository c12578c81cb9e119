/* A small HTTP/1.1 client for tests: one request a connection, raw enough to send wrong ones. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct http_answer_text {
    int status; /* 0: the connection was closed without an answer */
    char *head; /* status line and headers */
    char *body; /* chunked encoding removed; NUL at the end */
    size_t body_n;
} http_answer_text;

/* "GET", "POST", ...; `headers` is lines that end in \r\n, or NULL; `body` NULL: none. */
http_answer_text http_request(uint16_t port, const char *method, const char *path,
                              const char *headers, const char *body);
/* Sends `bytes` as they are and reads the answer. */
http_answer_text http_raw(uint16_t port, const char *bytes, size_t n);
void http_answer_free(http_answer_text *answer);

/* The parts, for tests that do something in between: send without waiting, and read the rest. */
int http_send(uint16_t port, const char *bytes, size_t n);
http_answer_text http_read(int fd); /* closes fd */

/* The port at the end of "http://127.0.0.1:PORT". */
uint16_t http_port_of(const char *url);
